"""Somebody else's training code: a command or a function becomes a result."""
