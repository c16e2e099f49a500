"""A share of the training examples as the dev split: which of them, decided by a hash of their texts and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from harness.common.errors import HarnessError
from harness.common.text import count_noun

Row = TypeVar("Row")


def parted(
    rows: Sequence[Row], keys: Sequence[tuple[str, ...]], classes: Sequence[str] | None, share: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """The rows [N] that stay in training and those of the dev split, each in order; else as `chosen`."""
    dev = chosen(keys, classes, share, seed)
    train, held_out = ([row for place, row in enumerate(rows) if (place in dev) == wanted] for wanted in (False, True))
    return train, held_out


def chosen(keys: Sequence[tuple[str, ...]], classes: Sequence[str] | None, share: float, seed: int) -> frozenset[int]:
    """The places [of N] that go to the dev split: `share` of them, of each class in proportion.

    `keys` [N] are the texts of the examples: equal ones stay together, so that none stands in both splits. Of each
    class the groups with the smallest hashes of seed and texts are taken, until its part is full; its last group stays
    in training. `classes` [N] is None where there are none to be kept in proportion. The same on every machine: no
    generator of numbers is asked. Raises HarnessError where nothing is left for one of the two.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    by_class: dict[str, list[list[int]]] = {}
    for places in groups.values():  # texts with several labels go with the first
        by_class.setdefault("" if classes is None else classes[places[0]], []).append(places)
    sizes = {name: sum(map(len, own)) for name, own in by_class.items()}
    dev: set[int] = set()
    for name, wanted in _parts(sizes, share).items():
        ordered = sorted(by_class[name], key=lambda places: _hash(keys[places[0]], seed))
        taken = 0
        for places in ordered[:-1]:
            if taken >= wanted:
                break
            dev.update(places)
            taken += len(places)
    if not dev or len(dev) == len(keys):
        raise HarnessError(
            f"task.validation {share:g} leaves no examples for {'training' if dev else 'the dev split'}",
            got=f"{count_noun(len(keys), 'example')}, {len(groups)} of them different",
            fix=f"{'Lower' if dev else 'Raise'} it, or give more examples",
        )
    return frozenset(dev)


def _parts(sizes: dict[str, int], share: float) -> dict[str, int]:
    """How many examples of each class: `share` of all together, by largest remainders (Hamilton's method)."""
    exact = {name: share * size for name, size in sorted(sizes.items())}
    parts = {name: int(part) for name, part in exact.items()}
    missing = round(share * sum(sizes.values())) - sum(parts.values())
    for name in sorted(exact, key=lambda label: parts[label] - exact[label])[: max(0, missing)]:
        parts[name] += 1
    return parts


def _hash(key: tuple[str, ...], seed: int) -> bytes:
    digest = hashlib.sha256(f"{seed}\n".encode())
    for text in key:
        content = text.encode()
        digest.update(b"%d %s\n" % (len(content), content))  # with its length, so that no two keys collide
    return digest.digest()
