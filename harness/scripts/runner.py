"""One trial of a script, from its command to its record's measures."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.common.errors import describe_os_error
from harness.config.script import Script
from harness.config.trials import Trial
from harness.records.curve_files import curves_of_points
from harness.records.record import Curves, Measured, ScriptRun
from harness.scripts import commands, outside, process, provenance, reaper
from harness.scripts.results import NoScoreError, ScriptResult, latest_score, read_results

FUNCTION_INPUT = "arguments.json"  # what a function is called with


class RunFolderError(Exception):
    """The folder of a run can't be written: which, and why."""


class ScriptError(Exception):
    """A run that crashed: its exit code, how its output ended, or that it left no score."""

    def __init__(self, text: str, ending: str) -> None:
        """`ending` says how it ended in a few words, the same for the same way: `exit code 1`."""
        super().__init__(text, ending)
        self.text, self.ending = text, ending

    def __str__(self) -> str:
        """What the record says."""
        return self.text


@dataclass(frozen=True)
class RunFolders:
    """Where runs have their folders."""

    parent: Path | None  # None: temporary folders
    suffix: str = ""  # after the name of a run's folder
    files: tuple[tuple[str, str], ...] = ()  # of the code in `cwd` with their hashes, by which another node knows it
    terminal: tuple[outside.Inode, ...] = ()  # the files that the driver's own output goes to
    cwd: str | None = None  # where the scripts run, as the driver names it; None: as the sweep says


TEMPORARY = RunFolders(None)


def run_trial(
    trial: Trial,
    folders: RunFolders,
    silence: float | None,
    tick: Callable[[], None],
    keep_model: Callable[[Measured, Path], None] | None = None,
) -> tuple[Measured, ScriptRun, Curves | None]:
    """Run the script of a trial to its end and read what it left.

    Args:
        trial: A trial of a script.
        folders: Where its folder is made.
        silence: Seconds without output after which it counts as hanging; None: never.
        tick: Called several times a second; what it raises ends the run.
        keep_model: Called with what was measured and the model that the run left, which it may move away.

    Raises:
        ScriptError: It crashed.
    """
    assert trial.script is not None
    script = trial.script.script
    script = script.model_copy(update={"cwd": _cwd(script, folders)})
    with _folder(folders, f"{trial.id}{folders.suffix}", keep=script.keep_out) as folder:
        started, began = time.time(), time.monotonic()
        words = commands.words_of(trial, str(folder))
        if script.function is not None:
            _write_arguments(folder, trial, script)
        env = dict(script.env)
        env.setdefault("OMP_NUM_THREADS", str(script.resources.cpus))
        try:
            ended = process.run(words, folder, env, script.cwd, script.timeout, silence, tick)
        except OSError as error:
            why = f"the command can't be started: {error.strerror or error} ({words[0]})"
            raise ScriptError(why, "not started") from None
        shown = commands.shown(trial, str(folder))
        if ended.why is not None or ended.exit_code != 0:
            what = _what_happened(ended)
            raise ScriptError(_crash(what, folder, shown), what)
        try:
            result = read_results(script, folder, started)
        except NoScoreError as error:
            text = f"{_output(folder)}command: {shown}\nthe run left no score: {error}"
            raise ScriptError(text, "no score") from None
        seconds = time.monotonic() - began
        measured = _measured(script, result, seconds, ended.peak_memory_bytes)
        notes = result.notes
        if keep_model is not None and script.model_out is not None:
            left = folder / script.model_out
            if left.resolve().is_relative_to(folder) and left.exists():
                keep_model(measured, left)
            else:
                notes = (*notes, f"model_out: {script.model_out} is not in the run's folder, so none was kept")
        run = ScriptRun(
            command=shown,
            exit_code=ended.exit_code,
            further=tuple(result.further.items()),
            notes=notes,
            outside=_outside(script, folders, started),
            **provenance.of(script, words),
        )
        return measured, run, _curves(result)


