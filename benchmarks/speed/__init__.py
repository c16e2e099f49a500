"""The speed tables: the harness against what people run instead, on this machine (`make bench`)."""
