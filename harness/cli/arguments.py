"""What the words of a command line name: a sweep's file, a plan, trials, kept models, a task; and commands to type."""

from __future__ import annotations

import glob
import json
import math
import re
import shlex
from pathlib import Path

from harness.cli.console import Console
from harness.common.errors import HarnessError, did_you_mean
from harness.common.text import count_noun, show
from harness.config.recipe import ModelSpec, Recipe, TaskFiles
from harness.config.sweep_file import task_of
from harness.config.trials import Sweep, Trial, expand, where
from harness.execution import machine
from harness.execution.lookup import is_results, named_sweep, planned, program, sweep_file, sweep_names
from harness.models import saved
from harness.records.store import Store


def seconds_of(text: str) -> float:
    """A time as people write it, 2h, 90m, 1h30m, 30s or 1:30:00."""
    parts = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", text.strip(), re.ASCII)
    number = r"(\d+(?:\.\d+)?)"
    parts = parts or re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip().lower(), re.ASCII)
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0.0
    )
    if not 0 < seconds < math.inf:
        raise HarnessError("--time-limit must be a time, such as 2h, 90m, 1h30m, 30s or 1:30:00", got=f"'{text}'")
    return seconds


def planned_to_verify(sweep: str, profile: str | None, results: Path) -> tuple[Sweep, Store]:
    """As `planned`; a plan.json that is damaged is a finding, as long as something else says what was planned."""
    from harness.execution.verification import verify as verifying

    try:
        return planned(sweep, profile, [], results)
    except HarnessError:
        resolved = None
        if is_results(sweep):
            store = Store(Path(sweep))
        else:
            path = sweep_file(sweep)
            folders = [folder for folder in results.glob(f"{glob.escape(path.stem)}@*") if folder.is_dir()]
            if profile is None and len(folders) == 1:
                profile = folders[0].name.removeprefix(f"{path.stem}@")
            resolved, _ = machine.resolve(path, profile, [])
            store = Store(results / resolved.folder_name)
        plan, wrong = verifying.plan_of(store)
        if wrong is None or (plan or resolved) is None:
            raise
        meant = plan or resolved
        assert meant is not None
        return meant, store


def sweep_file_now(name: str, started: Sweep) -> Sweep | None:
    """The sweep as its file says today, where a started one was named by its file; None where that can't be read."""
    if is_results(name):
        return None
    try:
        return machine.resolve(sweep_file(name), started.profile, [])[0]
    except (HarnessError, OSError):
        return None


NO_MODEL = "none"


def recipes_of_data(
    words: list[str], model: str | None, max_length: int | None, profile: str | None, overrides: list[str]
) -> tuple[Recipe, ...]:
    """The tasks that the words of `data` name, each as a recipe that says which model and length go with it."""
    from harness.data import glue

    first, *rest = words
    is_sweep = first.endswith((".yaml", ".yml")) or named_sweep(first) is not None
    named = is_sweep or first in glue.NAMES
    paths = rest if named else words
    if len(paths) > 2 or not (named or Path(first).expanduser().exists()):
        known = ", ".join(sweep_names())
        raise HarnessError(
            f"unknown data '{' '.join(words)}'{did_you_mean(first, [*glue.NAMES, *sweep_names()])}",
            allowed="; ".join(
                filter(None, (", ".join(glue.NAMES), known, "a folder with train and dev files, or these two files"))
            ),
            fix="A task's own files stand after its name",
        )
    files = TaskFiles(train=paths[0], validation=paths[-1]) if paths else None
    changes: dict[str, object] = {} if max_length is None else {"max_length": max_length}
    if model is not None:
        local = model.startswith((".", "/", "~"))
        changes["model"] = ModelSpec(name=Path(model).name if local else model, folder=model if local else None)
    if is_sweep:
        theirs = [f"task.files={json.dumps(files.model_dump())}"] if files else []
        resolved, _ = machine.resolve(sweep_file(first), profile, [*overrides, *theirs])
        recipes = [cell.recipe for cell in resolved.cells]
    else:
        path = Path(first).expanduser().resolve()
        name = first if named else (path if path.is_dir() else path.parent).name
        task = task_of(name, files, overrides)
        recipes = [Recipe(task=task, model=ModelSpec(name=NO_MODEL), lr=1.0, epochs=1)]
    chosen = {
        (recipe.task, recipe.model, recipe.max_length): recipe
        for recipe in (recipe.model_copy(update=changes) for recipe in recipes)
    }
    return tuple(chosen.values())


def one_trial(sweep: Sweep, trial: str | None, seed: int | None, conditions: list[str]) -> Trial:
    """The one trial that is meant; an ambiguous choice lists what matches."""
    if trial is None and seed is None and not conditions:
        raise HarnessError(
            f"which trial? Neither --trial nor --seed is given (for example: --trial {expand(sweep)[0].id})"
        )
    matching = [
        candidate for candidate in where(sweep, conditions, seed) if trial is None or candidate.id.startswith(trial)
    ]
    exact = [candidate for candidate in matching if candidate.id == trial]
    matching = exact or matching
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise _no_trial(sweep, trial, seed, conditions)
    ids = ", ".join(candidate.id for candidate in matching[:30]) + (", …" if len(matching) > 30 else "")
    raise HarnessError(
        f"{len(matching)} trials match, one is needed", allowed=ids, fix="Add --where key=value or give --trial ID"
    )


