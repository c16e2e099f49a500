"""Averaged weights: what is evaluated and kept instead of the last ones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from harness.config.recipe import Recipe
from harness.training.lanes import Lanes
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Remedy
from harness.training.transfer import copied


class WeightAveraging(Remedy):
    """The mean of a lane's weights over its way: what is evaluated and kept instead of the last ones.

    `ema`: a ← d·a + (1−d)·w after every update, beginning with the weights after the first. `last`: the mean over the
    ends of the last `average_last` epochs. Both as torch.optim.swa_utils.AveragedModel.
    """

    name = "averaging"
    order = 100

    def __init__(self, pack: TrainingPack) -> None:
        """Find the lanes that are averaged, and where their epochs end."""
        super().__init__(pack)
        self.lanes = pack.lanes_where(self.used_by)
        self.ends = pack.epoch_ends
        self.rows: Tensor  # [A, P], of the lanes that are averaged

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether weights are averaged."""
        return recipe.averaging != "none"

    def start(self, lanes: Lanes) -> None:
        """Begin with zeros."""
        self.rows = lanes.weights.new_zeros(len(self.lanes), lanes.weights.shape[1])

    def after_update(self, weights: Tensor, update: int) -> None:
        """Take in the weights after an update."""
        for row, lane in zip(self.rows, self.lanes, strict=True):
            recipe = self.pack.recipes[lane]
            last = self.ends[-recipe.average_last :]
            if recipe.averaging == "ema":
                row.lerp_(weights[lane], 1.0 if update == 1 else 1 - recipe.ema_decay)
            elif update in last:
                row.add_((weights[lane] - row) / (last.index(update) + 1))

    def weights_for_evaluation(self, weights: Tensor, update: int) -> Tensor:
        """The weights with the averages there are in their lanes' places."""
        averaged = copied(weights)
        for row, lane in zip(self.rows, self.lanes, strict=True):
            recipe = self.pack.recipes[lane]
            if recipe.averaging == "ema" or update >= self.ends[-recipe.average_last :][0]:
                averaged[lane].copy_(row)
        return averaged

    def state(self) -> dict[str, Tensor]:
        """The averages."""
        return {"rows": self.rows}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from the averages."""
        self.rows.copy_(state["rows"])
