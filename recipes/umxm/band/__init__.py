"""The players of drums, bass and everything else."""
