"""How the networks are trained on the songs, and packed."""
