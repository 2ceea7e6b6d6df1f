"""The model umxm: songs rendered from free recordings, training, and scores."""
