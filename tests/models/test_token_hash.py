"""Which tokens a result is of: what the hashes tell apart, and that a started sweep goes on with no other tokenizer."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.data.tokenized import Task, TokenizedSplit
from harness.execution import driver, gate, in_process, train_pack
from harness.execution.driver import Options
from harness.execution.rerun import TOLERANCE, RerunComparison, rerun
from harness.execution.train_pack import Result
from harness.execution.verification import verify
from harness.models import token_hash
from harness.records.record import Record
from harness.records.store import Store

pytestmark = pytest.mark.usefixtures("cpu_only")
HERE = Options(in_process=True)


def run(sweep: Sweep, store: Store) -> driver.SweepOutcome:
    return driver.run(sweep, store, HERE, lambda progress: None)


# ---------------------------------------------------------------------------------------------------------- hashes


def split(ids: list[list[int]], types: list[list[int]] | None = None) -> TokenizedSplit:
    lengths = np.array([sum(token > 0 for token in row) for row in ids])
    made = np.array(ids)
    return TokenizedSplit(made, lengths, np.zeros_like(made) if types is None else np.array(types), np.zeros(len(ids)))


TASK = Task("t", "accuracy", ("no", "yes"), 2, 0, split([[2, 5, 3], [2, 3, 0]]), split([[2, 6, 3]]), "d" * 64, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": split([[2, 7, 3], [2, 3, 0]])},
        {"validation": split([[2, 7, 3]])},
        {"test": split([[2, 6, 3]])},
        {"train": split([[2, 5, 3], [2, 3, 0]], [[0, 0, 1], [0, 0, 0]])},
        {"train": split([[2, 5, 0], [3, 2, 3]])},  # the same tokens in a row, parted elsewhere
        {"train": TASK.validation, "validation": TASK.train},
        {"pad_token_id": 1},
        {"train": replace(TASK.train, labels=np.zeros((2, 3)), sentences=np.array([1, 1]))},  # of a token task
    ],
)
def test_the_tokens_hash_is_of_all_that_a_model_reads(changes: dict[str, object]) -> None:
    assert token_hash.tokens_sha256(replace(TASK, **changes)) != token_hash.tokens_sha256(TASK)  # type: ignore[arg-type]


def test_the_tokens_hash_is_not_of_the_padding() -> None:
    wider = split([[2, 5, 3, 0], [2, 3, 0, 0]])
    assert token_hash.tokens_sha256(replace(TASK, train=wider)) == token_hash.tokens_sha256(TASK)


def test_the_tokenizers_hash_is_of_names_and_bytes_of_its_files(tmp_path: Path, bert: ModelSpec) -> None:
    assert bert.folder is not None
    folder = tmp_path / "copy"
    shutil.copytree(bert.folder, folder)
    copied = ModelSpec(name="another-name", folder=str(folder))
    same = token_hash.tokenizer_sha256(bert)
    assert token_hash.tokenizer_sha256(copied) == same
    (folder / "config.json").write_text("{}")
    (folder / "notes.txt").write_text("no file of a tokenizer")
    assert token_hash.tokenizer_sha256(copied) == same
    (folder / "vocab.txt").write_text("a")
    assert token_hash.tokenizer_sha256(copied) != same
    assert token_hash.tokenizer_sha256(ModelSpec(name="no/such")) is None
    assert token_hash.tokenizer_sha256(ModelSpec(name="x", folder=str(tmp_path))) is None


def test_a_tokenizer_of_the_hub_is_that_of_the_cached_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for revision in ("old", "new"):
        folder = tmp_path / "models--org--name" / "snapshots" / revision
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text(revision)
    (tmp_path / "models--org--name" / "refs").mkdir()
    found = []
    for revision in ("old", "new"):
        (tmp_path / "models--org--name" / "refs" / "main").write_text(revision)
        found.append(token_hash.tokenizer_sha256(ModelSpec(name="org/name")))
        assert found[-1] == token_hash.tokenizer_sha256(
            ModelSpec(name="x", folder=str(tmp_path / "models--org--name" / "snapshots" / revision))
        )
    assert found[0] != found[1]


# --------------------------------------------------------------------------------------------------- a started sweep


def own_model(bert: ModelSpec, folder: Path) -> ModelSpec:
    assert bert.folder is not None
    shutil.copytree(bert.folder, folder)
    return ModelSpec(name="own", folder=str(folder))


def swap(folder: Path, one: str = "good", other: str = "bad") -> None:
    """Swap the ids of two words; done twice it is as it was."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def begun(
    trial: Callable[..., Trial], bert: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sweep, Path, Path]:
    """A sweep of three seeds of which two are trained, its results and its model's folder."""
    home = tmp_path_factory.mktemp("begun")
    recipe = trial(model=own_model(bert, home / "model"), epochs=1).recipe
    cells = (Cell(axes=(), recipe=recipe),)
    sweep = Sweep(name="own", profile="default", title="", cells=cells, seeds=tuple(trial(s).seeds for s in (1, 2, 3)))
    run(sweep.model_copy(update={"seeds": sweep.seeds[:2]}), Store(home / "results"))
    return sweep, home / "results", home / "model"


