"""A training method as planning and saving see it, without a network: its settings, its weights, its saved form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from harness.config.recipe import Recipe


class ModelShape(NamedTuple):
    """The sizes of a transformer's encoder, as its config gives them."""

    layers: int
    hidden: int
    inner: int  # the width between the two maps of a feed-forward
    vocabulary: int
    positions: int

    @property
    def layer_weights(self) -> int:
        """How many weights a layer has."""
        return 4 * self.hidden * self.hidden + 2 * self.hidden * self.inner + 13 * self.hidden

    @property
    def weights(self) -> int:
        """About how many weights the encoder has."""
        words = (self.vocabulary + self.positions + self.hidden) * self.hidden
        return self.layers * self.layer_weights + words


@dataclass(frozen=True)
class MethodInfo:
    """A training method as planning, saving and the sweep file's rules see it; its parts are in `models/methods.py`.

    Attributes:
        trained_weights: About how many weights a lane trains, the head apart.
        settings: The fields of a recipe that it alone reads.
        saved_as: The whole model, an adapter in peft's format, or the trained tensors in the harness's own.
        virtual_tokens: What its virtual tokens lengthen: each text, or only the keys that attention looks at.
        top_only: Whether nothing below the top layers (or the head) is trained, so that none of it is kept for the
            backward pass.
    """

    trained_weights: Callable[[Recipe, ModelShape], int]
    settings: tuple[str, ...] = ()
    saved_as: Literal["model", "peft", "tensors"] = "model"
    virtual_tokens: Literal["text", "keys"] | None = None
    top_only: bool = False
