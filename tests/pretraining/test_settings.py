"""What may be asked of pretraining: one line for what can't be."""

from pathlib import Path

import pytest

from harness.common.errors import HarnessError
from harness.pretraining.settings import Settings, check

TEXTS = (Path("texts.txt"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps counts things: got 0; allowed: 1 or more"),
        ({"batch_size": -1}, "batch_size counts things: got -1"),
        ({"pairs": 0}, "pairs counts things: got 0"),
        ({"threads": 0}, "threads counts things: got 0"),
        ({"heads": 0}, "heads counts things: got 0"),
        ({"lr": 0.0}, "lr is a step size: got 0.0; allowed: a finite number above 0"),
        ({"lr": float("nan")}, "lr is a step size: got nan"),
        ({"beta2": 1.0}, "beta2 weighs the past: got 1.0; allowed: at least 0 and below 1"),
        ({"steps": 100}, "warmup_steps 500 of 100 steps; allowed: 0 to 99"),
        ({"seed": -1}, "seed names a random stream: got -1"),
        ({"held_out": 1.0}, "held-out texts are a share of all: got 1.0"),
        (
            {"hidden": 30, "heads": 4},
            "the heads share the width equally: got --hidden 30 --heads 4; allowed: heads that",
        ),
        ({"heads": 3}, "got --hidden 256 --heads 3; allowed: heads that divide 256"),
        ({"objective": "causal", "whole_words": True}, "got --objective causal --whole-word; .*leave one of them out"),
        ({"objective": "causal", "next_sentence": True}, "got --objective causal --next-sentence"),
        (
            {"start": "embedded", "layers": 2, "heads": 2},
            "a model to go on from has its shape: got --from with --layers, ",
        ),
        ({"start": "embedded", "train_tokenizer": "BPE"}, "has its tokenizer: got --from with --train-tokenizer"),
        ({"vocab_size": 100}, "--vocab-size is of a tokenizer that is trained: got no --train-tokenizer"),
        ({"column": "said"}, "--column is one of tables of texts: got no --texts"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=message) as refused:
        check(Settings().model_copy(update=changes))
    assert "\n" not in str(refused.value)


def test_defaults_rebuild_the_embedded_model_and_every_setting_of_the_first_group_does_not() -> None:
    check(Settings())
    assert Settings(steps=7, seed=3, lr=0.1, batch_size=2, threads=2, pairs=9, warmup_steps=1).rebuilds
    for changes in (
        {"texts": TEXTS}, {"start": "embedded"}, {"objective": "causal"}, {"whole_words": True}, {"layers": 12},
        {"next_sentence": True}, {"dropout": False}, {"train_tokenizer": "BPE"}, {"held_out": 0.05}, {"max_length": 32},
    ):  # fmt: skip
        assert not Settings().model_copy(update=changes).rebuilds, changes


def test_what_is_not_asked_has_its_default() -> None:
    assert Settings().share == 0.05
    assert Settings(held_out=0.0).share == 0.0
    assert Settings(hidden=64).shape == (4, 64, 4)
