"""States of runs, recognised by their words in whatever column: a crash is missing data, never a failed run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.records.importing.table import SourceTable
from harness.records.importing.text import listed, printable, quoted, text_of

Status = Literal["finished", "crashed", "missing"]

# Words of Weights & Biases, MLflow, Optuna, Ray Tune, Slurm, SageMaker, Azure, ClearML and of this harness.
_FINISHED = "finished complete completed terminated succeeded success successful done ok passed"
_CRASHED = (
    "crashed crash failed failure fail killed error errored exception aborted cancelled canceled timeout timed_out "
    "out_of_memory oom node_fail boot_fail deadline"
)
_MISSING = (
    "running pending waiting queued scheduled created submitted in_progress paused suspended stopped stopping "
    "preempted preempting unfinished missing unknown"
)
_PRUNED = "pruned"  # Optuna's: stopped early, so it has no score of the end of training
WORDS: Mapping[str, Status] = {
    **dict.fromkeys(_FINISHED.split(), "finished"),
    **dict.fromkeys(_CRASHED.split(), "crashed"),
    **dict.fromkeys(_MISSING.split(), "missing"),
    _PRUNED: "missing",
}
# Words that may as well say how good a run was: in a column not named for states they are not enough.
_VERDICTS = {"ok", "passed", "success", "successful", "failed", "failure", "fail", "error", "unknown"}
_NAMED = {"state", "status", "runstate", "runstatus", "trialstate", "trialstatus", "jobstate", "jobstatus"}
_ENUM = re.compile(r"(?:trial|run|job)?(?:state|status)\.", re.IGNORECASE)  # TrialState.PRUNED
NONE = "none"  # --state none: no column tells states


def normalised(value: object) -> str:
    """A state as the lists above have it: `TrialState.COMPLETE` and ` Complete ` are `complete`."""
    text = _ENUM.sub("", text_of(value).strip(), count=1)
    return text.casefold().replace(" ", "_").replace("-", "_")


def is_named(column: str) -> bool:
    """Whether a column's name ends in state or status, as `run.state` and `Trial Status` do."""
    words = [word for word in re.split(r"[^a-z]+", column.casefold()) if word]
    return bool(words) and words[-1] in _NAMED


def may_be(value: object) -> bool:
    """Whether a value is a word of states, or nothing."""
    if value is None:
        return True
    return isinstance(value, str) and ((word := normalised(value)) in WORDS or not word)


@dataclass(frozen=True)
class States:
    """What the states' column says of each row: its meaning and its own words; and sentences on what was decided."""

    column: str | None
    status: list[Status]
    words: list[str]
    notes: tuple[str, ...] = ()


def recognise(
    tables: Sequence[SourceTable],
    values: Mapping[str, Sequence[object]],
    table_of_row: Sequence[int],
    option: str | None,
    settings: Iterable[str],
) -> States:
    """The states of the rows, by the column that `--state` names or that holds them.

    `values` maps each column that may hold states to its values in the rows that are read (None in those of a table
    that lacks it), `settings` are the columns that tell cells apart. Raises HarnessError where it can't be told.
    """
    rows = len(table_of_row)
    own = {index: table.state_column for index, table in enumerate(tables) if table.state_column is not None}
    if option == NONE:
        notes = ("No column tells the states of runs (--state none): every row counts as finished.",)
        return States(None, ["finished"] * rows, [""] * rows, notes)
    if option is not None:
        return _read(option, [(option, list(values[option]), None)], rows, lenient=False)
    parts: list[tuple[str, list[object], str | None]] = []
    for column in dict.fromkeys(own.values()):
        mine = [own.get(index) == column for index in table_of_row]
        held: list[object] = [value if is_own else _ABSENT for value, is_own in zip(values[column], mine, strict=True)]
        tools = " and ".join(dict.fromkeys(str(tables[index].tool) for index in own if own[index] == column))
        parts.append((column, held, tools))
    free = [index not in own for index in table_of_row]
    chosen, note = _choose(tables, values, free, table_of_row, set(settings))
    if chosen is not None:
        there = {index for index, table in enumerate(tables) if chosen in table.columns and index not in own}
        held = [value if index in there else _ABSENT for value, index in zip(values[chosen], table_of_row, strict=True)]
        parts.append((chosen, held, None))
    if not parts:
        return States(None, ["finished"] * rows, [""] * rows)
    states = _read(" and ".join(name for name, _, _ in parts), parts, rows, lenient=True)
    return States(states.column, states.status, states.words, (*states.notes, *note))


_ABSENT = object()  # a row of a table without the column


