"""A pretraining run while it is not finished: its state on the disk, who may write it, and what ends it early."""

from __future__ import annotations

import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import Tensor

from harness.common.errors import describe_os_error
from harness.common.files import open_lock
from harness.pretraining.objectives import LanguageScore
from harness.pretraining.settings import PretrainError, Settings, option
from harness.training import checkpoints


class Order:
    """Rows of the data, int64 [batch], for ever: shuffled anew each pass, none left out."""

    def __init__(self, count: int, batch_size: int, generator: torch.Generator) -> None:
        """Begin with nothing drawn."""
        self.count, self.batch_size, self.generator = count, batch_size, generator
        self.waiting = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """The rows of one batch."""
        while len(self.waiting) < self.batch_size:
            self.waiting = torch.cat([self.waiting, torch.randperm(self.count, generator=self.generator)])
        rows, self.waiting = self.waiting[: self.batch_size], self.waiting[self.batch_size :]
        return rows


@dataclass(frozen=True, eq=False)
class PretrainingRun:
    """All that changes while a run goes on."""

    network: Any
    optimizer: torch.optim.Optimizer
    order: Order
    masks: torch.Generator
    losses: NDArray[np.float64]
    scores: list[tuple[int, LanguageScore]]


class _StateHeader(BaseModel):
    """What a kept state says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    settings: Settings
    made_of: tuple[tuple[str, str], ...]
    step: int
    seconds: float
    crc32: int


class State:
    """The state of a run on the disk, all in one file."""

    def __init__(self, path: Path, settings: Settings, made_of: tuple[tuple[str, str], ...], minutes: float) -> None:
        """Name the file; the first writing is due in so many minutes."""
        self.path, self.settings, self.made_of, self.minutes = path, settings, made_of, minutes
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last writing, or the start, is so many minutes ago."""
        return time.monotonic() - self._last >= self.minutes * 60

    def keep(self, run: PretrainingRun, step: int, seconds: float, told: bool) -> None:
        """Write the state after a step; a disk that can't take it ends the run only where somebody `told` it to end."""
        state = {f"network.{name}": value.detach().cpu() for name, value in run.network.named_parameters()}
        for number, parameter in enumerate(run.network.parameters()):
            for name, value in run.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{number}.{name}"] = value.cpu()
        state |= {
            "order.waiting": run.order.waiting.clone(),
            "order.generator": run.order.generator.get_state(),
            "masks": run.masks.get_state(),
            "dropout": torch.random.get_rng_state(),
            "losses": torch.from_numpy(run.losses[:step].copy()),
            "scores": torch.tensor([_numbers(at, score) for at, score in run.scores], dtype=torch.float64).reshape(
                -1, 5
            ),
        }
        if run.network.device.type == "cuda":
            state["dropout.cuda"] = torch.cuda.get_rng_state()
        state = {name: value.contiguous() for name, value in state.items()}
        header = _StateHeader(
            settings=self.settings, made_of=self.made_of, step=step, seconds=seconds,
            crc32=checkpoints.crc32(state, seconds),
        )  # fmt: skip
        try:
            checkpoints.save(self.path, state, header)
        except (OSError, safetensors.SafetensorError):
            if told:
                raise
        self._last = time.monotonic()

    def restore(self, run: PretrainingRun) -> tuple[int, float]:
        """Put a kept state into a run: the steps that it made and the seconds they took; 0 where there is none.

        Raises PretrainError where it was kept under other settings. One that is cut short or changed is removed.
        """
        header = checkpoints.read_header(self.path, _StateHeader)
        if header is None:
            self.path.unlink(missing_ok=True)
            return 0, 0.0
        self._compare(header)
        try:
            state = load_file(self.path)
        except (OSError, safetensors.SafetensorError):
            state = {}
        if checkpoints.crc32(state, header.seconds) != header.crc32:
            self.path.unlink(missing_ok=True)
            return 0, 0.0
        with torch.no_grad():
            for number, (name, parameter) in enumerate(run.network.named_parameters()):
                parameter.copy_(state[f"network.{name}"])
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if (value := state.get(f"optimizer.{number}.{key}")) is not None:
                        run.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        run.order.waiting = state["order.waiting"]
        run.order.generator.set_state(state["order.generator"])
        run.masks.set_state(state["masks"])
        torch.random.set_rng_state(state["dropout"])
        if "dropout.cuda" in state:
            torch.cuda.set_rng_state(state["dropout.cuda"])
        run.losses[: header.step] = state["losses"].numpy()
        run.scores[:] = [
            (int(at), LanguageScore(loss, right, *((told, next_loss) if math.isfinite(told) else (None, None))))
            for at, loss, right, told, next_loss in state["scores"].tolist()
        ]
        return header.step, header.seconds

    def _compare(self, header: _StateHeader) -> None:
        """Refuse a state that was kept under other settings, naming the first that differs."""
        was = {option(name): value for name, value in header.settings} | dict(header.made_of)
        now = {option(name): value for name, value in self.settings} | dict(self.made_of)
        for name in dict.fromkeys((*was, *now)):
            if was.get(name) != now.get(name):
                raise PretrainError(
                    f"cannot resume with {_given(name, now.get(name))}: the first {header.step} steps were "
                    f"trained with {_given(name, was.get(name))}",
                    fix=f"Give it again, or remove {self.path.parent} to begin anew",
                )


def _numbers(step: int, score: LanguageScore) -> tuple[float, ...]:
    return (
        step,
        score.loss,
        score.accuracy,
        *(math.nan if value is None else value for value in (score.next_accuracy, score.next_loss)),
    )


def _given(name: str, value: object) -> str:
    return f"no {name}" if value in (None, ()) else f"{name} {_short(value)}"


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    text = str(value)
    return text if len(text) < 64 else f"{text[:12]}…"


@contextmanager
def held(folder: Path, out: Path) -> Iterator[None]:
    """Hold the folder of what is unfinished for one process, and remove it where nothing was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with open_lock(path) as stream:
        # One that ended just now has taken its lock away with the folder.
        if not _taken(stream, folder) or not path.exists():
            stream.seek(0)
            raise PretrainError(
                f"{out} is in use: {stream.read(200).strip() or 'another process'} writes it",
                fix="Wait for it, stop it, or name another folder",
            )
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        try:
            yield
        finally:
            if folder.is_dir() and not any(entry != path for entry in folder.iterdir()):
                path.unlink()
                folder.rmdir()


def _taken(stream: IO[str], folder: Path) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise PretrainError(
            f"cannot lock files in {folder}: {describe_os_error(error)}",
            allowed="a local disk, or a network's that supports flock",
            fix="Name another folder",
        ) from None
    return True
