"""From arrays, files and live signals to their stems."""
