"""What several test files share: comparisons, signals, and the PyTorch oracle."""
