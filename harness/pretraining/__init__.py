"""Making a model folder."""
