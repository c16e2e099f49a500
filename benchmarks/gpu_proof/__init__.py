"""One command that gives every figure of a GPU in some minutes (`make gpu-proof OUT=DIR`)."""
