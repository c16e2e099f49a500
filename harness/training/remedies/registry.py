"""Which remedies there are: the classes in the files of this folder, so that a new one is a new file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Remedy


@cache
def remedy_classes() -> tuple[type[Remedy], ...]:
    """All remedies, in the order of their hooks."""
    classes: set[type[Remedy]] = set()
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"{__package__}.{info.name}")
        classes |= {
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Remedy) and value.__module__ == module.__name__
        }
    return tuple(sorted(classes - {Remedy}, key=lambda kind: kind.order))


def build_remedies(pack: TrainingPack, *, random: bool = True) -> tuple[Remedy, ...]:
    """The remedies that a recipe of the pack uses, in the order of their hooks; without `random`, none that draws."""
    return tuple(
        kind(pack)
        for kind in remedy_classes()
        if any(map(kind.used_by, pack.recipes)) and (random or not kind.is_random)
    )
