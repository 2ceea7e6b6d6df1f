"""There to be imported."""
