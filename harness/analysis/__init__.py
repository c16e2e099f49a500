"""A study becomes tables."""
