"""Early stopping and the best of the evaluations: the dev curve decides when a lane stops and what its result is of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.common import metrics
from harness.config.recipe import Recipe
from harness.training.evaluate import dev_answers, dev_loss
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Remedy
from harness.training.selection import DevLogits, Selection


class EarlyStopping(Remedy):
    """Stops a lane after so many evaluations without a better one (`early_stopping_patience`), and makes its result
    that of its best (`keep_best`), by the dev loss or the dev score (`early_stopping_on`).

    What a lane that stopped does from then on is thrown away, so that the others go on as they are.
    """

    name = "early_stopping"
    order = 110

    def __init__(self, pack: TrainingPack) -> None:
        """Begin without an evaluation."""
        super().__init__(pack)
        self.best = [Best(recipe) for recipe in pack.recipes]

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether evaluations decide when training stops or which of them a result is of."""
        return recipe.selects_checkpoint

    def after_evaluation(self, evaluation: DevLogits, weights: Tensor, selection: Selection) -> None:
        """See for each lane whether this evaluation is its best, and whether it stops."""
        for lane, (recipe, best) in enumerate(zip(self.pack.recipes, self.best, strict=True)):
            if not self.used_by(recipe) or lane in selection.stopped:
                continue
            better = best.see(self._value(recipe, evaluation.logits[lane]))
            if recipe.keep_best and not better:
                selection.keep_previous(lane)
            if best.stops:
                selection.stopped[lane] = evaluation.update
            if better if recipe.keep_best else best.stops:
                selection.choose(lane, evaluation.update, weights[lane])

    def _value(self, recipe: Recipe, logits: np.ndarray) -> float | None:
        """What an evaluation [N, C] is judged by."""
        task = self.pack.task
        if recipe.early_stopping_on == "loss":
            return dev_loss(self.pack, logits)
        answers = dev_answers(self.pack, logits)
        value = metrics.score(task.metric, answers, task.validation.targets, task.validation.sentences).value
        return value if value is None or metrics.higher_is_better(task.metric) else -value

    def measured(self, lane: int, selection: Selection) -> dict[str, Any]:
        """The update whose weights are the result, where the best evaluation was kept."""
        if not self.pack.recipes[lane].keep_best or lane not in selection.chosen:
            return {}
        return {"kept_step": selection.chosen[lane][0]}

    def state(self) -> dict[str, Tensor]:
        """The best value of each lane, NaN where there is none, and the evaluations since."""
        values = [math.nan if best.value is None else best.value for best in self.best]
        return {
            "best": torch.tensor(values, dtype=torch.float64),  # [L]
            "since": torch.tensor([best.since for best in self.best], dtype=torch.int64),  # [L]
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from them."""
        for best, value, since in zip(self.best, state["best"].tolist(), state["since"].tolist(), strict=True):
            best.value, best.since = None if math.isnan(value) else value, since


@dataclass(eq=False)
class Best:
    """The best evaluation of a lane so far, and how many came after it."""

    recipe: Recipe
    value: float | None = None  # the larger the better
    since: int = 0

    def see(self, value: float | None) -> bool:
        """Take in an evaluation's loss or score; whether it is the best so far, which no NaN is."""
        if value is not None and math.isfinite(value):
            worth = -value if self.recipe.early_stopping_on == "loss" else value
            if self.value is None or worth > self.value:
                self.value, self.since = worth, 0
                return True
        self.since += 1
        return False

    @property
    def stops(self) -> bool:
        """Whether training ends by it."""
        patience = self.recipe.early_stopping_patience
        return patience is not None and self.since >= patience
