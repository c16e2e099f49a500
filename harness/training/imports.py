"""What a worker imports, in some seconds, before it can train."""

from __future__ import annotations

from contextlib import suppress


def import_everything() -> None:
    """Import torch, transformers and the training loop; what fails does so again where it is used."""
    with suppress(Exception):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

        from harness.training import loop  # noqa: F401