@pytest.fixture
def swept(begun: tuple[Sweep, Path, Path], tmp_path: Path) -> tuple[Sweep, Store, Path]:
    """The same with copies of the folders, to change."""
    sweep, results, model = begun
    shutil.copytree(results, tmp_path / "results")
    shutil.copytree(model, tmp_path / "model")
    spec = ModelSpec(name="own", folder=str(tmp_path / "model"))
    recipe = sweep.cells[0].recipe.model_copy(update={"model": spec})
    cells = (Cell(axes=(), recipe=recipe),)
    return sweep.model_copy(update={"cells": cells}), Store(tmp_path / "results"), tmp_path / "model"


def edit(store: Store, trial: Trial, **fields: object) -> None:
    """Change what a record says was measured."""
    path = store.path(trial.id)
    content = json.loads(path.read_text())
    content["measured"] |= fields
    path.write_text(json.dumps(content))


def early(store: Store, sweep: Sweep) -> None:
    """Make the records those of a version that knew of no tokenizer."""
    for one in expand(sweep)[:2]:
        path = store.path(one.id)
        content = json.loads(path.read_text())
        del content["measured"]["tokens_sha256"], content["measured"]["tokenizer_sha256"]
        path.write_text(json.dumps(content))


def measured(store: Store, trial: Trial) -> dict[str, object]:
    record = store.load(trial.id)
    assert record is not None
    assert record.measured is not None
    return record.measured.model_dump()


def test_a_sweep_goes_on_with_no_other_tokenizer(swept: tuple[Sweep, Store, Path]) -> None:
    sweep, store, model = swept
    swap(model)
    trained = expand(sweep)[0].id
    with pytest.raises(
        HarnessError,
        match=f"the tokenizer of 'own' gives other tokens for 'good' than when {trained} was trained",
    ):
        run(sweep, store)
    with pytest.raises(HarnessError, match="gives other tokens for"):
        gate.check_planned(sweep, store.records(sweep))  # which `plan` goes through
    assert not store.path(expand(sweep)[2].id).exists()
    swap(model)  # as it was, but for the spelling of the file
    assert run(sweep, store).finished == 3
    first, last = (measured(store, expand(sweep)[place]) for place in (0, 2))
    assert first["tokens_sha256"] == last["tokens_sha256"]
    assert first["tokenizer_sha256"] != last["tokenizer_sha256"]
    assert not verify.check(sweep, store).problems


def test_changed_texts_are_tokenised_too_so_that_other_files_are_refused(swept: tuple[Sweep, Store, Path]) -> None:
    sweep, store, model = swept
    records = [record for _, record in store.each(expand(sweep)) if record]
    plain = sweep.cells[0].recipe
    augmented = plain.model_copy(update={"augment": "delete"})
    known = token_hash.known(records)
    swap(model)
    swap(model)
    token_hash.check_started([plain], known)  # other bytes, the same tokens of the texts as they are
    with pytest.raises(HarnessError, match="gives other tokens for"):
        token_hash.check_started([augmented], known)