def _cwd(script: Script, folders: RunFolders) -> str | None:
    """Where it runs; on a node that has no such folder or another one there, where Ray unpacked the driver's."""
    cwd = folders.cwd or script.cwd
    same = cwd is not None and all(file_sha256(Path(cwd) / name) == digest for name, digest in folders.files)
    return cwd if same else None


def _outside(script: Script, folders: RunFolders, started: float) -> tuple[tuple[str, float], ...]:
    """What changed beside the run's own folder while it ran."""
    results = None if folders.parent is None else folders.parent.parents[1]
    return outside.changed_since(Path(script.cwd or ".").resolve(), started, results, folders.terminal)


def file_sha256(path: Path) -> str | None:
    """The hash of a file; None where there is none that can be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def code_files(script: Script, cwd: Path) -> tuple[tuple[str, str], ...]:
    """The files of a script's own, as far as its command and `inputs` name them, with their hashes."""
    names = [name for name, _ in script.inputs]
    if script.command is not None:
        with suppress(ValueError):
            names += shlex.split(script.command)
    if script.function is not None:
        module = script.function.partition(":")[0]
        names.append(module if module.endswith(".pkl") else f"{module.replace('.', '/')}.py")
    inside = [name for name in dict.fromkeys(names) if not Path(name).is_absolute() and ".." not in Path(name).parts]
    return tuple((name, digest) for name in inside if (digest := file_sha256(cwd / name)) is not None)


@contextmanager
def _folder(folders: RunFolders, name: str, *, keep: bool) -> Iterator[Path]:
    """An empty folder for a run; what an attempt before left in it, its processes too, is removed."""
    if folders.parent is None or not folders.parent.parent.is_dir():  # that is another node's
        with tempfile.TemporaryDirectory(prefix="harness-run-", ignore_cleanup_errors=True) as scratch:
            yield Path(scratch).resolve()
        return
    folder = folders.parent.resolve() / name
    try:
        if folder.exists():
            reaper.end_marked(str(folder))
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for output in (process.STDOUT, process.STDERR):
            (folder / output).touch()
    except OSError as error:
        raise RunFolderError(f"{folder}: {describe_os_error(error)}") from error
    yield folder
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def _write_arguments(folder: Path, trial: Trial, script: Script) -> None:
    assert trial.script is not None
    content = {"arguments": dict(trial.script.settings), "seed": trial.seeds.seed}
    content |= {"file": script.score.file, "key": script.score.key}
    (folder / FUNCTION_INPUT).write_text(json.dumps(content), encoding="utf-8")


def _output(folder: Path) -> str:
    parts = [(name, process.tail(folder / name)) for name in (process.STDOUT, process.STDERR)]
    return "".join(f"{name}, its last lines:\n{text}\n" for name, text in parts if text)


def _what_happened(ended: process.Ended) -> str:
    """How a run ended that crashed."""
    if ended.why is not None:
        return f"the run was ended: {ended.why}"
    if ended.exit_code < 0:
        return f"the command was ended by signal {-ended.exit_code}"
    return f"the command ended with exit code {ended.exit_code}"


def _crash(what: str, folder: Path, shown: str) -> str:
    """All that a crash's record says; the last line says what happened."""
    last = process.tail(folder / process.STDERR, 1) or process.tail(folder / process.STDOUT, 1)
    return f"{_output(folder)}command: {shown}\n{what}{f': {last}' if last else ''}"


def _measured(script: Script, result: ScriptResult, seconds: float, peak_memory_bytes: int) -> Measured:
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
        peak_memory_bytes=peak_memory_bytes,
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


def heard(trial: Trial, folders: RunFolders) -> tuple[int, str, float | None]:
    """What a run in progress has written: bytes of output, its last line, and the latest score that it says."""
    assert trial.script is not None
    if folders.parent is None:
        return 0, "", None
    folder = folders.parent / f"{trial.id}{folders.suffix}"
    files = [folder / name for name in (process.STDOUT, process.STDERR)]
    there = [path for path in files if path.exists() and path.stat().st_size]
    newest = max(there, key=os.path.getmtime, default=None)
    line = "" if newest is None else process.tail(newest, 1, 2000)
    return sum(path.stat().st_size for path in there), line, latest_score(trial.script.script, folder)
