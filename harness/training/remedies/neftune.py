"""NEFTune: noise on the embeddings of words in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.training.forward import word_embedding
from harness.training.lanes import Lanes
from harness.training.pack import TrainingPack
from harness.training.remedies.remedy import Reading, Remedy
from harness.training.transfer import to_device


class Neftune(Remedy):
    """Uniform noise on the embeddings of words in training: NEFTune (Jain et al. 2023, arXiv:2310.05914).

    Each number of an example is moved by up to α / √(l·D), with l its own tokens and D the embeddings' size, and its
    padding by nothing: so in the code of the paper's experiments. transformers and trl take the padded batch's width
    for l, which would make the noise depend on an example's neighbours.
    """

    name = "neftune"
    order = 80  # after mixup: the noise is on what is mixed
    is_random = True

    def __init__(self, pack: TrainingPack) -> None:
        """One stream a lane, on the device that trains."""
        super().__init__(pack)
        self.streams = pack.streams("neftune", device=pack.device)
        self.alphas = torch.tensor([recipe.neftune_alpha for recipe in pack.recipes])  # [L]
        self.size = self.virtual = 0

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Whether α is above 0."""
        return recipe.neftune_alpha > 0

    def start(self, lanes: Lanes) -> None:
        """Read the embeddings' size, and the positions that a prompt takes before the text."""
        self.size, self.virtual = word_embedding(lanes.module).embedding_dim, lanes.network.virtual

    def step_inputs(self, reading: Reading) -> dict[str, Tensor]:
        """The noise of all positions, [l, b, T, D], with b the sequences of all examples."""
        lengths = to_device(reading.lengths.flatten(1), self.pack.device)
        noise = self.draw(reading.batch.lanes, lengths, reading.width)
        return {"noise": F.pad(noise, (0, 0, self.virtual, 0))}

    def forward_context(self, module: nn.Module, given: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        """Add the noise to the words' embeddings."""
        return noisy_words(module, given["noise"])

    def draw(self, lanes: Sequence[int], lengths: Tensor, width: int) -> Tensor:
        """The noise of some lanes' examples of these lengths [l, b], [l, b, width, D]."""
        noise = torch.empty(*lengths.shape, width, self.size, device=lengths.device)
        for row, lane in enumerate(lanes):
            noise[row].uniform_(-1, 1, generator=self.streams[lane])
        most = self.alphas[lanes, None].to(lengths.device) / (lengths * self.size).sqrt()  # [l, b]
        real = torch.arange(width, device=lengths.device) < lengths[..., None]  # [l, b, width]
        return noise.mul_((most[..., None] * real)[..., None])


@contextmanager
def noisy_words(module: nn.Module, noise: Tensor) -> Iterator[None]:
    """Add noise [b, T, D] to the embeddings of the words that a network reads."""
    hook = word_embedding(module).register_forward_hook(lambda _, __, embedded: embedded + noise)
    try:
        yield
    finally:
        hook.remove()
