"""The one reader of records and their arrays: what is damaged, absurd or another trial's is refused, with the reason.

A results folder may be a stranger's. Only regular files of a bounded size are read, nothing is unpickled, no more is
unpacked than the record calls for, and what does not hold together is an `Unreadable`: it counts as that, neither as
crashed nor as missing, and costs no other record anything.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from harness.common.errors import describe_os_error
from harness.common.files import read_regular
from harness.common.npz import MOST_UNPACKED, ArraysError, read_arrays
from harness.config.script import AnyRecipe
from harness.config.trials import Trial
from harness.records.array_shapes import ExpectedArrays, check_arrays
from harness.records.plausible import implausible
from harness.records.record import OPTIONAL, RECORDED, Curves, Record, Recording

MOST_RECORD_BYTES = 2**24  # of a record: its longest part is a traceback
MOST_PLAN_BYTES = 2**28
MOST_ARRAY_BYTES = 2**28  # of a file of arrays, packed
LONGEST = 240  # characters of a problem: a line, whatever a damaged file holds
Problem = tuple[str, str]  # (rule, what is wrong)
_BESIDE = 2**20  # bytes of arrays that may be unpacked whatever the record says
_A_STEP, _AN_EXAMPLE = 1 << 16, 1 << 16  # bytes at most of an update, with its layers, and of an example's logits


@dataclass(frozen=True)
class Unreadable:
    """A file of a trial that can't be used: where it lies in the results folder, and all that is wrong with it."""

    trial: str
    file: str
    problems: tuple[Problem, ...]

    @property
    def reason(self) -> str:
        """The first thing that is wrong, in one printable line."""
        more = len(self.problems) - 1
        return f"{self.problems[0][1]}{f' (and {more} more)' if more else ''}"


def one_line(text: str) -> str:
    """One printable line of bounded length, whatever a file held."""
    if len(text) <= LONGEST and text.isprintable() and text == " ".join(text.split()):
        return text
    text = text[: 4 * LONGEST]
    plain = "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
    short = " ".join(plain.split())
    return short if len(short) <= LONGEST else short[: LONGEST - 1] + "…"


def explain(error: ValidationError) -> str:
    """The first thing that pydantic found, without the input, which may be long."""
    first, more = error.errors(include_url=False, include_input=False)[0], error.error_count() - 1
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}{f' (and {more} more)' if more else ''}"


