"""What every player needs: the plan of a song, recorded sounds, notes, effects."""
