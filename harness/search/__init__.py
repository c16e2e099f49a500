"""Looking for a recipe."""
