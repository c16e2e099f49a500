"""One trial of a script, from its command to its record's measures."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.script import Script
from harness.config.trials import Trial
from harness.records.curve_files import curves_of_points
from harness.records.record import Curves, Measured, ScriptRun
from harness.scripts import commands, process, provenance
from harness.scripts.results import NoScoreError, ScriptResult, read_results

FUNCTION_INPUT = "arguments.json"  # what a function is called with


class ScriptError(Exception):
    """A run that crashed: its exit code, how its output ended, or that it left no score."""


@dataclass(frozen=True)
class RunFolders:
    """Where runs have their folders, and whether they are kept afterwards."""

    parent: Path
    keep: bool = True


def run_trial(
    trial: Trial, folders: RunFolders | None, silence: float | None, tick: Callable[[], None]
) -> tuple[Measured, ScriptRun, Curves | None]:
    """Run the script of a trial to its end and read what it left.

    Args:
        trial: A trial of a script.
        folders: Where its folder is made; None: a temporary one.
        silence: Seconds without output after which it counts as hanging; None: never.
        tick: Called several times a second; what it raises ends the run.

    Raises:
        ScriptError: It crashed.
    """
    assert trial.script is not None
    script = trial.script.script
    with suppress(FileNotFoundError):
        if folders is not None:
            shutil.rmtree(folders.parent / trial.id)  # of an attempt before
    folder = _made(folders, trial.id)
    started, began = time.time(), time.monotonic()
    words = commands.words_of(trial, str(folder))
    if script.function is not None:
        _write_arguments(folder, trial, script)
    env = dict(script.env)
    env.setdefault("OMP_NUM_THREADS", str(script.resources.cpus))
    try:
        ended = process.run(words, folder, env, script.cwd, script.timeout, silence, tick)
    except OSError as error:
        raise ScriptError(f"the command can't be started: {error.strerror or error} ({words[0]})") from None
    shown = commands.shown(trial, str(folder))
    if ended.why is not None or ended.exit_code != 0:
        raise ScriptError(_crash(ended, folder, shown))
    try:
        result = read_results(script, folder, started)
    except NoScoreError as error:
        raise ScriptError(f"{_output(folder)}command: {shown}\nthe run left no score: {error}") from None
    run = ScriptRun(
        command=shown,
        exit_code=ended.exit_code,
        further=tuple(result.further.items()),
        notes=result.notes,
        **provenance.of(script, words),
    )
    curves = _curves(result)
    measured = _measured(script, result, time.monotonic() - began)
    if folders is None or not folders.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return measured, run, curves


def _made(folders: RunFolders | None, name: str) -> Path:
    if folders is not None:
        folder = folders.parent / name
        folder.mkdir(parents=True)
        return folder.resolve()
    return Path(tempfile.mkdtemp(prefix="harness-run-"))


def _write_arguments(folder: Path, trial: Trial, script: Script) -> None:
    assert trial.script is not None
    content = {"arguments": dict(trial.script.settings), "seed": trial.seeds.seed}
    content |= {"file": script.score.file, "key": script.score.key}
    (folder / FUNCTION_INPUT).write_text(json.dumps(content), encoding="utf-8")


def _output(folder: Path) -> str:
    parts = [(name, process.tail(folder / name)) for name in (process.STDOUT, process.STDERR)]
    return "".join(f"{name}, its last lines:\n{text}\n" for name, text in parts if text)


def _crash(ended: process.Ended, folder: Path, shown: str) -> str:
    """All that a crash's record says; the last line says what happened."""
    last = process.tail(folder / process.STDERR, 1) or process.tail(folder / process.STDOUT, 1)
    if ended.why is not None:
        what = f"the run was ended: {ended.why}"
    elif ended.exit_code < 0:
        what = f"the command was ended by signal {-ended.exit_code}"
    else:
        what = f"the command ended with exit code {ended.exit_code}"
    return f"{_output(folder)}command: {shown}\n{what}{f': {last}' if last else ''}"


def _measured(script: Script, result: ScriptResult, seconds: float) -> Measured:
    failed = script.failed(result.score)
    best, step = _best(script, result)
    loss = None if result.loss_curve is None else float(result.loss_curve[1][-1])
    correct = None if result.answers is None else int((result.answers.labels == result.answers.answers).sum())
    return Measured(
        outcome=None if failed is None else "failed" if failed else "ok",
        reason="diverged" if result.score is None else None,
        metric=script.metric,
        final_score=result.score,
        best_score=best,
        best_step=step,
        majority_score=script.threshold,
        correct=correct if script.metric == "accuracy" else None,
        majority_correct=None,
        dev_examples=None if result.answers is None else len(result.answers.labels),
        train_examples=None,
        steps=None,
        final_train_loss=loss if loss is not None and np.isfinite(loss) else None,
        final_dev_loss=None,
        label_entropy=None,
        diverged_step=None,
        weights_sha256=None,
        data_sha256=None,
        model_sha256=None,
        parameters=None,
        wall_seconds=seconds,
        lane_seconds=seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    )


def _best(script: Script, result: ScriptResult) -> tuple[float | None, int | None]:
    """The best of the score's curve, and its step."""
    if result.score_curve is None:
        return result.score, None
    steps, values = result.score_curve
    known = np.isfinite(values)
    if not known.any():
        return result.score, None
    sign = 1 if script.higher_is_better else -1
    at = int(np.argmax(np.where(known, sign * values, -np.inf)))
    if result.score is not None and sign * result.score > sign * values[at]:
        return result.score, None
    return float(values[at]), int(steps[at])


def _curves(result: ScriptResult) -> Curves | None:
    if result.score_curve is None and result.loss_curve is None and result.answers is None:
        return None
    curves = curves_of_points(result.score_curve, result.loss_curve)
    if result.answers is None:
        return curves
    one_hot = np.eye(len(result.answers.classes), dtype=np.float32)[result.answers.answers]
    return Curves(**{**vars(curves), "logits": one_hot, "labels": result.answers.labels})


def last_line(parent: Path, trial_id: str) -> str:
    """The last line of output of a run in progress."""
    folder = parent / trial_id
    files = [folder / name for name in (process.STDOUT, process.STDERR)]
    there = [path for path in files if path.exists() and os.path.getsize(path)]
    newest = max(there, key=os.path.getmtime, default=None)
    return process.tail(newest, 1) if newest is not None else ""
