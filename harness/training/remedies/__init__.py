"""What is done against instability beside the optimizer, one method a file; `registry` finds them."""
