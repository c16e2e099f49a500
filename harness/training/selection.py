"""Which evaluation and which weights each lane's result is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_CHOSEN = "chosen"


@dataclass(frozen=True, eq=False)
class DevLogits:
    """What all lanes answer on the dev set after an update."""

    update: int
    logits: np.ndarray  # [L, N, C]


@dataclass(eq=False)
class Selection:
    """Of a lane whose training stopped early or of which an evaluation was chosen; of others the result is the last."""

    lanes: int
    standing: list[list[int]] = field(default_factory=list)  # E × L: the evaluation that a result would be of, from 0
    stopped: dict[int, int] = field(default_factory=dict)  # lane -> the update after which it stopped
    chosen: dict[int, tuple[int, Tensor]] = field(default_factory=dict)  # lane -> update, weights [P]

    @property
    def all_stopped(self) -> bool:
        """Whether every lane stopped early."""
        return len(self.stopped) == self.lanes

    def add_evaluation(self) -> None:
        """An evaluation follows: it is what the results of lanes that still train would be of."""
        number = len(self.standing)
        self.standing.append([number] * self.lanes)
        for lane in self.stopped:
            self.keep_previous(lane)

    def keep_previous(self, lane: int) -> None:
        """A lane's result stays that of the evaluation before the last."""
        self.standing[-1][lane] = self.standing[-2][lane] if len(self.standing) > 1 else 0

    def choose(self, lane: int, update: int, weights: Tensor) -> None:
        """A lane's result is of these weights [P] until others are chosen."""
        self.chosen[lane] = update, weights.clone()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint saves."""
        stopped = [self.stopped.get(lane, -1) for lane in range(self.lanes)]
        return {
            "standing": torch.tensor(self.standing, dtype=torch.int64).reshape(-1, self.lanes),  # [E, L]
            "stopped": torch.tensor(stopped, dtype=torch.int64),  # [L], -1: it trains
            **{f"{_CHOSEN}.{lane}.{update}": weights for lane, (update, weights) in self.chosen.items()},  # [P]
        }

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Resume from a `state`."""
        self.standing = state["standing"].tolist()
        self.stopped = {lane: update for lane, update in enumerate(state["stopped"].tolist()) if update >= 0}
        for name, weights in state.items():
            if name.startswith(f"{_CHOSEN}."):
                _, lane, update = name.split(".")
                self.chosen[int(lane)] = int(update), weights.to(device, copy=True)
