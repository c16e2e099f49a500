"""Pretrained networks, what a method trains of them, saved models and inference."""
