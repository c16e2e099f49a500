"""`make gpu-proof OUT=DIR`: every figure of a GPU from one command of some minutes.

Each part is a process of its own with a share of the budget; what it does not use goes to those behind it. A part
that hangs is killed and one that breaks says why: neither costs the others anything, and what was measured before is
kept. Needs neither ray nor optuna nor datasets. Writes to OUT: summary.json, summary.md, parts.json, logs.txt, and the
studies' records as studies.tar.gz.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import os
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import part, summary
from .kit import ROOT, write_at_once

# The shares of the budget, in its order; the least that is kept back for a part while those before it run.
SHARES = {
    "tests": 60,
    "laws": 40,
    "base": 150,
    "large": 100,
    "lora": 60,
    "sst2_minilm": 90,
    "rte_mpnet": 150,
    "compiled": 60,
}
RESERVED = {"sst2_minilm": 0.7, "rte_mpnet": 0.8}
_MOST = 15 * 2**20  # bytes of a file that is written to OUT
_HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "peft", "pydantic", "numpy", "pandas")


@dataclass
class Running:
    """A process of a part."""

    name: str
    pid: int

    def ended(self) -> int | None:
        """Its exit status, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def start(name: str, seconds: float, given: argparse.Namespace, out: Path) -> Running:
    """Fork a process for a part, which has what is imported here; its words go to the log."""
    words = [name, "--seconds", f"{seconds:.1f}", "--out", str(out), *part.shared_words(given)]
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Running(name, pid)
    status = 1
    try:
        os.setsid()
        with (given.out / "logs.txt").open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        print(f"==== {name}, {seconds:.0f} s", flush=True)
        status = part.main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def follow(running: Running, seconds: float) -> str:
    """Wait for a part, but not for longer; what became of it in a word."""
    until = time.monotonic() + seconds
    while (status := running.ended()) is None:
        if time.monotonic() > until:
            running.kill()
            return "killed at its time"
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # what it left
        os.killpg(running.pid, signal.SIGKILL)
    return "done" if status == 0 else f"ended with {status}"


def limits(names: Sequence[str], left: float, whole: float, shares: Mapping[str, float] = SHARES) -> float:
    """The seconds that the first of these parts gets of those that are left.

    Its share of the whole budget where all are behind it, and what the parts before it did not use; but what is kept
    back for those behind it stays theirs.
    """
    first, *behind = names
    total = sum(shares[name] for name in names)
    scale = whole / sum(shares.values())
    fair = left * shares[first] / total
    kept = sum(RESERVED.get(name, 0.0) * shares[name] * scale for name in behind)
    return max(0.0, min(fair, left - kept))


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="make gpu-proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=470.0, metavar="SECONDS")
    parser.add_argument("--only", nargs="+", choices=part.PARTS, metavar="PART", help=", ".join(part.PARTS))
    parser.add_argument(
        "--share", nargs="+", default=[], metavar="PART=SECONDS", type=_share,
        help=f"other shares of the budget than {', '.join(f'{name}={value}' for name, value in SHARES.items())}",
    )  # fmt: skip
    part.add_shared(parser)
    return parser.parse_args(words)


def _share(word: str) -> tuple[str, float]:
    name, _, seconds = word.partition("=")
    if name not in SHARES:
        raise argparse.ArgumentTypeError(f"unknown part {name!r} (known: {', '.join(SHARES)})")
    try:
        share = float(seconds)
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r} gives {name} no number of seconds, as {name}={SHARES[name]} does")
    return name, share


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts one after the other; 0 where the kit itself worked, whatever was measured."""
    began = time.monotonic()
    given = options(words)
    for name in ("out", "home", "data", "minilm", "mpnet"):
        value = getattr(given, name)
        setattr(given, name, value if value is None else value.absolute())
    os.chdir(ROOT)
    os.environ.update(_environment(given.device))
    shutil.rmtree(given.home / "parts", ignore_errors=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "logs.txt").write_text("")
    _import(_HEAVY)
    names = [name for name in part.PARTS if name in (given.only or part.PARTS)]
    for name in names:  # records of another state of the code are not gone on with
        for folder in (given.home / "studies").glob(f"{name}*@gpu"):
            shutil.rmtree(folder)
    ends: dict[str, str] = {}
    preparing = start("prepare", given.budget, given, given.home / "parts" / "prepare.json")
    try:
        for number, name in enumerate(names):
            left = given.budget - 6 - (time.monotonic() - began)
            seconds = limits(names[number:], left, given.budget, SHARES | dict(given.share))
            if seconds < 2:
                ends[name] = "no time was left"
                continue
            print(f"{time.monotonic() - began:5.0f} s  {name}, up to {seconds:.0f} s", flush=True)
            running = start(name, 0.92 * seconds, given, given.home / "parts" / f"{name}.json")
            try:
                ends[name] = follow(running, seconds)
            except BaseException:
                running.kill()
                raise
            summary.write(given.out, given.home / "parts", ends, given.device)
    finally:
        if preparing.ended() is None:
            preparing.kill()
        pack_studies(given.home, given.out)
        _shorten(given.out / "logs.txt")
        found = summary.write(given.out, given.home / "parts", ends, given.device)
    print(summary.compact(found), flush=True)
    print(f"{time.monotonic() - began:.0f} s in all", flush=True)
    return 0


def _import(names: Sequence[str]) -> None:
    """Once for all parts, which are forked; what is not there is missed where it is used."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _environment(device: str) -> dict[str, str]:
    """No network; the tests and the kit are found; asking whether there is a GPU leaves it untouched here."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
    }


def pack_studies(home: Path, out: Path) -> None:
    """The studies' results folders as one archive, in pieces where it is large."""
    studies = home / "studies"
    if not studies.is_dir():
        return
    archive = home / "studies.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=6) as stream:
        for path in sorted(studies.rglob("*")):
            if path.is_file() and "checkpoints" not in path.parts:
                stream.add(path, path.relative_to(studies))
    content = archive.read_bytes()
    pieces = [content[start : start + _MOST] for start in range(0, len(content), _MOST)]
    for number, piece in enumerate(pieces[:4]):
        (out / (archive.name if len(pieces) == 1 else f"{archive.name}.{number}")).write_bytes(piece)


def _shorten(path: Path) -> None:
    """The end of a log that grew too long."""
    content = path.read_bytes()
    if len(content) > _MOST // 4:
        write_at_once(path, content[-_MOST // 4 :].decode("utf-8", "replace"))


if __name__ == "__main__":
    sys.exit(main())