def test_a_worker_elsewhere_with_other_tokens_or_data_is_refused(
    swept: tuple[Sweep, Store, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, store, _ = swept
    real = train_pack.train_pack
    for field, words in (
        ("tokens_sha256", "gives other tokens for"),
        ("data_sha256", "the examples 'good' are not those that the finished trials began with"),
        ("model_sha256", "the weights 'own' are not those that the finished trials began with"),
        ("config_sha256", "the settings in config.json of 'own' are not those that the finished trials began with"),
    ):

        def elsewhere(*given: object, field: str = field) -> list[Result]:
            def changed(record: Record) -> Record:
                assert record.measured is not None
                return record.model_copy(update={"measured": record.measured.model_copy(update={field: "0" * 64})})

            return [(changed(record), curves) for record, curves in real(*given)]  # type: ignore[arg-type]

        monkeypatch.setattr(in_process, "train_pack", elsewhere)
        with pytest.raises(HarnessError, match=words):
            run(sweep, store)
        assert not store.path(expand(sweep)[2].id).exists()


def configure(model: Path, **fields: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("fields", [{"layer_norm_eps": 0.1}, {"hidden_act": "relu"}, {"num_attention_heads": 4}])
def test_a_model_that_computes_otherwise_with_the_same_weights_is_refused(
    fields: dict[str, object], swept: tuple[Sweep, Store, Path]
) -> None:
    sweep, store, model = swept
    configure(model, **fields)
    for ask in (lambda: run(sweep, store), lambda: gate.check_planned(sweep, store.records(sweep))):
        with pytest.raises(HarnessError, match=r"the config\.json of 'own' is not that with which the finished trials"):
            ask()
    assert not store.path(expand(sweep)[2].id).exists()
    again = rerun(sweep, store, expand(sweep)[0], TOLERANCE)
    assert again.verdict == "different"
    assert again.reasons[0].startswith("the model's config.json: ")


def test_a_config_that_decides_the_same_and_early_records_go_on(swept: tuple[Sweep, Store, Path]) -> None:
    sweep, store, model = swept
    configure(model, id2label={"0": "bad", "1": "good"}, transformers_version="4.0.0", _name_or_path="elsewhere")
    gate.check_planned(sweep, store.records(sweep))
    configure(model, layer_norm_eps=0.1)
    for one in expand(sweep)[:2]:
        edit(store, one, config_sha256=None)
    assert run(sweep, store).left == 0  # of early records it isn't known
    edit(store, expand(sweep)[0], config_sha256="0" * 64)
    (found,) = [problem for problem in verify.check(sweep, store).problems if problem.rule == "config_sha256"]
    assert "for 'own', where 1 trials have" in found.found


def test_a_rerun_and_verify_name_the_tokenizer(swept: tuple[Sweep, Store, Path]) -> None:
    sweep, store, model = swept
    trial = expand(sweep)[0]
    assert rerun(sweep, store, trial, TOLERANCE).verdict == "identical"
    swap(model)
    again = verify.retrain(sweep, store, trial, 1e9)  # whatever the tolerance
    assert isinstance(again, RerunComparison)
    assert again.verdict == "different"
    assert again.reasons[0].startswith("tokenizer (other token ids of the same texts): ")
    assert len(again.reasons) == 1


def test_trials_of_two_tokenizers_in_one_folder_are_a_problem(swept: tuple[Sweep, Store, Path]) -> None:
    sweep, store, _ = swept
    run(sweep, store)
    edit(store, expand(sweep)[1], tokens_sha256="f" * 64)
    (problem,) = verify.check(sweep, store).problems
    assert (problem.trial, problem.rule) == (expand(sweep)[1].id, "tokens_sha256")
    edit(store, expand(sweep)[1], tokens_sha256="no hash")
    assert "record" in {problem.rule for problem in verify.check(sweep, store).problems}


def test_records_that_say_no_tokenizer_raise_no_alarm(swept: tuple[Sweep, Store, Path]) -> None:
    sweep, store, model = swept
    early(store, sweep)
    assert not verify.check(sweep, store).problems
    assert run(sweep, store).finished == 3
    assert not verify.check(sweep, store).problems
    assert rerun(sweep, store, expand(sweep)[0], TOLERANCE).verdict == "identical"
    swap(model)
    found = rerun(sweep, store, expand(sweep)[0], TOLERANCE)
    assert (found.verdict, found.reasons[-1]) == ("different", "not recorded then, so not compared: the tokenizer")
