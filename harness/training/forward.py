"""The network as a function of one lane's parameters and inputs, to be called under vmap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from harness.models import methods
from harness.models.outputs import logits_of
from harness.models.pretrained import Network
from harness.training.pack import TrainingPack


class Forward:
    """A forward pass of one lane in the recipe's precision, and what it shares with other lanes."""

    def __init__(self, network: Network, pack: TrainingPack) -> None:
        """Use the network's module, which lies on the pack's device."""
        self.network, self.device = network, pack.device
        self.module: nn.Module = network.module
        self._precision, self._outputs, self._by_token = pack.recipe.precision, pack.kind.outputs, pack.kind.by_token
        self._sequences = pack.kind.sequences

    def logits(self, parameters: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
        """The logits of a batch, [b, C] or of each token [b, T, C], float32.

        Where an example has C sequences, inputs [b, C, …], they are the first output of each.
        """
        if self._sequences is not None:
            inputs = {name: value.flatten(0, 1) for name, value in inputs.items()}  # [b * C, …]
        with self.computing():
            output = functional_call(self.module, methods.given(parameters), args=(), kwargs=inputs)
        logits = logits_of(output)
        if self._by_token:
            logits = logits[:, self.network.virtual :]
        if self._sequences is not None:
            return logits[:, 0].view(-1, self._sequences).float()
        return logits[..., : self._outputs].float()

    def shared(self, lanes: int) -> dict[str, Tensor]:
        """Frozen matrices as if each lane had its own, [lanes, *shape], without a copy; on a CPU alone.

        So each lane's product is one by itself there, whose bits can't depend on the pack; a GPU multiplies all lanes
        at once, which is faster.
        """
        if self.device.type != "cpu":
            return {}
        return {name: value.expand(lanes, *value.shape) for name, value in self.network.frozen.items()}

    def looked_up(self, words: Tensor) -> AbstractContextManager[object]:
        """How words [lanes, b, T] are looked up so that no lane's gradient depends on its place in the pack."""
        few = self.device.type == "cuda" and words.numel() <= IndexedEmbedding.MOST
        return IndexedEmbedding() if few else nullcontext()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in the recipe's precision and, on a CPU, by products that don't depend on the pack."""
        with ExitStack() as around:
            if self.device.type == "cpu":
                around.enter_context(_ContiguousProducts())
            if self._precision == "bf16":
                around.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
                around.enter_context(_Bf16Linear())
            yield


def word_embedding(module: nn.Module) -> nn.Embedding:
    """The embeddings of the words that a network reads."""
    model: Any = module
    return next(part for part in model.get_input_embeddings().modules() if isinstance(part, nn.Embedding))


class _ContiguousProducts(TorchFunctionMode):
    """Multiplies stacks of matrices, as attention does, that lie in memory one after the other, row by row.

    torch multiplies such a stack where it lies if it can be read as one list of matrices, else it copies it. Heads that
    are columns of one projection can be read so for one lane of one text, but not for more of either; and of matrices
    that lie otherwise a processor's library may choose another kernel, with other last bits.
    """

    PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.PRODUCTS and not kwargs and min(matrices.dim() for matrices in args) > 2:
            args = tuple(map(self._in_rows, args))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _in_rows(matrices: Tensor) -> Tensor:
        if 1 in matrices.shape[-2:]:  # the stride of a single row or column is free, and is_contiguous doesn't look
            return matrices.clone(memory_format=torch.contiguous_format)
        return matrices.contiguous()


class _Bf16Linear(TorchFunctionMode):
    """Linear layers that take and give bf16, as in `torch.autocast`, which this is to be used with.

    Under vmap a linear layer comes apart before autocast sees it: the product is made in bf16, and the sum with the
    bias, and all that follows it, in float32.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.linear, torch.addmm, torch.baddbmm):
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to(torch.bfloat16), (args, kwargs))
        return func(*args, **(kwargs or {}))


class IndexedEmbedding(TorchFunctionMode):
    """Looks words up by indexing, whose gradient adds a word's rows up one after the other.

    CUDA's own kernel for up to 3,072 words of all lanes together adds them in chunks of 32 from the first lane's first
    word on (`embedding_backward_feature_kernel`), so that a lane's last bits hang on its place.
    """

    MOST = 3072

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Index where words are looked up."""
        if func is F.embedding:
            words, table = args[:2]
            return table[words]
        return func(*args, **(kwargs or {}))
