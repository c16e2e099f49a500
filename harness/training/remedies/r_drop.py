"""R-Drop: two passes of a batch under dropout that should agree."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from harness.config.recipe import Recipe
from harness.data.examples import NO_LABEL
from harness.training.batches import Batch
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Loss, Reading, Remedy


class RDrop(Remedy):
    """Two passes that differ by what is drawn, and a term for how far they lie apart (Wu et al. 2021).

    Divided by 2b as the loss, the sum is the mean of the two losses + α/2 · (KL(p‖q) + KL(q‖p)), as the method's code
    (github.com/dropreg/R-Drop) gives it, or α times the squared difference of a regression; with α near 0 it is
    training without it. The paper (arXiv:2106.14448, eq. 4) adds the two losses up instead: its α is twice this one.
    """

    name = "r_drop"
    order = 50
    is_random = True  # the second pass is there for what differs between the two
    passes = 2

    def __init__(self, pack: TrainingPack) -> None:
        """Each lane's α."""
        super().__init__(pack)
        self.alphas = pack.vector(lambda recipe: recipe.r_drop)  # [L]

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether α is above 0."""
        return recipe.r_drop > 0

    def change_pass(self, batch: Batch) -> Batch:
        """All rows stand there twice, [l, 2b], so that one pass is two."""
        return batch.repeat(self.passes)

    def step_inputs(self, reading: Reading) -> dict[str, Tensor]:
        """The lanes' α."""
        return {"alpha": self.alphas[reading.batch.lanes]}

    def change_loss(
        self, loss: Tensor, logits: Tensor, labels: Tensor, given: Mapping[str, Tensor], of: Loss
    ) -> Tensor:
        """The gradient is that of both, the value that of the loss alone: a curve of it can be read as any other."""
        term = given["alpha"] * self._between_passes(logits, labels)
        return loss + (term - term.detach())

    def _between_passes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far the two passes lie apart, [], from both's logits [2b, C] and labels."""
        first, second = logits.chunk(2)
        if self.pack.is_regression:
            return 2 * F.mse_loss(first[:, 0], second[:, 0], reduction="sum")
        apart = divergence(first, second)  # [b], of tokens [b, T]
        return (apart * (labels.chunk(2)[0] != NO_LABEL) if self.pack.kind.per_token else apart).sum()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(p‖q) + KL(q‖p) of the distributions that logits [..., C] stand for, [...], nats."""
    p, q = F.log_softmax(first, dim=-1), F.log_softmax(second, dim=-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1)
