"""The time limit of a sweep: which packs still fit before it, and the state of those that it cuts is kept."""

from __future__ import annotations

from collections.abc import Sequence

from harness.common.text import count_noun
from harness.execution import clock
from harness.execution.interrupts import TimeUp
from harness.execution.packing import Job
from harness.execution.pool import Pool
from harness.training.checkpoints import Checkpoints

# Packs in training are put off so much before the time limit, or a twentieth of it; and may take so much longer.
_PUT_OFF_SECONDS, _PUT_OFF_SHARE = 20.0, 0.05
# Beyond the limit, after which nothing of the sweep may hold the process.
LAST_SECONDS = _PUT_OFF_SECONDS + 15.0


class TimeLimit:
    """When a sweep must have ended."""

    def __init__(self, seconds: float | None, began: float) -> None:
        """End so many seconds after `began`, a time of `clock`; None: never."""
        self.seconds = seconds
        self.until = None if seconds is None else began + seconds
        self.put_off: list[Job] | None = None  # that the limit cut; None before it does

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.until is not None and clock.now() > self.until

    def leaves(self, seconds: float) -> bool:
        """Whether a pack that takes so long would end in time."""
        return self.until is None or clock.now() + seconds < self.until

    def check(self) -> None:
        """Raise TimeUp where the time is up before anything trains."""
        if self.over:
            raise TimeUp

    def enforce(self, pool: Pool) -> None:
        """Shortly before the limit have all packs put off; raises TimeUp where some take too long for that."""
        if self.until is None:
            return
        now, seconds = clock.now(), self.seconds or 0.0
        if now > self.until + _PUT_OFF_SECONDS:
            raise TimeUp
        if now > self.until - min(_PUT_OFF_SECONDS, _PUT_OFF_SHARE * seconds):
            self.put_off = self.put_off or []
            for one in pool.running():
                pool.leave(one.job, put_off=True)

    def words(self, training: Sequence[Job], waiting: Sequence[Job], checkpoints: Checkpoints) -> str | None:
        """What the limit leaves missing, and what becomes of the packs that it cut; None where it left nothing.

        `training` are packs that did not come back in time.
        """
        cut = [*(self.put_off or ()), *training]
        left = sum(len(job.trials) for job in [*cut, *waiting])
        if not left:
            return None
        text = f"the time limit leaves {count_noun(left, 'trial')} missing"
        if cut:
            # Not kept is what a full disk could not take, or a node that does not see the folder.
            lanes = sum(len(job.trials) for job in cut)
            kept = sum(len(job.trials) for job in cut if checkpoints.kept(job.trials))
            state = "their state is" if kept == lanes else f"the state of {kept} is" if kept else "no state could be"
            text += f", {lanes} of them in training: {state} kept"
        return f"{text}; re-run the same command to train them"
