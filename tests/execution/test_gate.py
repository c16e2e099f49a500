"""What is refused before training: `plan` and `sweep` say the same line, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import MOSBACH, Run, store_of, sweep_of
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.seed_rule import Growth
from harness.config.sweep_file import load
from harness.config.trials import Sweep, Trial
from harness.execution import driver, gate, machine, pools
from harness.execution.machine import Machine
from harness.records.store import Store

Build = Callable[..., Path]
TEXT = "task: embedded\nmodel: embedded\nmax_length: 16\nlr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, on a machine of two cores whose workers would be an error."""

    def train(*given: object, **options: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "detect_hardware", lambda: Machine(2, 2**34, ()))
    monkeypatch.setattr(pools, "InProcess", train)
    return tmp_path


def said(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def both(rule: str, *words: str) -> str:
    """What plan and sweep say alike."""
    planned = said("plan", *words)
    assert rule in planned
    assert planned == said("plan", *words, "--json")
    assert planned == said("sweep", *words, "--in-process")
    return planned


def file_of(here: Path, text: str) -> str:
    (here / "t.yaml").write_text(text)
    return "t.yaml"


# ------------------------------------------------------------------------------------------------- a started sweep


@pytest.mark.parametrize(
    ("change", "lost"),
    [("seeds=1..1", "seed 2"), ("lr=[1e-5]", "lr 2e-5"), ("max_length=24", "max length 16"), ("epochs=4", "epochs 3")],
)
def test_an_edit_that_drops_trained_trials(here: Path, change: str, lost: str) -> None:
    name = file_of(here, TEXT)
    store_of(here / "results", load(here / name), {0: [Run(300), Run(310)], 1: [Run(320), Run(crashed="no")]})
    found = both("the edited sweep has no ", name, "--set", change)
    assert f"the edited sweep has no {lost.replace('max length', 'max_length')}, which trained trials" in found
    result = CliRunner().invoke(app, ["plan", name, "--set", "seeds=1..9", "--results", "elsewhere"])
    assert result.exit_code == 0


def test_other_data_under_one_name(here: Path) -> None:
    name = file_of(here, TEXT)
    store_of(here / "results", load(here / name), {0: [Run(300), None]})  # whose data are made up
    both("are not those that", name)


# --------------------------------------------------------------------------------------------- data, models, methods


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("model.folder=/nonexistent", "/nonexistent is not a model folder"),
        ("task=RTE", "unknown task 'RTE' (did you mean 'rte'?)"),
        ("reinit_layers=13", "reinit_layers"),
        ("batch_size=2000", "batch_size must be at most the number of training examples"),
        ("max_steps=5000", "max_steps must be at most"),
        ("baselines=[tfidf_logistic]", "the baseline tfidf_logistic requires a task with classes"),
    ],
)
def test_what_can_not_be_trained(here: Path, numbers: TaskSpec, change: str, rule: str) -> None:
    text = TEXT
    if "baselines" in change:
        text = text.replace("embedded\n", json.dumps(numbers.model_dump(exclude_none=True)) + "\n", 1)
    both(rule, file_of(here, text), "--set", change)


def test_what_a_method_needs(here: Path) -> None:
    settings = ("--set", "method=lora", "--set", "lora_targets=nothing")
    both("endings of them, separated by commas (got 'nothing')", file_of(here, TEXT), *settings)


def test_synonyms_that_no_text_has(here: Path) -> None:
    (here / "words.tsv").write_text("zebra\thorse\n")
    settings = ("--set", "augment=synonyms", "--set", "synonyms=words.tsv")
    both("words of the synonyms words occurs in the training texts", file_of(here, TEXT), *settings)


