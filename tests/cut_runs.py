"""Shared by the tests that cut a run and go on with it."""

from driving import same_arrays

from harness.records.record import Environment
from harness.training.callbacks import Callback
from harness.training.outcome import LaneResult
from harness.training.run import TrainingRun

HERE = Environment(
    device="cpu", device_name="a processor", threads=1, pack_size=2, harness="0", commit=None, python="3", torch="2",
    transformers="5",
)  # fmt: skip


class CutError(BaseException):
    """Stands for what ends a process; no Exception, which would end its trials too."""


def cut(at: int) -> Callback:
    """Cut a run after that update."""

    def stop(run: TrainingRun) -> None:
        if run.updates == at:
            raise CutError

    return stop


def same(found: list[LaneResult], wanted: list[LaneResult]) -> bool:
    """Bit for bit: every array and all that was measured but times, memory and by what means a step was computed."""
    changing = {"wall_seconds", "lane_seconds", "peak_memory_bytes", "step_mode", "step_mode_reason"}
    return all(
        same_arrays(a.curves.arrays, b.curves.arrays)
        and a.measured.model_dump(exclude=changing) == b.measured.model_dump(exclude=changing)
        for a, b in zip(found, wanted, strict=True)
    )


def same_lane(a: LaneResult, b: LaneResult) -> bool:
    """Bit for bit: every array and the hash of the weights."""
    return same_arrays(a.curves.arrays, b.curves.arrays) and a.measured.weights_sha256 == b.measured.weights_sha256
