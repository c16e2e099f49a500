"""A page is written whatever a record lacks or claims: each field and array taken away in turn, and made absurd."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from made_runs import Run
from whole_records import arrays_of, rewrite, whole_store

from harness.common import files
from harness.config.trials import expand
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import page
from harness.report.figures import all_figures

GOOD, OTHERS = 310, 2  # right answers of the runs that are left alone, and how many in each cell
TEXT = "task: embedded\nmodel: embedded\nlr: [1e-5, 2e-5]\nepochs: 1\nseeds: 1..{seeds}\n"
NUMBERS: tuple[object, ...] = (0, -1, 10**12, 10**30, 1e300, -1e300, 1.5)
WORDS: tuple[object, ...] = (
    "",
    "x" * 10_000,
    "\x1b]0;title\x07\x00\x1b[31m",
    "<script>alert(1)</script>|_*`",
    "0" * 64,
)
ODD: tuple[object, ...] = (True, [], {}, [[1]], {"a": {"b": None}})
Harm = Callable[[Store, str], object]


def fields(content: Mapping[str, object], within: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of all values of a record, but for those of its recipe."""
    for name, value in content.items():
        place = (*within, name)
        yield place
        if isinstance(value, dict) and name != "trial":
            yield from fields(value, place)


def change(store: Store, name: str, place: tuple[str, ...], value: object, *, remove: bool = False) -> None:
    """Set a value of a record's file, or take it away."""
    path = store.path(name)
    content = json.loads(path.read_text())
    inside = content
    for part in place[:-1]:
        inside = inside[part]
    if remove:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    path.write_text(json.dumps(content))


def _absurd(value: object) -> tuple[object, ...]:
    if isinstance(value, str):
        return (*WORDS, 7)
    if isinstance(value, bool) or value is None:
        return ("x", 10**30, *ODD)
    return (*NUMBERS, "x") if isinstance(value, int | float) else ODD


def taken_fields(content: Mapping[str, object], _: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Harm]]:
    """Each field of a record without it, and with null in it."""
    for place in fields(content):
        yield f"without {place}", lambda s, n, p=place: change(s, n, p, None, remove=True)
        yield f"null {place}", lambda s, n, p=place: change(s, n, p, None)


def absurd_fields(content: Mapping[str, object], _: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Harm]]:
    """Each field of a record with values that no run has."""
    for place in fields(content):
        value: object = content
        for part in place:
            value = value[part]  # type: ignore[index]
        for absurd in _absurd(value):
            yield f"{place} {str(absurd)[:30]!r}", lambda s, n, p=place, v=absurd: change(s, n, p, v)


def taken_arrays(_: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Harm]]:
    """Each array away, empty, cut to a row, and of one dimension less or more."""
    for name, array in arrays.items():
        yield f"without {name}", lambda s, n, k=name: rewrite(s, n, **{k: None})
        for other in (array[:0], array[:1], array.ravel(), array[None], np.zeros(())):
            yield f"{name} {other.shape}", lambda s, n, k=name, v=other: rewrite(s, n, **{k: v})


def absurd_arrays(_: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Harm]]:
    """Each array of its own shape with values that no run gives."""
    for name, array in arrays.items():
        others: list[np.ndarray] = [np.full(array.shape, "x"), np.zeros(array.shape, complex), array[::-1].copy()]
        if array.dtype.kind == "f":
            others += [
                np.full(array.shape, value, array.dtype) for value in (0, -1, math.nan, math.inf, -math.inf, 3e38)
            ]
            others.append(np.full(array.shape, 1e300))
        elif array.dtype.kind in "iu":
            others += [np.full(array.shape, value, np.int64) for value in (0, -1, 10**12, 2**63 - 1)]
        for other in others:
            shown = f"{name} {other.dtype} {other.flat[0]}"
            yield shown, lambda s, n, k=name, v=other: rewrite(s, n, **{k: v})


@pytest.mark.parametrize(
    ("harms", "drawn"), [(taken_fields, False), (absurd_fields, True), (taken_arrays, False), (absurd_arrays, True)]
)
@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy's about overflows, which people do not see
def test_a_page_is_written_whatever_one_record_holds(
    tmp_path: Path, harms: Callable[..., Iterator[tuple[str, Harm]]], drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not drawn:  # what is taken away is refused as a rule, and figures are most of a page's time
        monkeypatch.setattr(all_figures, "MAKERS", ())
    monkeypatch.setattr(files, "flush", lambda path: None)
    monkeypatch.setattr("os.fsync", lambda number: None)
    sweep, store = whole_store(tmp_path / "one", [Run(GOOD)] * 2, TEXT.format(seeds=1), record=True)
    name = expand(sweep)[0].id
    kinds = list(harms(json.loads(store.path(name).read_text()), arrays_of(store, name)))
    seeds = math.ceil(len(kinds) / 2) + OTHERS
    sweep, store = whole_store(tmp_path, [Run(GOOD)] * (2 * seeds), TEXT.format(seeds=seeds), record=True)
    trials = expand(sweep)
    left = {*range(OTHERS), *range(seeds, seeds + OTHERS)}
    damaged = [trial.id for place, trial in enumerate(trials) if place not in left]
    for (_, harm), trial_id in zip(kinds, damaged, strict=False):
        harm(store, trial_id)
    study = of_sweep(sweep, store)
    written = page.write(study, tmp_path / "page")
    assert written.page.is_file()
    text = (tmp_path / "page" / "report.md").read_text()
    assert "\x1b" not in text
    assert "\x00" not in text
    counts = study.runs["status"].value_counts()
    assert counts.sum() == 2 * seeds
    whole = study.runs.iloc[sorted(left)]
    assert whole["final_score"].tolist() == [GOOD / 400] * len(left)
    assert all(study.curves(place) is not None for place in left)
    unusable = {file.trial for file in study.set_aside.files}
    assert unusable <= set(damaged)
    assert unusable, "nothing of it is refused"
    if not drawn:
        return
    figures = {path.stem for path in (tmp_path / "page" / "figures").glob("*.png")}
    assert {"spread", "curves"} <= figures
