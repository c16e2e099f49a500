"""What a name means: a sweep's file, a results folder, an import; and the commands that find them again."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import HarnessError, did_you_mean
from harness.common.text import is_unicode
from harness.config.trials import Sweep
from harness.execution import machine
from harness.execution.seed_growth import grown
from harness.records.imported import is_imported, of_import
from harness.records.store import Store
from harness.records.study import Study, of_sweep

SHIPPED = Path(__file__).parents[1] / "sweeps"  # of a checkout a link to those at its root


def named_sweep(name: str) -> Path | None:
    """The file of a sweep that is named without its path: in `sweeps/` of this folder, else one of the shipped ones."""
    paths = (folder / f"{name}.yaml" for folder in (Path("sweeps"), SHIPPED))
    return next((path for path in paths if path.is_file()), None)


def sweep_names() -> list[str]:
    """The names that `named_sweep` knows here, in the order of the alphabet."""
    return sorted({path.stem for folder in (Path("sweeps"), SHIPPED) for path in folder.glob("*.yaml")})


def sweep_file(sweep: str) -> Path:
    """The YAML file that a name or a path means.

    Raises:
        HarnessError: no sweep has that name; a path is not looked at, unless there is a sweep of that name.
    """
    if Path(sweep).suffix in (".yaml", ".yml"):
        if not Path(sweep).exists() and named_sweep(Path(sweep).stem) is not None:
            raise HarnessError(f"{sweep} is not there (did you mean the sweep '{Path(sweep).stem}'?)")
        return Path(sweep)
    path = named_sweep(sweep)
    if path is None:
        meant = did_you_mean(sweep, sweep_names())
        raise HarnessError(
            f"unknown sweep '{sweep}'{meant}",
            allowed=f"{', '.join(sweep_names())}, or a path to a YAML file",
            fix=None if meant or re.search(r"[/@]", sweep) else f"`harness init {shlex.quote(sweep)}` begins a new one",
        )
    return path


def is_results(sweep: str) -> bool:
    """Whether a results folder is meant, and not a sweep that a folder without a plan happens to be called like."""
    named = named_sweep(sweep) is not None and not (Path(sweep) / "plan.json").is_file()
    return bool(sweep) and Path(sweep).is_dir() and not named


def planned(sweep: str, profile: str | None, overrides: Sequence[str], results: Path) -> tuple[Sweep, Store]:
    """A sweep as its results folder has it, with the settings it was started with; else as its file says."""
    if is_results(sweep):
        store = Store(Path(sweep))
        started_plan = store.load_plan()
        if started_plan is None:
            why = "holds imported runs, which have no records" if is_imported(store.folder) else "has no plan.json"
            raise HarnessError(f"{sweep} {why}", fix="Name a results folder, results/<sweep>@<profile>")
        return started_plan, store
    path = sweep_file(sweep)
    if profile is None:  # the profile that was run, rather than the one this machine would choose
        folders = sorted(results.glob(f"{glob.escape(path.stem)}@*"))
        run = [Store(folder) for folder in folders if (folder / "plan.json").is_file()]
        plans = [(plan, store) for store in run if (plan := store.load_plan()) is not None]
        if len(plans) == 1 and not overrides:
            return plans[0]
        if len(plans) == 1:
            profile = plans[0][0].profile
        if len(plans) > 1:
            raise HarnessError(
                f"several profiles of {path.stem} have results: {', '.join(plan.profile for plan, _ in plans)}",
                fix="Name one with --profile",
            )
    resolved, _ = machine.resolve(path, profile, overrides)
    store = Store(results / resolved.folder_name)
    resolved = grown(resolved, store)
    started_plan = None if overrides else store.load_plan()
    if started_plan is None and resolved.search is not None:
        raise HarnessError(
            f"{path.name} is a search that has not begun: {store.folder} has no trials",
            fix=f"`harness search {sweep}` begins it (without --set)",
        )
    return started_plan or resolved, store


def study_of(name: str, profile: str | None, overrides: Sequence[str], results: Path) -> tuple[Study, Path]:
    """What a word of `report` names, and its results folder: an import, a folder, or a sweep."""
    if not is_unicode(folder := str(results / name)):
        raise HarnessError(f"cannot read {folder}: its name is no UTF-8, and tables would hold it", fix="Rename it")
    is_path = name.endswith((".yaml", ".yml"))
    is_sweep = Path(name).is_file() if is_path else named_sweep(name) is not None
    for place in (Path(name), results / name):
        if is_imported(place) and not (is_sweep and place != Path(name)):
            return of_import(place), place
    if not is_results(name) and not is_sweep and is_results(str(results / name)):
        name = str(results / name)
    resolved, store = planned(name, profile, overrides, results)
    path = None if is_results(name) else sweep_file(name)
    return of_sweep(resolved, store, rerun_words(path, name, resolved, store.folder.parent)), store.folder


def rerun_words(path: Path | None, given: str, sweep: Sweep, results: Path) -> str:
    """The beginning of a rerun command that finds this sweep again."""
    words = [program(), "rerun", given, "--profile", sweep.profile]
    if path is None:
        words = [program(), "rerun", given]
    elif results != Path("results"):
        words += ["--results", str(results)]
    return shlex.join(words)


def program() -> str:
    """What to type for `harness` here: under make the virtual environment is not on the PATH."""
    called = Path(sys.argv[0])
    if called.name != "harness" or not called.is_file() or shutil.which("harness"):
        return "harness"
    return os.path.relpath(called)
