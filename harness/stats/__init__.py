"""Statistics: numbers in, numbers out; imports nothing of ours."""
