"""What an import is told to do, and the checks that need no file."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import HarnessError
from harness.records.importing.mlflow_store import is_uri, without_credentials
from harness.records.importing.sources import as_path
from harness.records.importing.text import quoted, storable
from harness.records.importing.units import UNITS

AGGREGATIONS = ("mean", "median", "min", "max", "first", "last")
NAN_CHOICES = ("missing", "diverged")

_NAME = re.compile(r"(?!.*\.ya?ml$)[^\W_][\w.-]{0,99}")
_REPEATED = ("cell", "seed", "metric", "where", "majority", "reference")
_ONCE = ("nan", "aggregate", "seeds", "examples", "test", "best", "loss", "seed_from", "state", "unit")


@dataclass(frozen=True)
class ImportOptions:
    """What an import is told, as it was typed; `sources` are files, folders and addresses."""

    sources: tuple[str, ...]
    seed: str | None
    metric: str
    name: str
    cell: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    majority: str | None = None
    higher_is_better: bool = True
    nan: str | None = None
    aggregate: str | None = None
    seeds: str | None = None
    examples: str | None = None
    test: str | None = None
    best: str | None = None
    loss: str | None = None
    seed_from: str | None = None  # a regular expression on where a run lies
    state: str | None = None
    unit: str | None = None
    reference: tuple[str, ...] = ()  # AXIS=VALUE

    @property
    def command(self) -> str:
        """The shell command that imports this again; of an absolute path only its last part, and no password."""
        words = ["harness", "import", *map(_source, self.sources)]
        for name in _REPEATED:
            value = getattr(self, name)
            values = (value,) if isinstance(value, str) else value or ()
            words += [word for text in values for word in option_words(name, text)]
        words += [] if self.higher_is_better else ["--lower-is-better"]
        for name in _ONCE:
            words += [] if getattr(self, name) is None else option_words(name, getattr(self, name))
        words += ["--as", self.name]
        return storable(shlex.join(words))


def _source(source: str) -> str:
    if is_uri(source):
        return without_credentials(source)
    path = Path(as_path(source))
    return path.name if path.is_absolute() else str(path)


def option_words(name: str, value: str) -> list[str]:
    """An option and its value as words of a command."""
    option = f"--{name.replace('_', '-')}"
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def check_name(name: str) -> str:
    """A name that a results folder may have; raises HarnessError for others."""
    if not _NAME.fullmatch(name):
        raise HarnessError(
            "--as must be up to 100 letters, digits, '.', '_' and '-', begin with a letter or digit and not end "
            "as a YAML file",
            got=quoted(name),
        )
    return name


def check(options: ImportOptions) -> None:
    """Raise HarnessError for what can be told without reading a file."""
    choices = (("--nan", options.nan, NAN_CHOICES), ("--aggregate", options.aggregate, AGGREGATIONS))
    for option, value, allowed in (*choices, ("--unit", options.unit, UNITS)):
        if value is not None and value not in allowed:
            raise HarnessError(f"{option} must be one of {', '.join(allowed)}", got=quoted(value))
    if options.examples is not None and not options.higher_is_better:
        raise HarnessError(
            "--examples cannot be used with --lower-is-better: it says that the score is a share of right answers",
            fix="Leave one out",
        )
    if not options.sources:
        raise HarnessError("no files to import", fix="Name one or more")
    if (options.seed is None) == (options.seed_from is None):
        raise HarnessError(
            "--seed and --seed-from are both missing"
            if options.seed is None
            else "--seed and --seed-from cannot both be set",
            fix="Give one of the two: --seed COLUMN, or --seed-from 'seed(\\d+)'",
        )
