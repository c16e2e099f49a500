"""Which profile a machine runs, and what is estimated for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common import hub
from harness.config.recipe import ModelSpec, Recipe, TaskFiles, TaskSpec
from harness.config.trials import Sweep, Trial, expand
from harness.execution import driver, duration, lanes_memory, machine, model_shape
from harness.execution.driver import Options
from harness.execution.machine import Machine
from harness.records.store import Store

PROFILES = """
task: {name: own, files: {train: nowhere/a.tsv, validation: nowhere/b.tsv}}
lr: 1e-5
epochs: 1
seeds: 1
profiles:
  paper: {task: rte, model: bert-large-uncased, min_gpu_gib: 24}
  embedded: {task: embedded, model: embedded}
"""


@pytest.mark.parametrize(
    ("gpus", "cached", "asked", "expected"),
    [
        ((), False, None, ("embedded", "paper needs a GPU of 24 GiB and this machine has none")),
        ((("T4", 16 * 2**30),), False, None, ("embedded", "paper needs a GPU of 24 GiB and the largest has 16")),
        ((("A100", 80 * 2**30),), True, None, ("paper", "the largest this machine can run")),
        ((), False, "paper", ("paper", "asked for")),
    ],
)
def test_the_profile_is_the_largest_that_the_machine_can_run(
    gpus: tuple[tuple[str, int], ...],
    cached: bool,
    asked: str | None,
    expected: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "detect_hardware", lambda: Machine(2, 2**34, gpus))
    monkeypatch.setattr(hub, "cached", lambda kind, name: cached)
    monkeypatch.setattr(hub, "reachable", lambda timeout=2.0: False)
    path = tmp_path / "sweep.yaml"
    path.write_text(PROFILES)
    assert machine.choose_profile(path, asked) == expected


def test_a_gpu_without_the_model_falls_back_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "detect_hardware", lambda: Machine(2, 2**34, (("A100", 80 * 2**30),)))
    monkeypatch.setattr(hub, "cached", lambda kind, name: False)
    monkeypatch.setattr(hub, "reachable", lambda timeout=2.0: False)
    path = tmp_path / "sweep.yaml"
    path.write_text(PROFILES)
    name, reason = machine.choose_profile(path, None)
    assert name == "embedded"
    assert reason.startswith("paper: cannot find the model 'bert-large-uncased'")


def test_a_long_context_counts_as_its_windows(tmp_path: Path) -> None:
    """As tokenising makes them; a word of four letters and its space is about a token."""
    context = " ".join(["word"] * 40)
    answers = {"text": ["word"], "answer_start": [0]}
    row = json.dumps({"question": "word word word", "context": context, "answers": answers})
    for split in ("train", "dev"):
        (tmp_path / f"{split}.jsonl").write_text(f"{row}\n" * 3)
    files = TaskFiles(train=str(tmp_path), validation=str(tmp_path))
    task = TaskSpec(name="long", kind="span", files=files, stride=4)
    recipe = Recipe(task=task, model=ModelSpec(name="bert-base-uncased"), lr=1e-5, epochs=1, max_length=16)
    (least, _), (whole, _) = (
        guess
        for length in (16, 64)
        if (guess := duration.guessed_seconds(recipe.model_copy(update={"max_length": length}), speed=1e12))
    )
    # 16 tokens have room for some 10 of the context, 6 of them new ones: 6 windows.
    assert least / whole == pytest.approx(16 * 7 / (44 + 4 + 3), rel=0.25)


@pytest.mark.usefixtures("cpu_only")
def test_estimates_come_from_finished_trials_where_there_are_any(tiny_sweep: Sweep, tmp_path: Path) -> None:
    store = Store(tmp_path / "tiny")
    guess = duration.estimate(tiny_sweep, store.records(tiny_sweep), 2)
    assert "guess" in guess.basis
    assert guess.seconds is None  # not within a factor of two
    assert guess.between is not None
    assert guess.between[1] == pytest.approx(9 * guess.between[0])
    half = tiny_sweep.model_copy(update={"seeds": tiny_sweep.seeds[:2]})
    driver.run(half, store, Options(in_process=True), lambda progress: None)
    seconds = [
        record.measured.lane_seconds
        for trial in expand(tiny_sweep)
        if (record := store.load(trial.id)) is not None and record.measured is not None
    ]
    found = duration.estimate(tiny_sweep, store.records(tiny_sweep), 2)
    assert found.basis == "from the finished trials"
    assert found.seconds == pytest.approx(2 * sum(seconds) / 4 / 2)  # two trials are left, on two workers


def test_parameters_are_counted_from_the_shape(tiny_sweep: Sweep) -> None:
    """BERT-large has 335 million (Devlin et al. 2019 round to 340)."""
    assert model_shape.parameter_count(ModelSpec(name="bert-large-uncased")) == pytest.approx(335.1e6, rel=0.01)
    assert model_shape.parameter_count(ModelSpec(name="unheard-of")) is None


def test_two_passes_take_the_time_and_the_memory_of_twice_the_batch(trial: Callable[..., Trial]) -> None:
    once, twice, larger = (trial(**fields).recipe for fields in ({}, {"r_drop": 1.0}, {"batch_size": 16}))
    assert (once.passes, twice.passes) == (2, 4)  # of two epochs
    of_twice, of_once = lanes_memory.lane_bytes(twice, 1000), lanes_memory.lane_bytes(once, 1000)
    assert of_twice is not None
    assert of_once is not None
    assert of_twice == lanes_memory.lane_bytes(larger, 1000)
    assert of_twice > of_once
