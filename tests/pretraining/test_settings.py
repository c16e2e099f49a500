"""What may be asked of pretraining: one line for what can't be."""

import re
from pathlib import Path

import pytest

from harness.common.errors import HarnessError
from harness.pretraining.settings import Settings, check

TEXTS = (Path("texts.txt"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1 (got 0)"),
        ({"batch_size": -1}, "batch_size must be a whole number >= 1 (got -1)"),
        ({"pairs": 0}, "pairs must be a whole number >= 1"),
        ({"threads": 0}, "threads must be a whole number >= 1"),
        ({"heads": 0}, "heads must be a whole number >= 1"),
        ({"lr": 0.0}, "lr must be a finite number > 0 (got 0.0)"),
        ({"lr": float("nan")}, "lr must be a finite number > 0 (got nan)"),
        ({"beta2": 1.0}, "beta2 must be >= 0 and < 1 (got 1.0)"),
        ({"steps": 100}, "warmup_steps must be less than steps, 100 (got 500)"),
        ({"seed": -1}, "seed must be between 0 and 2^60 − 1 (got -1)"),
        ({"held_out": 1.0}, "--held-out must be >= 0 and < 1 (got 1.0)"),
        (
            {"hidden": 30, "heads": 4},
            "--heads must divide --hidden 30 (got 4)",
        ),
        ({"heads": 3}, "--heads must divide --hidden 256 (got 3)"),
        (
            {"objective": "causal", "whole_words": True},
            "--whole-word cannot be used with --objective causal",
        ),
        ({"objective": "causal", "next_sentence": True}, "--next-sentence cannot be used with --objective causal"),
        (
            {"start": "embedded", "layers": 2, "heads": 2},
            "cannot be used with --from: the model has its shape",
        ),
        ({"start": "embedded", "train_tokenizer": "BPE"}, "--train-tokenizer cannot be used with --from"),
        ({"vocab_size": 100}, "--vocab-size requires --train-tokenizer"),
        ({"column": "said"}, "--column requires --texts"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=re.escape(message)) as refused:
        check(Settings().model_copy(update=changes))
    assert "\n" not in str(refused.value)


def test_defaults_rebuild_the_embedded_model_and_every_setting_of_the_first_group_does_not() -> None:
    check(Settings())
    assert Settings(steps=7, seed=3, lr=0.1, batch_size=2, threads=2, pairs=9, warmup_steps=1).rebuilds
    assert Settings().model_copy(update={"objective": "causal"}).rebuilds  # the decoder
    for changes in (
        {"texts": TEXTS}, {"start": "embedded"}, {"whole_words": True}, {"layers": 12},
        {"next_sentence": True}, {"dropout": False}, {"train_tokenizer": "BPE"}, {"held_out": 0.05}, {"max_length": 32},
    ):  # fmt: skip
        assert not Settings().model_copy(update=changes).rebuilds, changes


def test_what_is_not_asked_has_its_default() -> None:
    assert Settings().share == 0.05
    assert Settings(held_out=0.0).share == 0.0
    assert Settings(hidden=64).shape == (4, 64, 4)