def key_twice(content: bytes) -> str | None:
    """The first key of a JSON text that stands twice in one object; None where none does. Raises ValueError."""
    found: list[str] = []

    def made(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            keys = [key for key, _ in pairs]
            found.extend(key for key in fields if keys.count(key) > 1)
        return fields

    json.loads(content, object_pairs_hook=made)
    return found[0] if found else None


# ------------------------------------------------------------------------------------------------------------- records


def read_record(path: str, name: str, planned: Trial | None = None) -> Record | Unreadable | None:
    """The record of a trial.

    Args:
        path: Its file.
        name: The trial's id.
        planned: The trial as it is planned, where it is known: a record of an equal one needs no second look.

    Returns:
        The record; None where there is no file, and an `Unreadable` where it can't be used.
    """

    def refused(*problems: Problem) -> Unreadable:
        return Unreadable(name, f"trials/{name}.json", tuple((rule, one_line(words)) for rule, words in problems))

    try:
        content = read_regular(path, MOST_RECORD_BYTES)
        record = _record_of_known_recipe(content) or _record(content, planned)
    except FileNotFoundError:
        return None
    except OSError as error:
        return refused(("record", f"it can't be read: {describe_os_error(error)}"))
    except ValidationError as error:
        return refused(("record", explain(error)))
    problems = [*_identity(record, name, planned), *_states(record)]
    problems += [("record", words) for words in implausible(record)]
    return refused(*problems) if problems else record


# How the harness writes a record's recipe, which is most of its text and the same in all trials of a cell.
_RECIPE, _AFTER_RECIPE = b'\n  "recipe": {', b'\n  },\n  "seeds": {'
_TOKEN = secrets.token_hex(16)  # stands for the recipe in what is parsed of a file; no file can hold it
_last: tuple[bytes, AnyRecipe] | None = None  # the recipe of the record that was read before, and its text


def _record(content: bytes, planned: Trial | None) -> Record:
    """The record in the bytes of a file, whose recipe the next ones share; raises ValidationError."""
    global _last
    record = Record.model_validate_json(content)
    start, end = _recipe_in(content)
    recipe = record.trial.settings
    try:  # what stands there need not be the recipe: a key that stands twice has its last value
        text = content[start + len(_RECIPE) - 1 : end + 4]
        if end > start and type(recipe).model_validate_json(text) == recipe:
            shared = planned is not None and planned.script is None and planned.settings == recipe
            _last = content[start:end], planned.settings if planned is not None and shared else recipe
    except ValidationError:
        pass
    return record


def _recipe_in(content: bytes) -> tuple[int, int]:
    """Where the text of a recipe begins and ends in a file as the harness writes it, (-1, -1) in another."""
    start = content.find(_RECIPE)
    end = content.find(_AFTER_RECIPE, start) if start >= 0 else -1
    return (start, end) if end >= 0 else (-1, -1)


def _record_of_known_recipe(content: bytes) -> Record | None:
    """The record, where its recipe stands in the same text as that of the record before, which is not read again.

    None where anything is otherwise, for the whole file to be looked at.
    """
    last = _last
    start, end = _recipe_in(content)
    if last is None or content[start:end] != last[0]:
        return None
    rest = b'%b\n  "recipe": "%b"%b' % (content[:start], _TOKEN.encode(), content[end + 4 :])
    try:
        fields = json.loads(rest.decode())
        if fields["trial"]["recipe"] != _TOKEN:
            return None
        fields["trial"]["recipe"] = last[1]
        fields["trial"] = Trial.model_validate(fields["trial"])
        return Record.model_validate(fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _identity(record: Record, name: str, planned: Trial | None) -> Iterator[Problem]:
    if record.id != name:
        yield "id", f"the file is called {name}, the record in it {record.id!r}"
    # What a script is called with may be 1 or on, which are equal in Python and not for it.
    known = planned is not None and planned.script is None and planned == record.trial
    if not known and (computed := _id_of(record.trial)) != name:
        yield "id", f"the file is called {name}, its trial's fields give {computed}"


def _id_of(trial: Trial) -> str:
    try:
        return trial.id
    except (ValueError, TypeError, OverflowError) as error:
        return f"none ({type(error).__name__})"


def _states(record: Record) -> Iterator[Problem]:
    finished = record.status == "finished"
    if finished != (record.measured is not None):
        yield "status", f"{record.status}, {'without' if finished else 'with'} a result"
    if record.trial.script is None and record.script is not None:
        yield "status", "a trial of the engine's, with how a script was run"
    if record.trial.script is not None and record.script is None and record.measured is not None:
        yield "status", "a script's result, without how it was run"


# -------------------------------------------------------------------------------------------------------------- arrays


@dataclass(frozen=True)
class CheckedArrays:
    """The arrays of a file and what is wrong with them; there are none where they can't be used."""

    curves: Curves | None
    problems: tuple[Problem, ...]


def read_trial_arrays(
    path: str, name: str, expected: ExpectedArrays, *, recording: bool = True, any_hash: bool = False
) -> Curves | Unreadable | None:
    """The arrays of a finished trial, held against its record.

    Args:
        path: Their file.
        name: The trial's id.
        expected: What its record says of them.
        recording: Whether its recording is read too, where there is one.
        any_hash: Whether a file is read that was changed since the record was written, for what compares the two.

    Returns:
        The arrays; None where none are kept, and an `Unreadable` where they are not those of the record.
    """
    try:
        content = read_regular(path, MOST_ARRAY_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        checked = CheckedArrays(None, (("arrays", f"they can't be read: {describe_os_error(error)}"),))
    else:
        digest = hashlib.sha256(content).hexdigest()
        if digest != expected.sha256 and not any_hash:
            checked = CheckedArrays(None, (other_hash(digest, expected.sha256),))
        else:
            checked = check_content(content, expected, recording=recording)
    if checked.problems or checked.curves is None:
        problems = tuple((rule, one_line(words)) for rule, words in checked.problems)
        return Unreadable(name, f"trials/{name}.npz", problems)
    return checked.curves


def other_hash(digest: str, recorded: str | None) -> Problem:
    """That a file of arrays has another hash than its record knows."""
    return "arrays_sha256", f"hash {digest[:12]}…, in the record {(recorded or 'none')[:12]}…"


def check_content(content: bytes, expected: ExpectedArrays, *, recording: bool = True) -> CheckedArrays:
    """The arrays in the bytes of a file, and whether they are of the shapes, kinds and ranges that the record says."""
    try:
        arrays = read_arrays(
            content, without="" if recording else RECORDED, rows=expected.rows, most_bytes=_room(expected)
        )
    except ArraysError as error:
        rule = "shapes" if str(error).endswith(" rows") else "arrays"
        return CheckedArrays(None, ((rule, str(error) if rule == "shapes" else f"they can't be read: {error}"),))
    curves = _curves(arrays)
    if isinstance(curves, str):
        return CheckedArrays(None, (("arrays", curves),))
    problems = tuple(("shapes", words) for words in check_arrays(curves, expected))
    return CheckedArrays(None if problems else curves, problems)


def _room(expected: ExpectedArrays) -> int:
    """Bytes that the arrays may take at most, by what the record says of their lengths."""
    examples = (expected.dev_examples or 0) + expected.test_examples
    return min(MOST_UNPACKED, _BESIDE + _A_STEP * (expected.steps or MOST_UNPACKED) + _AN_EXAMPLE * examples)


_OF_CURVES = frozenset(Curves.__dataclass_fields__) - {"recording"}
_OF_RECORDING = frozenset(f"{RECORDED}{name}" for name in Recording.__dataclass_fields__)


def _curves(arrays: dict[str, Any]) -> Curves | str:
    """The arrays as one thing, or which are lacking or unknown."""
    recorded, problem = _sorted_out(tuple(arrays))
    if problem:
        return problem
    if not recorded:
        return Curves(**arrays)
    recording = Recording(**{name.removeprefix(RECORDED): arrays[name] for name in sorted(recorded)})
    return Curves(**{name: arrays[name] for name in arrays if name not in recorded}, recording=recording)


@lru_cache(maxsize=64)  # ten thousand files have the same few names
def _sorted_out(names: tuple[str, ...]) -> tuple[frozenset[str], str]:
    """Those of the names that are a recording's, and which are lacking or unknown."""
    recorded = frozenset(name for name in names if name.startswith(RECORDED))
    known = _OF_CURVES | (_OF_RECORDING if recorded else frozenset())
    lacking, other = sorted(known - OPTIONAL - set(names)), sorted(set(names) - known)
    return recorded, "; ".join(_named("lacking", lacking) + _named("unknown", other))


def _named(kind: str, names: Sequence[str]) -> list[str]:
    return [f"{kind} {', '.join(names)}"] if names else []
