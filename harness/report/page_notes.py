"""What the page says before any result: a tokenizer that does not fit, bits that do not carry over."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.config.recipe import Recipe
from harness.data import vocabulary
from harness.records.study import Study


def of(study: Study) -> tuple[str, ...]:
    """The notes that the runs of a study call for."""
    return (*_unknown(study), *_last_bits(study))


def _recipes(study: Study) -> Iterator[Recipe]:
    """Those of the study's sweeps; imported runs have none."""
    return (cell.recipe for sweep in study.sweeps for cell in sweep.cells)


def _unknown(study: Study) -> tuple[str, ...]:
    """A warning where more than a few tokens of the runs' data are unknown to the tokenizer."""
    share = pd.to_numeric(study.runs["unknown_share"]).max()
    models = dict.fromkeys(recipe.model.name for recipe in _recipes(study))
    if not share > vocabulary.WARN_ABOVE:  # NaN is not either
        return ()
    return (f"Warning: {vocabulary.words(share, next(iter(models)) if len(models) == 1 else 'one of the models')}",)


def _last_bits(study: Study) -> tuple[str, ...]:
    """Of runs without bias correction, how far a single one can be trusted to come out alike elsewhere."""
    corrected = [recipe.bias_correction for recipe in _recipes(study) if recipe.optimizer in ("adamw", "lamb")]
    if all(corrected):
        return ()
    return (
        "Without bias correction a single result hangs on the last bits: at rates where runs fail, rounding grows "
        "tenfold within 20 updates. On another kind of machine such a run may end elsewhere. Failure rates carry over, "
        "single scores do not.",
    )
