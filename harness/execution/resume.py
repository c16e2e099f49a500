"""What is said before a sweep goes on in a folder whose records something else made."""

from __future__ import annotations

from collections.abc import Iterable

import harness
from harness.analysis import mixed_runs
from harness.common import kernel_settings, tested_versions
from harness.execution import machine
from harness.execution.options import Options
from harness.execution.train_pack import code, device_name
from harness.records.record import Environment, Record


def mixing(records: Iterable[Record], options: Options) -> str | None:
    """How many of the records were made by other code, versions or devices than the rest will be; None: none was."""
    records = list(records)
    return mixed_runs.resumed(records, _what_trains(options)) if records else None


def found(records: Iterable[Record], options: Options, environment: Environment) -> str | None:
    """As `mixing`, of what a worker alone knows and its first pack tells: its kernels, say, or a cluster's device."""
    told = {name for name, value in _what_trains(options).items() if value is not None}
    known = {name: value for name, value in mixed_runs.surroundings(environment).items() if name not in told}
    return mixed_runs.resumed(records, known)


def _what_trains(options: Options) -> dict[str, str | None]:
    """As far as it is known before a worker is there, by the names of `mixed_runs.FIELDS`."""
    state = code()
    known: dict[str, str | None] = {**tested_versions.installed(), "harness": harness.__version__}
    known |= {"code": mixed_runs.code_of(state.commit, state.dirty_diff_sha256), "threads": str(options.threads)}
    if options.address is None:  # else a cluster's machines train
        device = "cuda" if machine.detect_hardware().gpus else "cpu"
        known |= {"device": device, "kernel_settings": kernel_settings.in_force(device)}
        known |= {"device_name": device_name(device)} if device == "cpu" else {}
    return known
