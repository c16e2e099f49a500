"""A results folder in a browser: its studies, a running sweep, runs to filter and compare; read-only."""
