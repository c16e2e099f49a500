"""Shared by the tests of questions about contexts: a small task that a small network learns, and its trials."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from harness.config.recipe import TaskFiles, TaskSpec

COLOURS = ("red", "blue")


def rows(count: int, seed: int, *, answered: float = 0.8, longest: int = 8) -> list[dict[str, Any]]:
    """Contexts of letters in which a colour may stand; the question is always the same, the answer is the colour."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        words = draw.choices("abcdefgh", k=draw.randint(3, longest))
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if draw.random() < answered:
            place, colour = draw.randint(0, len(words)), draw.choice(COLOURS)
            start = sum(len(word) + 1 for word in words[:place])
            words.insert(place, colour)
            answers = {"text": [colour], "answer_start": [start]}
        made.append({"question": "good", "context": " ".join(words), "answers": answers})
    return made


def span_task(folder: Path, name: str = "colours", **fields: Any) -> TaskSpec:
    """48 questions of training, 30 of dev, 10 of test."""
    options = {key: fields.pop(key) for key in ("answered", "longest") if key in fields}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, count, seed in (("train", 48, 1), ("validation", 30, 2), ("test", 10, 3)):
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(count, seed, **options)))
        paths[split] = str(path)
    return TaskSpec(name=name, kind="span", files=TaskFiles(**paths), stride=3, max_answer_length=3, **fields)
