"""Checkpoints: the state of a pack in training on the disk, from which a pack that was killed is resumed.

A result never depends on one: it serves only the pack that wrote it, where all that decides a bit is as it was.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import safetensors
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.common.errors import HarnessError
from harness.common.files import flush, opened_regular, temporary_folder
from harness.config.trials import Trial
from harness.records.record import Environment

if TYPE_CHECKING:
    from torch import Tensor

# The one entry of a file's metadata.
_KEY = "harness"
# How the files are called, with what a killed writer leaves of one.
_NAME = re.compile(r".+\.safetensors(\.[0-9]+\.tmp)?")
_Kind = TypeVar("_Kind", bound=BaseModel)


class StopTraining(BaseException):
    """Raised by a callback: training ends there and, where there is a checkpoint, is resumed from it another time."""


class _Writer(BaseModel):
    """Who may resume from a checkpoint: the same trials in the same order, computed in the same way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: tuple[str, ...]
    environment: Environment
    code_sha256: str
    made_of_sha256: str


class _Header(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    writer: _Writer
    seconds: float
    crc32: int


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a sweep's packs: `<hash of the trials' ids>.safetensors` in a folder beside their records.

    A node of a cluster that does not see the folder keeps them among its temporary files under the same name: a pack
    that is tried again there is resumed; on another node, or packed otherwise by a later sweep, it starts over.
    """

    folder: Path
    minutes: float  # between two of a pack; infinite: resume from what there is and write none

    def of(self, trials: Sequence[Trial], environment: Environment) -> Checkpoint:
        """The checkpoint of a pack that is about to be trained."""
        ids = tuple(trial.id for trial in trials)
        shared = self.folder.is_dir() and not self.folder.is_symlink()
        folder = self.folder if shared else temporary_folder("checkpoints")
        minutes = self.minutes if folder else math.inf
        return Checkpoint(folder and folder / _name(ids), minutes, ids, environment, passing=not shared)

    def unfinished(self, missing: Sequence[Trial]) -> list[tuple[Trial, ...]]:
        """The packs that have a checkpoint and whose trials are all missing, as they were, the longest trained first.

        Every other checkpoint is removed: no pack of these trials could use it. Raises HarnessError for a folder that
        is a link: what lies behind it is somebody's.
        """
        if self.folder.is_symlink():
            raise HarnessError(
                f"{self.folder} is a link to {os.readlink(self.folder)}",
                fix="Remove the link: checkpoints are kept there",
            )
        files = [path for path in self.folder.glob("*") if _NAME.fullmatch(path.name)]
        known = {trial.id: trial for trial in missing} if files else {}
        headers = [(path, header) for path in files if (header := _header(path))]
        packs: dict[Path, tuple[Trial, ...]] = {}
        taken: set[str] = set()
        for path, header in sorted(headers, key=lambda item: (-item[1].seconds, item[0])):
            ids = header.writer.trials
            alone = len({*taken, *ids}) == len(taken) + len(ids)
            if path.name == _name(ids) and alone and known.keys() >= set(ids):
                taken.update(ids)
                packs[path] = tuple(known[trial] for trial in ids)
        for path in files:
            if path not in packs:
                path.unlink()
        return list(packs.values())

    def kept(self, trials: Sequence[Trial]) -> bool:
        """Whether the state of a pack lies here."""
        return (self.folder / _name([trial.id for trial in trials])).is_file()

    def remove(self, trials: Sequence[Trial]) -> None:
        """Remove a pack's checkpoint: its trials have their records, or it will not be trained as it was."""
        _remove(self.folder / _name([trial.id for trial in trials]))

    def close(self) -> None:
        """Remove the folder where it is empty."""
        with suppress(OSError):
            self.folder.rmdir()


class Checkpoint:
    """The checkpoint of one pack in training."""

    def __init__(
        self, path: Path | None, minutes: float, trials: tuple[str, ...], environment: Environment, passing: bool
    ) -> None:
        """Name the file, None where there is no place for one; the first writing is due in so many minutes.

        A `passing` one goes when training returned.
        """
        self.path, self.minutes, self.passing = path, minutes, passing
        self._trials, self._environment = trials, environment
        self._last = time.monotonic()

    def read(self, made_of_sha256: str) -> tuple[Mapping[str, Tensor], float] | None:
        """The state to resume from and the seconds trained so far; None where training starts over.

        A file that is cut short, changed, of another pack or computed in another way is removed.

        Args:
            made_of_sha256: a hash of what the run is made of beside its recipes.
        """
        self._writer = _Writer(
            trials=self._trials, environment=self._environment, code_sha256=_code(), made_of_sha256=made_of_sha256
        )
        if self.path is None:
            return None
        header = _header(self.path)
        if header is not None and header.writer == self._writer:
            from safetensors.torch import load_file

            with suppress(OSError, safetensors.SafetensorError):
                state = load_file(self.path)
                if crc32(state, header.seconds) == header.crc32:
                    return state, header.seconds
        _remove(self.path)
        return None

    @property
    def due(self) -> bool:
        """Whether the last writing, or the start, is so many minutes ago."""
        return time.monotonic() - self._last >= self.minutes * 60

    def write(self, state: Mapping[str, Tensor], seconds: float) -> None:
        """Keep a state whole in the place of the one before; a disk that can't take it stops no training."""
        if self.path is None:
            return
        on_cpu = {name: value.cpu().contiguous() for name, value in state.items()}
        header = _Header(writer=self._writer, seconds=seconds, crc32=crc32(on_cpu, seconds))
        with suppress(OSError, safetensors.SafetensorError):
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            save(self.path, on_cpu, header)
        self._last = time.monotonic()

    def returned(self) -> None:
        """Training returned or raised: a file that only this node sees is of no more use."""
        if self.passing and self.path is not None:
            _remove(self.path)


def save(path: Path, state: Mapping[str, Tensor], header: BaseModel) -> None:
    """Write tensors of the CPU and what a file says of itself, whole in the place of the one before and on the disk.

    Raises OSError or SafetensorError where the disk can't take it.
    """
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # a link there would be followed
    try:
        save_file(dict(state), temporary, {_KEY: header.model_dump_json()})
        flush(temporary)
        temporary.rename(path)
        flush(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_header(path: Path, kind: type[_Kind]) -> _Kind | None:
    """What a file says of itself; None where there is none, it says something else, or is no file, as a FIFO."""
    try:
        opened_regular(path).close()  # safetensors would wait at a FIFO without end
        with safetensors.safe_open(path, framework="np") as file:
            return kind.model_validate_json((file.metadata() or {}).get(_KEY, ""))
    except (OSError, ValidationError, safetensors.SafetensorError):
        return None


def _name(ids: Sequence[str]) -> str:
    return f"{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:32]}.safetensors"


def _header(path: Path) -> _Header | None:
    return read_header(path, _Header)


def _remove(path: Path) -> None:
    for file in (path, *path.parent.glob(f".{path.name}.*.tmp")):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def crc32(state: Mapping[str, Tensor], seconds: float) -> int:
    """A checksum over names, types, shapes and values."""
    checksum = zlib.crc32(repr(seconds).encode())
    for name, value in sorted(state.items()):
        checksum = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), checksum)
        checksum = zlib.crc32(value.numpy().data, checksum)
    return checksum


@lru_cache(maxsize=1)
def _code() -> str:
    """A hash of the package's source, which may be edited between two starts without another version or commit."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
