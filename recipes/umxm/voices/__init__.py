"""The singers, and the melodies that they sing."""
