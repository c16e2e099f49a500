"""Mixup: each batch is mixed with a permutation of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.common.errors import HarnessError
from harness.config.recipe import Recipe
from harness.training.batches import Batch, DeviceSplit
from harness.training.forward import word_embedding
from harness.training.lanes import Lanes
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Loss, Reading, Remedy
from harness.training.transfer import to_device


class Mixup(Remedy):
    """Each batch mixed with a permutation of itself (Zhang et al. 2018, arXiv:1710.09412): λ ~ Beta(α, α) a batch.

    Of texts the embeddings of words are mixed (Guo et al. 2019, arXiv:1905.08941), place by place, as far as the longer
    of the two goes; positions and segments are the first's. The loss is λ times that against the first's label and
    1 − λ times that against the other's.
    """

    name = "mixup"
    order = 40
    is_random = True

    def __init__(self, pack: TrainingPack) -> None:
        """One stream a lane, on the CPU."""
        super().__init__(pack)
        self.streams = pack.streams("mixup")
        self.shares = torch.ones(len(pack.trials))  # [L], λ of the batch

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether α is above 0."""
        return recipe.mixup > 0

    def start(self, lanes: Lanes) -> None:
        """Refuse a decoder."""
        if lanes.network.causal:
            raise HarnessError(
                f"mixup requires an encoder: {self.pack.recipe.model.name} answers at the first text's last word",
                fix="Remove mixup or use another model",
            )

    def change_batch(self, batch: Batch, data: DeviceSplit) -> Batch:
        """Draw whom each example is mixed with, and each lane's λ."""
        others, shares = torch.empty_like(batch.rows), torch.empty(len(batch.rows))
        for lane, (recipe, generator) in enumerate(zip(self.pack.recipes, self.streams, strict=True)):
            others[lane] = batch.rows[lane, torch.randperm(batch.rows.shape[1], generator=generator)]
            # torch.distributions.Beta draws so too, but from the global generator.
            both = torch.full((2,), recipe.mixup, dtype=torch.float64)
            shares[lane] = torch._sample_dirichlet(both, generator=generator)[0]
        self.shares = shares
        return replace(batch, also_read={**batch.also_read, self.name: others})

    def step_inputs(self, reading: Reading) -> dict[str, Tensor]:
        """The other texts' words [l, b, T] and labels, and the share of the first."""
        others = reading.batch.also_read[self.name]
        return {
            "words": reading.data.inputs(others, reading.width)["input_ids"],
            "labels": reading.labels_of(others),
            "share": to_device(self.shares[reading.batch.lanes], self.pack.device),
        }

    def forward_context(self, module: nn.Module, given: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        """Mix the words' embeddings."""
        return mixed_words(module, given["words"], given["share"])

    def change_loss(
        self, loss: Tensor, logits: Tensor, labels: Tensor, given: Mapping[str, Tensor], of: Loss
    ) -> Tensor:
        """The loss against both labels."""
        share = given["share"]
        return share * loss + (1 - share) * of(logits, given["labels"])


@contextmanager
def mixed_words(module: nn.Module, others: Tensor, share: Tensor) -> Iterator[None]:
    """Mix the embeddings of the words that a network reads with those of other words [b, T]."""
    words = word_embedding(module)

    def mix(_: nn.Module, __: object, embedded: Tensor) -> Tensor:
        own, other = embedded.chunk(2)  # [b, T, D]
        return share * own + (1 - share) * other

    # Looked up together: two look-ups' gradients would be added up in an order that depends on the pack.
    hooks = (
        words.register_forward_pre_hook(lambda _, given: (torch.cat([given[0], others]),)),
        words.register_forward_hook(mix),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
