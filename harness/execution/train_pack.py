"""The one path on which a pack is trained and its records are made."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

import harness
from harness.common import hub, kernel_settings
from harness.common.metrics import Evaluation
from harness.config.trials import Sweep, Trial
from harness.models.keep_weights import Keeping, merit
from harness.records.record import Curves, Environment, Measured, Record
from harness.scripts import runner
from harness.scripts.runner import TEMPORARY, RunFolders
from harness.training.checkpoints import Checkpoints

Result = tuple[Record, Curves | None]


# How torch and CUDA's libraries say that a pack was too large for the memory.
NO_MEMORY = re.compile(r"out of memory|OutOfMemoryError|can't allocate memory|STATUS_ALLOC_FAILED")


REFUSED = re.compile(r"^(?:[\w.]+\.)?ModelRefusedError: (.+)$", re.MULTILINE)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that a pack was too large for the memory."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(f"{type(error).__name__}: {error}") is not None


# ------------------------------------------------------------------------------------- one path to train a pack


@dataclass(frozen=True)
class Code:
    """Which state of the harness trains; both None outside a git checkout."""

    commit: str | None  # `-dirty` with changes in the package
    dirty_diff_sha256: str | None  # of those changes


@lru_cache(maxsize=1)  # what was imported stays, whatever is edited meanwhile
def code() -> Code:
    """The state of this checkout: the commit, and a hash of `git diff HEAD` and of untracked files of the package."""
    home = Path(__file__).parents[1]  # the package

    def git(*words: str) -> bytes | None:
        try:
            output = subprocess.run(["git", "-C", str(home), *words], capture_output=True, check=False)
        except OSError:
            return None
        return output.stdout if output.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return Code(None, None)
    digest = hashlib.sha256(changed := git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-color", "--", ".") or b"")
    untracked = git("ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
    for name in filter(None, untracked.split(b"\0")):
        with suppress(OSError):
            digest.update(name + b"\0" + (home / os.fsdecode(name)).read_bytes())
    commit = head.decode().strip()
    return Code(f"{commit}-dirty", digest.hexdigest()) if changed or untracked else Code(commit, None)


@dataclass(frozen=True)
class WorkerSetup:
    """Where and by which code a pack is trained; made by the driver, whose checkout and trust a worker takes over."""

    device: str
    threads: int
    code: Code = field(default_factory=code)
    trusts_remote_code: bool = field(default_factory=hub.trusts_remote_code)
    record: bool = True  # what the diagnosis reads
    checkpoints: Checkpoints | None = None  # None: a pack begins anew and keeps nothing before its end
    tells_scores: bool = False  # whether it says how its lanes stand at each evaluation, for a pruner
    keeping: Keeping | None = None  # None: weights are gone when a pack ends
    compiled: bool = False  # whether steps are compiled, which changes last bits
    runs: RunFolders = TEMPORARY  # where a script's runs have their folders
    silence: float | None = None  # seconds without output after which a script's run counts as hanging


def worker_setup(
    sweep: Sweep,
    device: str,
    threads: int,
    checkpoints: Checkpoints | None,
    keeping: Keeping | None,
    compiled: bool = False,
) -> WorkerSetup:
    """Where and how the packs of a sweep are trained.

    Args:
        sweep: The sweep.
        device: `cpu` or `cuda`.
        threads: CPU threads of a worker.
        checkpoints: Where packs are saved in mid-training; None: nowhere.
        keeping: Which trained weights are saved, and where; None: none.
        compiled: Whether training steps are compiled.
    """
    pruned = sweep.search is not None and sweep.search.pruner is not None
    return WorkerSetup(
        device, threads, record=sweep.record, checkpoints=checkpoints, tells_scores=pruned, keeping=keeping,
        compiled=compiled,
    )  # fmt: skip


def train_pack(
    sweep: str,
    profile: str,
    trials: Sequence[Trial],
    setup: WorkerSetup,
    progress: Callable[[int, int], None] | None,
    signals: Callable[[np.ndarray], None] | None = None,
    evaluated: Callable[[Evaluation], None] | None = None,
) -> list[Result]:
    """Train a pack here and now and make its records; the only path, for workers, in-process runs and reruns.

    Args:
        sweep: The sweep's name, for the records.
        profile: Its profile, for the records.
        trials: The pack: trials of one shape, a lane each.
        setup: Device, threads and what is saved.
        progress: Called with (updates, steps) after every update.
        signals: Called as `ReportSignals` says.
        evaluated: Called as `ReportEvaluations` says.

    Returns:
        A result for each trial, in their order.

    Raises:
        UnkeptError: Weights that are to be saved can't be written.
    """
    if trials[0].script is not None:
        return [_run_script(sweep, profile, trial, setup, progress) for trial in trials]
    from harness.training.callbacks import Callback, ReportEvaluations, ReportSignals, report_progress
    from harness.training.loop import train
    from harness.training.prepare import load_task

    callbacks: list[Callback] = []
    if signals is not None:
        callbacks.append(ReportSignals(signals))
    if evaluated is not None and setup.tells_scores:
        callbacks.append(ReportEvaluations(evaluated))
    if progress is not None:
        callbacks.append(report_progress(progress))
    hub.trust_remote_code(setup.trusts_remote_code)
    if setup.device.startswith("cuda"):
        _free_memory()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    environment = _environment(setup, len(trials), trials[0].recipe.precision)
    checkpoint = None if setup.checkpoints is None else setup.checkpoints.of(trials, environment)
    try:
        results = train(
            trials,
            device=setup.device,
            threads=setup.threads,
            checkpoint=checkpoint,
            callbacks=callbacks,
            record=setup.record,
            compiled=setup.compiled,
        )
    finally:
        if checkpoint is not None:
            checkpoint.returned()
    if setup.keeping is not None:
        recipe = trials[0].recipe
        task = load_task(recipe.task, recipe.model, recipe.max_length)
        ends = [
            (trial.cell, merit(trial, result.measured.final_score))
            for trial, result in zip(trials, results, strict=True)
        ]
        for lane in setup.keeping.chosen(ends):
            result = results[lane]
            setup.keeping.stage(sweep, profile, trials[lane], result.measured, task, result.weights)
    return [
        (make_record(sweep, profile, trial, started, environment, result.measured, None), result.curves)
        for trial, result in zip(trials, results, strict=True)
    ]


def _run_script(
    sweep: str, profile: str, trial: Trial, setup: WorkerSetup, progress: Callable[[int, int], None] | None
) -> Result:
    """Run a script's trial and make its record; nothing is known of how far it is."""
    assert trial.script is not None
    started = datetime.now(UTC).isoformat(timespec="seconds")
    keep_model = None if setup.keeping is None else partial(setup.keeping.stage_files, sweep, profile, trial)
    measured, run, curves = runner.run_trial(
        trial, setup.runs, setup.silence, lambda: None if progress is None else progress(0, 1), keep_model
    )
    environment = Environment(
        device=setup.device,
        device_name=device_name(setup.device) if setup.device == "cpu" else setup.device,
        threads=trial.script.script.resources.cpus,
        pack_size=1,
        harness=harness.__version__,
        commit=setup.code.commit,
        dirty_diff_sha256=setup.code.dirty_diff_sha256,
        python=run.python or platform.python_version(),
        torch=None,
        transformers=None,
    )
    record = make_record(sweep, profile, trial, started, environment, measured, None)
    return record.model_copy(update={"script": run}), curves