def _no_trial(sweep: Sweep, trial: str | None, seed: int | None, conditions: list[str]) -> HarnessError:
    """What to say where no trial is meant: which condition none fulfils, and what the plan has instead."""
    if trial is not None:
        ids = [planned.id for planned in expand(sweep)]
        if not any(known.startswith(trial) for known in ids):
            meant = did_you_mean(trial, ids) or f" (for example: {ids[0]})"
            return HarnessError(f"no trial of the plan is called '{trial}'{meant}", fix="`harness report` lists all")
    if seed is not None and not where(sweep, [], seed):
        return HarnessError(f"no trial has seed {seed}", allowed=f"seeds {_span(sweep)}")
    for condition in conditions:
        key = condition.partition("=")[0]
        if not where(sweep, [condition]):
            values = dict.fromkeys(show(dict(cell.axes)[key]) for cell in sweep.cells) if key in sweep.axes else {}
            return HarnessError(f"no trial has {condition}", allowed=", ".join(values) or None)
    return HarnessError("no trial fulfils all of these conditions together", fix="Leave one out")


def kept_models(
    run: str, trial: str | None, ensemble: list[str], profile: str | None, results: Path, messages: Console
) -> list[Path]:
    """The folders of the kept models that are to answer."""
    if (Path(run) / saved.CARD).is_file():
        if trial is not None or ensemble:
            raise HarnessError(
                "--trial and --ensemble cannot be used with a model's folder", fix="Leave them out, or name the sweep"
            )
        return [Path(run)]
    resolved, store = planned(run, profile, [], results)
    there = saved.kept(store)
    if (trial is None) == (not ensemble):
        if not there:
            raise HarnessError(
                f"{store.folder} has no saved model", fix=f"Save some: {_keeping(run, resolved, store, 'best')}"
            )
        raise HarnessError(
            "--trial and --ensemble cannot both be given"
            if ensemble
            else "which saved model? Neither --trial nor --ensemble is given",
            allowed=f"--trial ID or --ensemble KEY=VALUE; saved are: {', '.join(list(there)[:10])}",
        )
    if trial is not None:
        return [saved.place(store, one_trial(resolved, trial, None, []).id)]
    matching = where(resolved, ensemble, option="--ensemble")
    cells = sorted({candidate.cell for candidate in matching})
    if len(cells) != 1:
        raise HarnessError(
            f"--ensemble must match one cell, it matches {len(cells) or 'none'}",
            allowed="; ".join(resolved.cells[cell].label for cell in cells or range(len(resolved.cells))),
            fix="Add --ensemble KEY=VALUE" if cells else None,
        )
    members = [
        candidate.id for candidate in matching if candidate.id in there and there[candidate.id].final_score is not None
    ]
    if len(members) < 2:
        raise HarnessError(
            f"an ensemble needs two saved seeds or more, {resolved.cells[cells[0]].label} has {len(members)}",
            fix=f"Save them: {_keeping(run, resolved, store, 'all')}",
        )
    absent = len(matching) - len(members)
    if absent:
        messages.print(
            f"{count_noun(absent, 'seed')} of the cell diverged or {'is' if absent == 1 else 'are'} not kept."
        )
    return [saved.place(store, trial_id) for trial_id in members]


def _keeping(given: str, sweep: Sweep, store: Store, which: saved.Which) -> str:
    """The command that keeps models as it trains: a results folder is none that `harness sweep` takes."""
    words = None if sweep.search else sweep_words(given, sweep, store)
    return f"`{words} --keep {which}`" if words else f"the sweep's own command with --keep {which}"


def _span(sweep: Sweep) -> str:
    seeds = [seeds.seed for seeds in sweep.due_seeds]
    return f"{min(seeds)} to {max(seeds)}"


# ----------------------------------------------------------------------------------------------------- commands to type


def sweep_words(given: str, sweep: Sweep, store: Store) -> str | None:
    """The command that trains what is missing, with what was set when the sweep was begun; None where none is known."""
    if is_results(given):
        if named_sweep(sweep.name) is None or store.folder.resolve().name != sweep.folder_name:
            return None
        given = sweep.name
    words = [program(), "search" if sweep.search else "sweep", given, "--profile", sweep.profile]
    lines = (sweep.source or "").splitlines()
    while lines and lines[-1].startswith("# --set "):
        words[5:5] = ["--set", lines.pop().removeprefix("# --set ")]
    if store.folder.parent != Path("results"):
        words += ["--results", str(store.folder.parent)]
    if sweep.search:
        from harness.search import search as searching

        words += searching.switches(sweep, store)
    return shlex.join(words)