def test_deberta_in_bf16(here: Path, build: Build) -> None:
    folder = build("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "deberta"}))
    text = TEXT.replace("model: embedded", f"model: {folder}")
    both("cannot be trained with precision: bf16", file_of(here, text), "--set", "precision=bf16")


def test_what_is_on_the_hub_is_planned_without_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.common.hub.reachable", lambda: False)
    text = TEXT.replace("task: embedded\nmodel: embedded", "task: rte\nmodel: bert-large-uncased")
    result = CliRunner().invoke(app, ["plan", file_of(here, text)])
    assert result.exit_code == 0, result.output
    # What is known of them without is held all the same.
    assert "batch_size must be at most" in said("plan", "t.yaml", "--set", "batch_size=9000")
    assert "reinit_layers" in said("plan", "t.yaml", "--set", "reinit_layers=25")


def test_a_models_own_code_is_planned_where_it_is_trusted(here: Path, build: Build) -> None:
    folder = build("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    name = file_of(here, TEXT.replace("model: embedded", f"model: {folder}"))
    both("brings Python code of its own (auto_map), which is not trusted", name)
    assert CliRunner().invoke(app, ["plan", name, "--trust-remote-code"]).exit_code == 0
    said("plan", name)


# --------------------------------------------------------------------------------------------------------- searches


def test_a_started_search_under_other_settings(here: Path) -> None:
    space = "search: {recipes: 5, space: {lr: {low: 1e-5, high: 1e-3, log: on}}}\n"
    name = file_of(here, TEXT.replace("lr: [1e-5, 2e-5]\n", "") + space)
    sweep = load(here / name)
    Store(here / "results" / sweep.folder_name).save_plan(sweep)
    assert CliRunner().invoke(app, ["plan", name]).exit_code == 0
    file_of(here, (here / name).read_text().replace("1e-3", "1e-2"))
    planned = said("plan", name)
    assert "with another space" in planned
    assert planned == said("search", name, "--in-process")
    file_of(here, (here / name).read_text().replace("1e-2", "1e-3"))
    assert "number of training examples" in said("plan", name, "--set", "batch_size=2000", "--results", "elsewhere")


# ------------------------------------------------------------------------------------------------ words that are cut


def tagged_file(here: Path, tagged: TaskSpec, bert: ModelSpec, max_length: int) -> str:
    task = json.dumps(tagged.model_dump(exclude_none=True))
    text = f"task: {task}\nmodel: {json.dumps(bert.model_dump())}\nlr: [1e-2, 1e-9]\nepochs: 2\nseeds: 1..2\n"
    return file_of(here, f"{text}max_length: {max_length}\n")


def test_sentences_longer_than_max_length(here: Path, tagged: TaskSpec, bert: ModelSpec) -> None:
    assert tagged.files is not None
    lines = (Path(tagged.files.validation) / "dev.conll").read_text().split("\n\n")
    sizes = [len(sentence.splitlines()) + 2 for sentence in lines if sentence.strip()]  # [CLS] and [SEP]
    longest, too_long = max(sizes), sum(size > 8 for size in sizes)
    name = tagged_file(here, tagged, bert, 8)
    line = both("words have a token within", name)
    assert f"6 of {next(size for size in sizes if size > 8) - 2} words have a token within max_length 8" in line
    assert f"{too_long} sentences of that split too long, of up to {longest} tokens" in line
    assert f"Raise max_length to {longest}" in line
    shown = CliRunner().invoke(app, ["data", name])
    assert f"{too_long} dev sentences longer than 8 tokens" in shown.output
    assert f"raise max_length to {longest}" in shown.output
    tagged_file(here, tagged, bert, 16)
    assert CliRunner().invoke(app, ["plan", name]).exit_code == 0


def test_one_word_of_a_test_sentence_that_is_cut_is_refused(here: Path, tagged: TaskSpec, bert: ModelSpec) -> None:
    assert tagged.files is not None
    folder = here / "data"
    folder.mkdir()
    for path in Path(tagged.files.train).iterdir():
        (folder / path.name).write_text(path.read_text())
    with (folder / "test.conll").open("a") as stream:
        stream.write("a\tO\n" * 15)
    files = {"train": str(folder), "validation": str(folder), "test": str(folder)}
    name = tagged_file(here, TaskSpec.model_validate(tagged.model_dump() | {"files": files}), bert, 16)
    line = both("words have a token within", name)
    assert "test.conll" in line
    assert (
        "14 of 15 words have a token within max_length 16; 1 sentence of that split too long, of up to 17 tokens"
        in line
    )


# ---------------------------------------------------------------------------------------------------------- the gate


def test_training_and_planning_go_through_one_gate(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*given: object, **options: object) -> None:
        raise HarnessError("the gate", got="closed", allowed="open", fix="open it")

    monkeypatch.setattr(gate, "check_inputs", closed)
    with pytest.raises(HarnessError, match="the gate"):
        driver.run(tiny_sweep, Store(tmp_path / "kept"), driver.Options(in_process=True), lambda progress: None)


def test_only_the_cells_that_are_asked_for_are_checked(tmp_path: Path, trial: Callable[..., Trial]) -> None:
    sweep = sweep_of(tmp_path, MOSBACH)
    lost = sweep.cells[1].model_copy(
        update={"recipe": sweep.cells[1].recipe.model_copy(update={"model": ModelSpec(name="x", folder="/nowhere")})}
    )
    half = sweep.model_copy(update={"cells": (sweep.cells[0], lost)})
    gate.check_inputs(half, {}, {0})
    with pytest.raises(HarnessError, match="is not a model folder"):
        gate.check_inputs(half, {}, {0, 1})


def test_fewer_seeds_at_most_than_are_trained_are_refused_by_that_name(here: Path) -> None:
    text = TEXT.replace("1..2", "{first: 2, at_most: 9, step: 2, until: lr settled}")
    before = sweep_of(here, text)
    after = sweep_of(here, text.replace("{first: 2, at_most: 9", "{first: 1, at_most: 2"))
    long = before.model_copy(update={"growth": Growth(horizon=9, looks=((2, 2), (4, 4)))})
    store = store_of(here, long, {0: [Run(300)] * 4, 1: [Run(300)] * 4})
    with pytest.raises(HarnessError, match=r"seeds\.at_most must not be less than .*at_most: 2, 4 trained"):
        gate.refuse_orphans(after, store, store.records(after))