def _choose(
    tables: Sequence[SourceTable],
    values: Mapping[str, Sequence[object]],
    free: Sequence[bool],
    table_of_row: Sequence[int],
    settings: set[str],
) -> tuple[str | None, tuple[str, ...]]:
    """The one column of states of the tables whose tool names none, and a sentence on others that look like it."""
    words_of: dict[str, list[str]] = {}  # column -> the words of its rows, normalised
    open_tables = {index for index, is_free in zip(table_of_row, free, strict=True) if is_free}
    for column in dict.fromkeys(name for index in sorted(open_tables) for name in tables[index].candidates):
        words = [
            normalised(value)
            for value, is_free, index in zip(values[column], free, table_of_row, strict=True)
            if is_free and column in tables[index].columns
        ]
        known = [word in WORDS for word in words if word]
        if any(known) and (all(known) or is_named(column)):
            words_of[column] = words
    telling = {
        name: words
        for name, words in words_of.items()
        if any(WORDS.get(word, "missing") != "finished" for word in words)
    }  # a column that says finished of every row changes nothing
    named = {name: words for name, words in telling.items() if is_named(name)}
    plain = {name: words for name, words in telling.items() if name not in named}
    sure = {name: words for name, words in plain.items() if set(words) - _VERDICTS - {""}}
    for name in telling:
        if name in settings and (name in named or name in sure):
            _ask(name, telling[name], "--cell names it as a setting")
    for pool in (named, sure):
        pool = {name: words for name, words in pool.items() if name not in settings}
        if not pool:
            continue
        first, *others = pool
        for other in others:
            if _meanings(pool[other]) != _meanings(pool[first]):
                raise HarnessError(
                    f"two columns give different states of runs: {_shown(first, pool[first])} and "
                    f"{_shown(other, pool[other])}",
                    fix="Name one with --state, or set --state none",
                )
        unused = [name for name in telling if name not in pool and name not in settings]
        return first, tuple(f"{_shown(name, telling[name])} was not read as states." for name in unused)
    finishing = next((name for name in words_of if name not in telling and is_named(name)), None)
    if finishing is not None and not settings & {finishing}:
        unused = [name for name in telling if name not in settings]
        return finishing, tuple(f"{_shown(name, telling[name])} was not read as states." for name in unused)
    for name, words in plain.items():
        if name not in settings:
            _ask(name, words, "it may be the states of runs, where failed means crashed, or how good the runs were")
    return None, ()


def _ask(column: str, words: Sequence[str], problem: str) -> None:
    raise HarnessError(
        f"cannot tell what {_shown(column, words)} means: {problem}",
        fix=f"Set --state {quoted(column)} if it says which runs crashed, --state none if not",
    )


def _meanings(words: Sequence[str]) -> list[str]:
    return [WORDS.get(word, "missing") for word in words]


def _shown(column: str, words: Iterable[str]) -> str:
    counts = Counter(words)
    kinds = ", ".join(f"{printable(word or 'empty')[:40]} {count}" for word, count in list(counts.items())[:6])
    return f"the column {quoted(column)} ({kinds})"


def _read(
    column: str, parts: Sequence[tuple[str, Sequence[object], str | None]], rows: int, *, lenient: bool
) -> States:
    """The meaning of every row; each part has the values of its own rows and `_ABSENT` elsewhere."""
    status: list[Status] = ["finished"] * rows
    words = [""] * rows
    notes = []
    for name, values, tool in parts:
        held = {row: normalised(value) for row, value in enumerate(values) if value is not _ABSENT}
        strange = {row: word for row, word in held.items() if word and word not in WORDS}
        if strange and tool is None:
            known = any(word in WORDS for word in held.values())
            state = (
                f"{quoted(text_of(values[next(iter(strange))]))} in {count_noun(len(strange), 'row')} of the column "
                f"{quoted(name)}, which holds {listed(dict.fromkeys(held.values()), 6)}"
            )
            raise HarnessError(
                f"unknown state of a run: {state}"
                if known
                else f"--state must name a column of states of runs: {state}",
                allowed=f"{', '.join(list(WORDS)[:4])}, … as W&B, MLflow, Optuna, Ray Tune and Slurm call them",
                fix="Leave such rows out with --where COLUMN!=VALUE, or set --state none",
            )
        for row, word in held.items():
            status[row] = WORDS.get(word, "missing")
            words[row] = f"{printable(name)[:40]}: {printable(text_of(values[row]).strip() or 'none')[:40]}"
        if held:
            notes.append(_sentence(name, tool, Counter(held.values())))
    return States(column, status, words, tuple(notes))


def _meaning(kind: str, words: list[tuple[str, int]]) -> str:
    """What was taken to mean a state: `crashed: killed 2`; `21 finished` where it says so itself."""
    if [word for word, _ in words] == [kind]:
        return f"{words[0][1]} {kind}"
    named = ", ".join(f"{printable(word or 'empty')[:40]} {count}" for word, count in words)
    return f"{kind}: {named}"


def _sentence(column: str, tool: str | None, counts: Counter[str]) -> str:
    """What the words of a column were taken to mean, with counts."""
    meanings: dict[str, list[tuple[str, int]]] = {}
    for word, count in counts.items():
        kind = "stopped early, so missing" if word == _PRUNED else WORDS.get(word, "missing")
        meanings.setdefault(kind, []).append((word, count))
    order = ("finished", "crashed", "missing", "stopped early, so missing")
    texts = [_meaning(kind, meanings[kind]) for kind in order if kind in meanings]
    source = f"the column {quoted(column)}" + (f" of {tool}" if tool else "")
    return f"States of runs are read from {source} ({'; '.join(texts)}); a crash is missing data, not a failed run."
