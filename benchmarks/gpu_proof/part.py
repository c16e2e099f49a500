"""One part in a process of its own: `python -m benchmarks.gpu_proof.part NAME …`, or forked by the driver."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .kit import Journal, OutOfTime, Part, Request

_HOME = __package__ or "benchmarks.gpu_proof"
# Where each part's function is, and what its table is called.
PARTS: dict[str, tuple[str, str, str]] = {
    "tests": ("device_tests", "tests", "The tests of a device"),
    "laws": ("laws", "laws", "The laws of packs"),
    "base": ("speed", "base", "Trials an hour: bert-base's shape, RTE's lengths"),
    "large": ("speed", "large", "Trials an hour: bert-large's shape, RTE's lengths"),
    "lora": ("speed", "lora", "LoRA's lanes over one base of half a billion parameters"),
    "sst2_minilm": ("studies", "minilm", "A real study: MiniLM-L6 on SST-2"),
    "rte_mpnet": ("studies", "mpnet", "A real study: MPNet-base on RTE"),
    "compiled": ("speed", "compiled", "A compiled step beside the others: bert-base's shape"),
}


def parsed(words: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The part's name and its options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*PARTS, "prepare"])
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    add_shared(parser)
    given = parser.parse_args(words)
    return given.name, given


def add_shared(parser: argparse.ArgumentParser) -> None:
    """The options that the driver hands on to each part."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=("tiny", "real"), default="real")
    parser.add_argument("--home", type=Path, default=Path("build/gpu-proof"), help="what is made on the way")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folders rte and sst2_small in GLUE's form")
    parser.add_argument("--minilm", type=Path, help="MiniLM-L6's folder, whole or cut, or its parts")
    parser.add_argument("--mpnet", type=Path, help="MPNet-base's folder, whole or cut, or its parts")
    parser.add_argument("--fresh", action="store_true", help="let each part import everything itself")
    parser.add_argument("--mpnet-lr", type=float, help="the study's rate; found on other seeds where none is given")


def shared_words(given: argparse.Namespace) -> list[str]:
    """The same options as words."""
    names = ("device", "shape", "home", "data", "minilm", "mpnet", "mpnet_lr")
    values = {name: getattr(given, name) for name in names}
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in values.items() if value is not None]
    return [word for pair in words for word in pair] + ["--fresh"] * given.fresh


def request(given: argparse.Namespace) -> Request:
    """What the options ask of a part."""
    until = time.monotonic() + given.seconds
    paths = (given.data, given.minilm, given.mpnet)
    return Request(given.device, given.shape == "tiny", given.home, given.out, until, *paths, given.mpnet_lr)


def main(words: Sequence[str]) -> int:
    """Do one part; its rows are in its file whatever happens. Gives the exit status."""
    name, given = parsed(words)
    asked = request(given)
    # Part of the process and not of the part: the device is there, or the process starts anew without what the driver
    # imported (a library that asked for the device before the fork leaves it unusable after).
    anew = asked.device == "cuda" and name not in ("tests", "prepare") and not usable()
    if (given.fresh or anew) and "GPU_PROOF_ANEW" not in os.environ:
        os.environ["GPU_PROOF_ANEW"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", f"{_HOME}.part", *words])
    if name == "prepare":
        from . import models

        kinds = ("mini", "base", "large", "lora")
        models.prepare(given.home, kinds, asked.tiny)
        return 0
    module, function, title = PARTS[name]
    journal = Journal(name, title, given.out)
    journal.save()
    try:
        part: Part = getattr(import_module(f"{_HOME}.{module}"), function)
        part(asked, journal)
    except OutOfTime:
        journal.say("The time of this part ended before it did.")
    except BaseException as error:
        traceback.print_exc()
        last = (str(error).strip().splitlines() or [""])[-1]
        journal.say(f"This part broke: {type(error).__name__}: {last}"[:500])
        return 1
    return 0


def usable() -> bool:
    """Whether this process can compute on the GPU."""
    import torch

    try:
        return bool(torch.zeros(1, device="cuda").item() == 0)
    except Exception:  # whatever CUDA says
        traceback.print_exc()
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
