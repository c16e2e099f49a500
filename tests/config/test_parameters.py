"""What a trial was trained with, as data: nothing is left out for being usual."""

from pathlib import Path

import pytest
from made_runs import HEAD, sweep_of

from harness.config.parameters import exact, parameters
from harness.config.recipe import Recipe, TaskSpec
from harness.config.trials import Sweep, expand


def all_of(sweep: Sweep) -> list[dict[str, object]]:
    return [dict(parameters(sweep, trial)) for trial in expand(sweep)]


def test_what_equals_the_default_is_there_in_every_run(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, HEAD + "bias_correction: [off, on]\nlr: 1e-5\nepochs: 3\nseeds: 1..2\n")
    runs = all_of(sweep)
    assert [run["bias_correction"] for run in runs] == [False, False, True, True]
    of_methods = {"top_layers", "lora_rank", "lora_alpha", "lora_targets", "virtual_tokens", "adapter_size"}
    names = {*Recipe.model_fields, *(f"task.{name}" for name in TaskSpec.model_fields)} - of_methods
    names -= {"task.name", "task.files", "task.metric_file"}
    names |= {"seed", "init_seed", "order_seed", "dropout_seed"}
    assert {frozenset(run) for run in runs} == {frozenset(names)}
    assert runs[0] | {"bias_correction": True, "seed": 2, "init_seed": 2, "order_seed": 2, "dropout_seed": 2} == runs[3]
    first = {"task": "embedded", "task.kind": "texts", "task.metric": None, "weight_decay": 0.01, "max_grad_norm": 1.0}
    assert first.items() <= runs[0].items()


def test_a_recipes_name_and_the_axis_of_another_method_are_there(tmp_path: Path) -> None:
    named = "recipes:\n  usual: {epochs: 3}\n  long: {epochs: 20, weight_decay: 0.0}\nlr: 1e-5\nseeds: 1..1\n"
    runs = all_of(sweep_of(tmp_path, HEAD + named))
    assert [(run["recipe"], run["epochs"], run["weight_decay"]) for run in runs] == [
        ("usual", 3, 0.01), ("long", 20, 0.0),
    ]  # fmt: skip
    methods = "method: [full, lora]\nlora_rank: 8\nlr: 1e-5\nepochs: 3\nseeds: 1..1\n"
    full, lora = all_of(sweep_of(tmp_path, HEAD + methods))
    assert "lora_rank" not in full
    assert (lora["lora_rank"], lora["lora_alpha"]) == (8, 16.0)


@pytest.mark.parametrize("value", [1e-5, 2e-5, 1e-5 / 3, 0.1 + 0.2, 1.0, 123456789.123456789, 5e-324])
def test_numbers_read_back_exactly(value: float) -> None:
    assert float(exact(value)) == value


def test_other_values_are_as_people_write_them() -> None:
    assert [exact(value) for value in (2e-5, True, None, 3, "x", 2**63 - 1)] == [
        "2e-5", "on", "none", "3", "x", "9223372036854775807",
    ]  # fmt: skip
