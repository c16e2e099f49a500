"""Runs of one study that other code, versions, kernels or devices made than the rest: a comparison may hang on that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from harness.common.text import count_noun
from harness.records.record import Environment, Record
from harness.records.study import Study

# Fields of a record's environment and their words; not the precision of products, which is a recipe's.
FIELDS: Mapping[str, str] = {
    "device": "device",
    "device_name": "device name",
    "kernels": "CPU kernels",
    "kernel_settings": "settings of the kernels",
    "threads": "CPU threads",
    "torch": "torch",
    "transformers": "transformers",
    "cuda": "CUDA",
    "driver": "NVIDIA driver",
    "compiler": "compiler",
    "python": "Python",
    "harness": "harness",
    "code": "code",
}
# A cell was made by something if so many of its finished runs were, and not by it if no more than the rest were.
_SHARE = 0.8
_SHOWN = 3  # values that a sentence lists


def code_of(commit: str | None, dirty_diff_sha256: str | None) -> str | None:
    """Which state of the harness trained, in a word: the commit, with the start of its changes' hash."""
    if commit is None or dirty_diff_sha256 is None:
        return commit
    return f"{commit} {dirty_diff_sha256[:8]}"


@lru_cache(maxsize=256)  # ten thousand records were made in a few
def surroundings(environment: Environment) -> Mapping[str, str | None]:
    """What made a run, by the names of `FIELDS`; None where that is not known."""
    values = {name: getattr(environment, name) for name in FIELDS if name != "code"}
    values["code"] = code_of(environment.commit, environment.dirty_diff_sha256)
    values["device"] = environment.device.partition(":")[0]  # one card of several alike
    return {name: None if value is None else str(value) for name, value in values.items()}


# ------------------------------------------------------------------------------------------------------- on resume


def resumed(records: Iterable[Record], now: Mapping[str, str | None]) -> str | None:
    """What to say before a sweep goes on whose finished records were made by something else; None where none were.

    Args:
        records: Those of the results folder.
        now: What would train the rest, by the names of `FIELDS`; what is not known is left out or None.
    """
    trained = [record for record in records if record.measured is not None and record.environment is not None]
    others, values = 0, dict[str, dict[str, int]]()
    for record in trained:
        assert record.environment is not None
        before = surroundings(record.environment)
        changed = [name for name in FIELDS if record.script is None and _differ(before[name], now.get(name))]
        others += bool(changed)
        for name in changed:
            of_field = values.setdefault(name, {})
            of_field[str(before[name])] = of_field.get(str(before[name]), 0) + 1
    if not others:
        return None
    parts = []
    for name, counts in values.items():
        of = sum(counts.values())
        some = "" if of == others else f"{count_noun(of, 'record')}; "
        parts.append(f"{_named(name, counts)} ({some}now {now[name]})")
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    were = "was" if others == 1 else "were"
    return f"{others} of {count_noun(len(trained), 'record')} {were} trained with {listed}; going on mixes them"


def _named(name: str, counts: Mapping[str, int]) -> str:
    """`torch 2.1.0 or 2.2.0`, those of most records first; `other code` with its commits."""
    values = sorted(counts, key=lambda value: -counts[value])
    listed = " or ".join(values[:_SHOWN]) + (" or others" if len(values) > _SHOWN else "")
    return f"{'other code' if name == 'code' else FIELDS[name]} {listed}"


def _differ(before: str | None, now: str | None) -> bool:
    """Whether two values that are both known differ; a version may be known without its build (`2.13.0+cpu`)."""
    if before is None or now is None:
        return False
    if "+" in before and "+" in now:
        return before != now
    return before.partition("+")[0] != now.partition("+")[0]


# -------------------------------------------------------------------------------------------------- of a whole study


