"""Simulated coverage of every interval of the report; see `__main__`."""
