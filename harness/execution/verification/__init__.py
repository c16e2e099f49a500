"""What a results folder contradicts in itself, and the seal that a folder is held against."""
