"""What is kept of each update and evaluation of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from harness.training.selection import DevLogits


@dataclass
class RunLog:
    """Losses, rates and norms of every update, on the device until they are asked for, and every evaluation."""

    losses: list[Tensor] = field(default_factory=list)  # S × [L], nats, of each batch before its update
    rates: list[list[float]] = field(default_factory=list)  # S × L
    norms: list[Tensor] = field(default_factory=list)  # S × [L], of the gradient before clipping
    evaluations: list[DevLogits] = field(default_factory=list)  # E

    @property
    def eval_steps(self) -> list[int]:
        """The updates before each evaluation."""
        return [evaluation.update for evaluation in self.evaluations]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint saves."""
        logits = np.array([evaluation.logits for evaluation in self.evaluations], dtype=np.float32)
        return {
            "losses": torch.stack(self.losses),  # [S, L]
            "rates": torch.tensor(self.rates, dtype=torch.float64),  # [S, L]
            "norms": torch.stack(self.norms),  # [S, L]
            "eval_steps": torch.tensor(self.eval_steps, dtype=torch.int64),  # [E]
            "logits": torch.from_numpy(logits),  # [E, L, N, C]
        }

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Resume from a `state`."""
        self.losses = list(state["losses"].to(device, copy=True))
        self.rates = state["rates"].tolist()
        self.norms = list(state["norms"].to(device, copy=True))
        steps, logits = state["eval_steps"].tolist(), state["logits"].clone().numpy()
        self.evaluations = [DevLogits(step, answers) for step, answers in zip(steps, logits, strict=True)]
