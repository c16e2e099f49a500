"""What is measured of the harness, beside its tests."""
