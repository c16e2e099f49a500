"""The commands: they parse and print, nothing else."""
