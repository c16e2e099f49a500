"""A sweep file becomes recipes, trials and ids; no torch."""
