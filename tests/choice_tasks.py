"""Shared by the tests of multiple choice: small files where one word tells the right choice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from harness.config.recipe import TaskFiles, TaskSpec


def rows(count: int, seed: int, choices: int = 3) -> list[dict[str, object]]:
    """Texts of one to six letters; of the choices, two to five words each, the right one alone has `good` in it."""
    draw = random.Random(seed)
    made: list[dict[str, object]] = []
    for _ in range(count):
        right = draw.randrange(choices)
        others = []
        for position, first in enumerate(draw.sample("abcdefgh", choices)):
            words = [*draw.choices("abcdefgh", k=draw.randint(0, 3)), "good" if position == right else "bad"]
            others.append(" ".join([first, *draw.sample(words, len(words))]))
        text = " ".join(draw.choices("abcdefgh", k=draw.randint(1, 6)))
        made.append({"text": text, "choices": others, "label": right})
    return made


def write(path: Path, content: list[dict[str, object]]) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def choice_task(folder: Path, train: list[Any], dev: list[Any], test: list[Any] | None = None, **more: Any) -> TaskSpec:
    """A task of such rows in a folder of its own."""
    given = {"train": train, "validation": dev} | ({} if test is None else {"test": test})
    files = {split: str(write(folder / f"{split}.jsonl", content)) for split, content in given.items()}
    return TaskSpec(name=folder.name, kind="choice", files=TaskFiles(**files), **more)