@dataclass(frozen=True)
class Mixture:
    """Things of which the finished runs had several values, always together.

    Attributes:
        names: The things, in words.
        runs: How many runs had which value of each, those of most runs first.
        by_cell: Two cells that different values made, each as (position of the cell, value in words, runs with it,
            finished runs); None where the values are spread over the cells alike.
    """

    names: tuple[str, ...]
    runs: tuple[tuple[str, int], ...]
    by_cell: tuple[tuple[int, str, int, int], tuple[int, str, int, int]] | None

    @property
    def words(self) -> str:
        """`10 runs with torch 2.1.0, 8 with torch 2.13.0`."""
        counted = [f"{count_noun(number, 'run') if not place else number} with {value}"
                   for place, (value, number) in enumerate(self.runs[:_SHOWN])]  # fmt: skip
        more = len(self.runs) - _SHOWN
        return ", ".join(counted) + (f" and {count_noun(more, 'other value')}" if more > 0 else "")

    def warning(self, labels: Sequence[str]) -> str | None:
        """That a comparison of cells is one of these things too, given the cells' names; None where it is not."""
        if self.by_cell is None:
            return None
        made = [f"{value} made {runs} of {count_noun(of, 'finished run')} of {labels[cell]}"
                for cell, value, runs, of in self.by_cell]  # fmt: skip
        things = " and ".join(filter(None, (", ".join(self.names[:-1]), self.names[-1])))
        return (
            f"Confounded with {things}: {made[0]}, and {made[1]}. A difference between these cells may come from that "
            "rather than from their settings: train them alike before comparing them."
        )


def mixtures(runs: pd.DataFrame) -> tuple[Mixture, ...]:
    """What the finished runs were made by that is not the same of all; what is not known of a run counts for none.

    Args:
        runs: A row a finished run, with the columns `cell` and those of `FIELDS`.
    """
    alike: dict[tuple[int, ...], list[str]] = {}
    trained_here = runs["torch"].notna().any()  # not by somebody's script, which our code leaves as it is
    for name in FIELDS if trained_here else [name for name in FIELDS if name not in ("harness", "code")]:
        column = runs[name]
        if column.nunique() > 1:
            alike.setdefault(tuple(pd.factorize(column)[0]), []).append(name)
    found = []
    for codes, names in alike.items():
        values = pd.Series(codes, index=runs.index)
        values = values[values >= 0]  # -1: not known
        first = runs.loc[values.index[~values.duplicated()]]
        words = [", ".join(f"{FIELDS[name]} {row[name]}" for name in names) for _, row in first.iterrows()]
        counts = values.value_counts(sort=False).sort_index()
        ordered = sorted(zip(words, counts, strict=True), key=lambda pair: -pair[1])
        titles = tuple(FIELDS[name] for name in names)
        found.append(Mixture(titles, tuple((word, int(count)) for word, count in ordered), _apart(runs, values, words)))
    return tuple(found)


def _apart(
    runs: pd.DataFrame, values: pd.Series, words: Sequence[str]
) -> tuple[tuple[int, str, int, int], tuple[int, str, int, int]] | None:
    """The two cells that lie furthest apart in what made them, where they lie far apart."""
    counts, finished = pd.crosstab(runs["cell"].loc[values.index], values), runs["cell"].value_counts()
    counts = counts[counts.sum(axis=1) >= _SHARE * finished[counts.index]]  # of a cell of which it is known
    shares = counts.div(finished[counts.index], axis=0)
    for value in counts.columns if len(counts) else ():
        most, least = shares[value].idxmax(), shares[value].idxmin()
        if shares.at[most, value] >= _SHARE and shares.at[least, value] <= 1 - _SHARE:
            other = counts.loc[least].idxmax()
            return tuple(  # type: ignore[return-value]
                (int(cell), words[of], int(counts.at[cell, of]), int(finished[cell]))
                for cell, of in ((most, int(value)), (least, int(other)))
            )
    return None


def of_records(records: Iterable[Record], cells: Mapping[str, int]) -> tuple[Mixture, ...]:
    """The mixtures of a folder's finished records, given the cell of each trial."""
    rows = [
        {"cell": cells[record.id], **surroundings(record.environment)}
        for record in records
        if record.measured is not None and record.environment is not None
    ]
    return mixtures(pd.DataFrame(rows)) if rows else ()


def of_study(study: Study) -> tuple[Mixture, ...]:
    """The mixtures of a study's finished runs."""
    runs = study.runs[study.runs["status"] == "finished"]
    codes = [code_of(_known(commit), _known(digest))
             for commit, digest in zip(runs["commit"], runs["dirty_diff_sha256"], strict=True)]  # fmt: skip
    devices = runs["device"].map(lambda name: name.partition(":")[0] if isinstance(name, str) else None)
    return mixtures(runs.assign(code=pd.Series(codes, index=runs.index, dtype=object), device=devices))


def _known(value: object) -> str | None:
    return value if isinstance(value, str) else None


def warnings(study: Study) -> Iterator[str]:
    """A sentence for each thing that a comparison of the study's cells is confounded with."""
    labels = [cell.label for cell in study.cells]
    for mixture in of_study(study):
        if (sentence := mixture.warning(labels)) is not None:
            yield sentence