def _environment(setup: WorkerSetup, lanes: int, precision: str) -> Environment:
    import torch

    from harness.training import numerics
    from harness.training.compiled import compiler

    deterministic, matmul_precision = numerics.settings_in_force(setup.device, setup.threads, precision)
    return Environment(
        device=setup.device,
        device_name=device_name(setup.device),
        threads=setup.threads,
        pack_size=lanes,
        harness=harness.__version__,
        commit=setup.code.commit,
        dirty_diff_sha256=setup.code.dirty_diff_sha256,
        driver=_driver() if setup.device.startswith("cuda") else None,
        cuda=torch.version.cuda,
        deterministic=deterministic,
        matmul_precision=matmul_precision,
        kernels=torch.backends.cpu.get_cpu_capability(),
        compiler=compiler(setup.device) if setup.compiled else None,
        kernel_settings=kernel_settings.in_force(setup.device),
        **numerics.versions(),
    )


def _free_memory() -> None:
    """Give back what the pack before left in CUDA's cache: after one that was too large, the next needs it whole."""
    torch = sys.modules["torch"]
    gc.collect()  # an error's traceback holds the tensors of its frames
    torch.cuda.empty_cache()


def make_record(
    sweep: str,
    profile: str,
    trial: Trial,
    started: str,
    environment: Environment | None,
    measured: Measured | None,
    error: str | None,
) -> Record:
    """A trial's record, before it is known how often it was tried: crashed where nothing was measured."""
    return Record(
        id=trial.id,
        sweep=sweep,
        profile=profile,
        trial=trial,
        status="finished" if measured else "crashed",
        attempts=1,
        started_utc=started,
        environment=environment,
        measured=measured,
        arrays_sha256=None,
        # A path in a traceback may hold bytes that are no text; a record is UTF-8.
        error=error and error.encode("utf-8", "backslashreplace").decode(),
    )


def device_name(device: str) -> str:
    """The card's name, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@lru_cache(maxsize=1)
def _driver() -> str | None:
    """The version of NVIDIA's driver; None where it can't be asked."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = output.stdout.split() if output.returncode == 0 else []
    return lines[0] if lines else None
