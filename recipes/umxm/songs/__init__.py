"""From plans to songs: the mixing desk, rendering, and what is made of songs."""
