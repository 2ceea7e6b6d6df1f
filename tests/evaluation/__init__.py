"""Scores, the data sets they are made on, and the command."""
