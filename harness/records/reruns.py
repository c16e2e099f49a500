"""What became of trials that were trained again: `reruns.json` of a results folder, one entry a rerun."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness.common.files import read_regular, write
from harness.records.array_shapes import LARGEST

NAME = "reruns.json"
_MOST_BYTES = 2**28
_Score = Annotated[float | None, Field(ge=-LARGEST, le=LARGEST)]
Verdict = Literal["identical", "within_tolerance", "different"]


class Rerun(BaseModel):
    """A trial that was trained again, against its record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial: str = Field(description="its id")
    kind: Literal["rerun", "verify", "repeat"] = Field(description="what it was trained again by")
    number: int = Field(ge=0, le=10**9, description="of a repeat which one, from 2; 0 of the others")
    when_utc: str = Field(description="when it began, ISO 8601")
    verdict: Verdict = Field(description="bit for bit, within the tolerance, or not")
    max_difference: float | None = Field(ge=0, description="the largest, None where it is infinite or not known")
    first_differing_step: int | None = Field(
        ge=-(2**62), le=2**62, description="None where none differs, or that is not known"
    )
    recorded_score: _Score = Field(description="the record's final score; None: it diverged")
    score: _Score = Field(description="the final score now; None: it diverged")
    reasons: tuple[str, ...] = Field(description="what may have made the difference")


_ALL = TypeAdapter(tuple[Rerun, ...])


def load(folder: Path) -> tuple[Rerun, ...]:
    """The entries of a results folder, oldest first; none where there is no file, or it can't be read."""
    return _read(folder) or ()


def damaged(folder: Path) -> bool:
    """Whether there is something that can't be read as such a file."""
    return _read(folder) is None


def _read(folder: Path) -> tuple[Rerun, ...] | None:
    try:
        return _ALL.validate_json(read_regular(folder / NAME, _MOST_BYTES))
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError):
        return None


def add(folder: Path, rerun: Rerun) -> None:
    """Keep one more; several processes may at a time. Raises OSError where it can't be written.

    A file that can't be read is renamed, not overwritten: what it tells of earlier reruns may be mended by hand.
    """
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = _read(folder)
        if before is None:
            (folder / NAME).rename(folder / f"{NAME}.unreadable")
        write(folder / NAME, _ALL.dump_json((*(before or ()), rerun), indent=1) + b"\n")
    finally:
        os.close(held)
