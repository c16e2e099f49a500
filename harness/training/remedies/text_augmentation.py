"""Augmentation: changed copies of the training texts, each lane its own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from harness.config.recipe import Recipe, TaskSpec
from harness.data import augmentation, tasks, tokenization
from harness.data.examples import Raw, Rows
from harness.data.tokenized import TokenizedSplit
from harness.models import pretrained
from harness.training.batches import Batch, DeviceSplit
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Remedy
from harness.training.selection import Selection


class TextAugmentation(Remedy):
    """Changed copies of the training examples behind them; see `augmentation` for how texts are changed.

    Lanes have the examples in common; a lane's copies C stand `behind` rows further on than they would if there were
    no other lane's. Lanes that draw the same texts share them.
    """

    name = "augmentation"
    order = 10
    is_random = True

    def __init__(self, pack: TrainingPack) -> None:
        """Find out which lanes share their texts."""
        super().__init__(pack)
        self.examples = len(pack.task.train.labels)
        self.behind = torch.zeros(len(pack.trials), 1, dtype=torch.int64)  # [L, 1]
        self.words: list[str | None] = [None] * len(pack.trials)  # hash of the words or translators, by lane

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether there are copies."""
        return recipe.copies > 0

    def change_split(self, split: TokenizedSplit) -> TokenizedSplit:
        """The examples, then the copies of each lane that has texts of its own."""
        blocks: dict[tuple[object, ...], int] = {}  # what decides a lane's texts -> its place among the copies
        copies: list[tuple[Rows, str | None]] = []
        of_lanes = []
        for trial in self.pack.trials:
            key = (augmentation.settings(trial.recipe), trial.seeds.order_seed)
            if key not in blocks:
                blocks[key] = len(copies)
                raw = _texts(trial.recipe.task)
                copies.append(
                    augmentation.copies(raw, trial.recipe, trial.seeds.order_seed, str(self.pack.device))
                )  # fmt: skip
            of_lanes.append(blocks[key])
        self.behind = torch.tensor(of_lanes)[:, None] * (self.examples * self.pack.recipe.copies)
        self.words = [copies[block][1] for block in of_lanes]
        return tokenization.with_copies(
            self.pack.task, [rows for rows, _ in copies], pretrained.tokenizer(self.pack.recipe.model)
        )

    def change_epoch(self, rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The examples and their copies, as if the lane's own stood first."""
        return torch.arange(self.examples * (1 + self.pack.recipe.copies))

    def change_batch(self, batch: Batch, data: DeviceSplit) -> Batch:
        """Each lane reads its own copies."""
        rows = torch.where(batch.rows < self.examples, batch.rows, batch.rows + self.behind)
        return replace(batch, rows=rows)

    def measured(self, lane: int, selection: Selection) -> dict[str, Any]:
        """The hash of what changed the texts."""
        return {"augmentation_sha256": self.words[lane]}


@lru_cache(maxsize=1)
def _texts(task: TaskSpec) -> Raw:
    """The task's texts, where copies of them are changed; what is tokenised as it is needs them once."""
    return tasks.load(task)
