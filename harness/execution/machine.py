"""This machine: which profile it can run, how many lanes fit, and how long a sweep would take; without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.common import hub
from harness.common.errors import HarnessError
from harness.config.sweep_file import load, profiles, script_profiles
from harness.config.trials import Sweep
from harness.data import tasks


@dataclass(frozen=True)
class Machine:
    """What there is to train on; memory in bytes."""

    cores: int
    memory: int
    gpus: tuple[tuple[str, int], ...]  # (name, memory)


@lru_cache(maxsize=1)
def detect_hardware() -> Machine:
    """This machine, found without importing torch."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = []
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        query_result = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        for line in query_result.stdout.splitlines() if query_result.returncode == 0 else ():
            name, _, mebibytes = line.rpartition(", ")
            gpus.append((name, int(mebibytes) * 2**20))
    return Machine(cores, memory, tuple(gpus))


def choose_profile(path: Path, wanted: str | None) -> tuple[str, str]:
    """The profile to run and the reason: the one asked for, else the first (largest) that this machine can run."""
    if scripted := script_profiles(path):
        return wanted or scripted[0], "asked for" if wanted else "the only one" if len(scripted) == 1 else "the first"
    available = profiles(path)
    if wanted is not None or len(available) == 1:
        return wanted or available[0].name, "asked for" if wanted else "the only one"
    why = []
    for profile in available:
        gib = max((memory for _, memory in detect_hardware().gpus), default=0) / 2**30
        if gib < profile.min_gpu_gib:
            has = f"the largest has {gib:.0f}" if gib else "this machine has none"
            why.append(f"{profile.name} needs a GPU of {profile.min_gpu_gib:g} GiB and {has}")
            continue
        try:
            hub.check_model(profile.model)
            tasks.check(profile.task)
        except HarnessError as error:
            why.append(f"{profile.name}: {error.headline}")
            continue
        return profile.name, "; ".join(why) or "the largest this machine can run"
    raise HarnessError(
        f"this machine can run no profile of {path.name}: {'; '.join(why)}",
        fix="Name one with --profile to see what it lacks",
    )


def resolve(path: Path, profile: str | None, overrides: Sequence[str]) -> tuple[Sweep, str]:
    """The sweep of a file under the profile asked for or chosen, and why that one."""
    name, reason = choose_profile(path, profile)
    return load(path, name, overrides), reason
