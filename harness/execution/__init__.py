"""Many trials: queue, workers, Ray, rerun and verification."""
