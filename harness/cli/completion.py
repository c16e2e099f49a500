"""What a shell completes: names of sweeps and results folders, ids of their trials, keys of a sweep file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import typer

from harness.common.errors import HarnessError

_MOST = 500  # suggestions


def sweeps(ctx: typer.Context, incomplete: str) -> list[str]:
    """The sweeps that are known here."""
    from harness.execution.lookup import sweep_names

    return [name for name in sweep_names() if name.startswith(incomplete)]


def started(ctx: typer.Context, incomplete: str) -> list[str]:
    """Sweeps, and the results folders that there are."""
    folders = sorted(str(path.parent) for path in _results(ctx).glob("*/plan.json"))
    return [*sweeps(ctx, incomplete), *(name for name in folders if name.startswith(incomplete))][:_MOST]


def trials(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the named sweep's trials."""
    from harness.config.trials import expand
    from harness.execution.lookup import planned

    with suppress(HarnessError, OSError, KeyError):
        sweep, _ = planned(str(ctx.params.get("sweep") or _named()), ctx.params.get("profile"), [], _results(ctx))
        return [trial.id for trial in expand(sweep) if trial.id.startswith(incomplete)][:_MOST]
    return []


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """The keys of a sweep file, each with the sign that its value follows."""
    from harness.config.keys import all_keys

    return [f"{key.name}=" for key in all_keys() if key.name.startswith(incomplete)]


def _named() -> str:
    """The sweep of the line, which an option that lacks its value hides from the parser."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    words = [word for word in line.split()[2:] if not word.startswith("-")]
    return words[0].strip("'\"") if words else ""


def _results(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("results") or "results")
