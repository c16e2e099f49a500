"""What goes with a task of completions and what does not."""

from __future__ import annotations

import pytest

from harness.common.errors import HarnessError
from harness.config.recipe_rules import build_recipe


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing cannot be used with task.kind: completion: it requires classes"),
        ({"method": "head"}, "method: head cannot be used with task.kind: completion"),
        ({"freeze_steps": 2}, "freeze_steps cannot be used with task.kind: completion"),
        ({"augment": "swap"}, "augment cannot be used with task.kind: completion"),
        ({"method": "prompt", "padding_side": "left"}, "padding_side: left cannot be used with method: prompt"),
        ({"metric": "f1"}, "metric f1 cannot be used with task.kind: completion"),
        ({"kind": "texts", "metric": "perplexity"}, "metric perplexity requires task.kind: completion"),
        ({"kind": "texts", "loss_on": "all"}, "task.loss_on requires task.kind: completion"),
        ({"activation_checkpointing": True}, "activation_checkpointing: on requires dropout: 0"),
        (
            {"kind": "texts", "activation_checkpointing": True, "dropout": 0.0},
            "activation_checkpointing: on requires task.kind: completion",
        ),
        ({"kind": "texts", "padding_side": "left"}, "padding_side: left requires task.kind: completion"),
    ],
)
def test_what_a_completion_task_cannot_have(fields: dict[str, object], problem: str) -> None:
    own = {name: fields[name] for name in ("kind", "metric", "loss_on") if name in fields}
    task = {"name": "own", "kind": "completion", "files": "data"} | own
    given = {"task": task, "model": "gpt2", "lr": 1e-3, "epochs": 1} | {k: v for k, v in fields.items() if k not in own}
    with pytest.raises(HarnessError, match=problem):
        build_recipe(given, "the sweep")


def test_new_fields_change_no_id_and_a_loss_is_better_when_lower() -> None:
    plain = build_recipe({"task": "rte", "model": "bert-base-uncased", "lr": 1e-3, "epochs": 1}, "the sweep")
    assert not {"padding_side", "loss_on"} & set(plain.model_dump(exclude_defaults=True))
    task = {"name": "own", "kind": "completion", "files": "data"}
    for metric, higher in ((None, False), ("perplexity", False), ("exact_match", True), ("accuracy", True)):
        recipe = build_recipe(
            {"task": task | {"metric": metric}, "model": "gpt2", "lr": 1e-3, "epochs": 1}, "the sweep"
        )
        assert recipe.task.higher_is_better == higher
