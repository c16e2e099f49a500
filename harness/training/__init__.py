"""One pack of trials trained together."""
