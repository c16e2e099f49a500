"""Errors, text, files, metrics and the hub: what everything else stands on."""
