"""The network of one target, with Open-Unmix's arguments."""
