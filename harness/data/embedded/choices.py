"""The embedded language as multiple choice: which of some conclusions follows from a sentence."""

from __future__ import annotations

import random
from collections.abc import Iterator

from harness.data.embedded.language import Pair, Split, conclusions

CHOICES = 4
_SIZES: dict[Split, int] = {"train": 1_000, "validation": 400}
_SEEDS: dict[Split, int] = {"train": 11, "validation": 12}


def examples(split: Split) -> Iterator[dict[str, object]]:
    """The fixed fine-tuning data as rows of a file: a premise, four conclusions, and which of them is entailed."""
    rng = random.Random(_SEEDS[split])
    for _ in range(_SIZES[split]):
        pairs: list[Pair] = conclusions(rng, CHOICES, split=split)
        position = int(rng.random() * CHOICES)  # the entailed one is drawn first
        pairs[0], pairs[position] = pairs[position], pairs[0]
        yield {"text": pairs[0].premise, "choices": [pair.hypothesis for pair in pairs], "label": str(position)}
