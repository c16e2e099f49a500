"""Kept models: what transformers and peft load is what was trained, and what lies there is what was asked for."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from driving import content
from kept_runs import ALL, logits, quiet, sweep_of, trained
from shown_snippets import shown

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.trials import Sweep, Trial, expand
from harness.data import tasks
from harness.execution import driver, recorder, rerun
from harness.execution.driver import Options
from harness.execution.ray_worker import RayWorker
from harness.execution.train_pack import WorkerSetup
from harness.execution.verification import verify
from harness.models import keep_weights, saved
from harness.models.keep_weights import Keeping
from harness.models.saved import UnkeptError
from harness.records.store import Store

Make = Callable[..., Trial]
Build = Callable[..., Path]
BEST = Options(in_process=True, keep="best")
pytestmark = pytest.mark.usefixtures("cpu_only")


def models(store: Store) -> list[str]:
    return sorted(path.name for path in (store.folder / "models").glob("[!.]*"))


def digest(store: Store, trial: Trial) -> str:
    record = store.load(trial.id)
    assert record is not None
    assert record.measured is not None
    return record.measured.weights_sha256


def piped(folder: Path, task: TaskSpec) -> tuple[np.ndarray, list[str]]:
    """What transformers' own pipeline makes of a task's dev set: logits [N, C] and the names of their columns."""
    rows = tasks.load(task).validation
    pipe = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    given = list(rows.texts)
    if rows.pairs is not None:
        given = [{"text": a, "text_pair": b} for a, b in zip(rows.texts, rows.pairs, strict=True)]
    answers = pipe(given, top_k=None, function_to_apply="none")
    names = [name for _, name in sorted(pipe.model.config.id2label.items())]
    scores = [{one["label"]: one["score"] for one in answer} for answer in answers]
    return np.array([[score[name] for name in names] for score in scores]), names


def assert_same(found: np.ndarray, kept: np.ndarray) -> None:
    np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-5)
    if kept.shape[1] > 1:
        assert np.array_equal(found.argmax(axis=1), kept.argmax(axis=1))


# ------------------------------------------------------------------------------------- what others make of a folder


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_transformers_pipeline_gives_the_records_logits(kind: str, build: Build, trial: Make, tmp_path: Path) -> None:
    changes = {"num_key_value_heads": 1} if kind == "llama" else {}
    one = trial(model=ModelSpec(name=kind, folder=str(build(kind, **changes))), lr=2e-2, epochs=4)
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    found, names = piped(folder, one.recipe.task)
    assert names == ["no", "yes"]
    assert_same(found, logits(store, one))
    first = tasks.load(one.recipe.task).validation.texts[0]
    said = shown("keep-predict-export.md", folder, old0='"a good film"', new0=repr(first))
    assert said == names[int(found[0].argmax())]
    # The tensors that transformers loads, in its own order, are those that were hashed.
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    values = b"".join(value.detach().numpy().tobytes() for value in loaded.parameters())
    assert hashlib.sha256(values).hexdigest() == digest(store, one)
    kept = saved.weights(store, one.id)
    assert list(kept) == [name for name, _ in loaded.named_parameters()]
    assert all(np.array_equal(kept[name], value.detach().numpy()) for name, value in loaded.named_parameters())


@pytest.mark.parametrize("fields", [{}, {"token_type_ids": True}, {"method": "head"}, {"method": "bitfit"}])
def test_pairs_are_read_as_in_training(fields: dict[str, object], trial: Make, pairs: TaskSpec, tmp_path: Path) -> None:
    one = trial(task=pairs, lr=1e-2, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    found, names = piped(store.folder / "models" / one.id, pairs)
    assert names == ["one", "two", "zero"]
    assert_same(found, logits(store, one))
    values = b"".join(value.tobytes() for value in saved.weights(store, one.id).values())
    assert hashlib.sha256(values).hexdigest() == digest(store, one)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_regression_is_kept_with_one_output(
    kind: str, build: Build, trial: Make, numbers: TaskSpec, tmp_path: Path
) -> None:
    one = trial(task=numbers, model=ModelSpec(name=kind, folder=str(build(kind))))
    store = trained(sweep_of(one), tmp_path / "kept")
    found, _ = piped(store.folder / "models" / one.id, numbers)
    assert found.shape == (20, 1)
    assert_same(found, logits(store, one)[:, :1])
    kept = saved.weights(store, one.id)
    assert hashlib.sha256(b"".join(v.tobytes() for v in kept.values())).hexdigest() == digest(store, one)
    assert next(reversed(kept.values())).shape == (2,)  # as trained, with the output that nothing reads


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("bert", {"method": "lora", "lora_rank": 4, "lora_alpha": 3.0}),
        ("roberta", {"method": "lora", "lora_rank": 1, "lora_targets": "dense"}),
        ("distilbert", {"method": "lora"}),
        ("gpt2", {"method": "lora", "lora_rank": 2}),
        ("bert", {"method": "ia3"}),
        ("gpt2", {"method": "ia3"}),
    ],
)
def test_peft_loads_an_adapter_and_gives_the_records_logits(
    kind: str, fields: dict[str, object], build: Build, trial: Make, tmp_path: Path
) -> None:
    import peft  # in seconds, which other processes of the tests need not spend

    place = build(kind)
    one = trial(model=ModelSpec(name=kind, folder=str(place)), lr=1e-2, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    config = peft.PeftConfig.from_pretrained(folder)
    assert config.base_model_name_or_path == str(place)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(config.base_model_name_or_path, num_labels=2)
    base.config.pad_token_id = 0
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, padding_side="right")
    texts = list(tasks.load(one.recipe.task).validation.texts)
    given = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        assert_same(model(**given).logits.numpy(), logits(store, one))
    values = saved.weights(store, one.id).values()
    assert hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest() == digest(store, one)


ADAPTERS = [{"method": "lora", "lora_rank": 4}, {"method": "ia3"}]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("fields", ADAPTERS)
def test_an_adapters_folder_alone_answers_with_the_tasks_labels(
    fields: dict[str, object], trial: Make, pairs: TaskSpec, tmp_path: Path
) -> None:
    import peft  # in seconds, which other processes of the tests need not spend

    one = trial(task=pairs, lr=1e-2, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    found, names = piped(folder, pairs)
    assert names == ["one", "two", "zero"]
    assert_same(found, logits(store, one))
    # By peft too: the folder's configuration says how many labels there are, and which.
    config = transformers.AutoConfig.from_pretrained(folder)
    place = peft.PeftConfig.from_pretrained(folder).base_model_name_or_path
    base = transformers.AutoModelForSequenceClassification.from_pretrained(place, config=config)
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=str(folder))
    rows = tasks.load(pairs).validation
    assert rows.pairs is not None
    given = [{"text": a, "text_pair": b} for a, b in zip(rows.texts, rows.pairs, strict=True)]
    answers = [answer["label"] for answer in pipe(given)]
    assert answers == [names[k] for k in logits(store, one).argmax(axis=1)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("fields", ADAPTERS)
def test_an_adapters_regression_is_put_through_no_sigmoid(
    fields: dict[str, object], trial: Make, numbers: TaskSpec, tmp_path: Path
) -> None:
    one = trial(task=numbers, lr=5e-2, epochs=4, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    pipe = transformers.pipeline("text-classification", model=str(folder))
    assert pipe.model.config.problem_type == "regression"
    answers = np.array([answer["score"] for answer in pipe(list(tasks.load(numbers).validation.texts))])
    assert_same(answers[:, None], logits(store, one)[:, :1])


def test_an_adapter_holds_links_and_not_the_base(build: Build, trial: Make, tmp_path: Path) -> None:
    place = build("bert")
    one = trial(model=ModelSpec(name="bert", folder=str(place)), method="lora")
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    linked = [path.name for path in folder.iterdir() if path.is_symlink()]
    assert linked == ["model.safetensors"]
    assert (folder / "model.safetensors").resolve() == (place / "model.safetensors").resolve()
    assert (
        sum(path.lstat().st_size for path in folder.glob("*.safetensors"))
        < (place / "model.safetensors").stat().st_size
    )
    elsewhere = tmp_path / "copied"
    shutil.copytree(folder, elsewhere)  # as people hand it on: with the base
    place.rename(tmp_path / "gone")
    assert transformers.pipeline("text-classification", model=str(elsewhere)).model.config.id2label == {
        0: "no",
        1: "yes",
    }


# ------------------------------------------------------------------------------------------------------------- words


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("fields", [{}, *ADAPTERS])
def test_a_token_tasks_model_is_loaded_by_its_pipeline(
    fields: dict[str, object], trial: Make, tagged: TaskSpec, tmp_path: Path
) -> None:
    one = trial(task=tagged, lr=2e-2, epochs=6, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    names = ("O", "B-COLOUR", "I-COLOUR", "B-TIME", "I-TIME")
    assert saved.read_card(folder).label_names == names
    rows = tasks.load(tagged).validation
    kept, found = logits(store, one), []
    pipe = transformers.pipeline("token-classification", model=str(folder), ignore_labels=[])
    for text in rows.texts:
        found += [(answer["word"], answer["entity"], answer["score"]) for answer in pipe(text)]
    # The tokenizer of these tests has a token a word.
    assert rows.words is not None
    assert [word for word, _, _ in found] == [word for words in rows.words for word in words]
    assert [name for _, name, _ in found] == [names[k] for k in kept.argmax(axis=1)]
    powers = np.exp(kept - kept.max(axis=1, keepdims=True))
    np.testing.assert_allclose([s for *_, s in found], (powers / powers.sum(axis=1, keepdims=True)).max(axis=1), 1e-4)
    values = b"".join(value.tobytes() for value in saved.weights(store, one.id).values())
    assert hashlib.sha256(values).hexdigest() == digest(store, one)


@pytest.mark.parametrize(
    "fields", [{"method": "prefix"}, {"method": "prompt", "virtual_tokens": 4}, {"method": "adapter"}]
)
def test_other_methods_keep_what_they_trained(fields: dict[str, object], trial: Make, tmp_path: Path) -> None:
    one = trial(lr=1e-2, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    folder = store.folder / "models" / one.id
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "harness.json", "tokenizer.json", "tokenizer_config.json", "trained.safetensors",
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "no", "1": "yes"}
    card = json.loads((folder / "harness.json").read_text())
    own = safetensors.numpy.load_file(folder / "trained.safetensors")
    values = b"".join(own[part["name"]].tobytes() for part in card["parts"])
    assert hashlib.sha256(values).hexdigest() == digest(store, one)
    assert {"classifier.weight", "classifier.bias"} < set(own)


# -------------------------------------------------------------------------------------------- which of them lie there


def test_keeping_changes_no_result_and_keeps_what_was_asked_for(tiny_sweep: Sweep, tmp_path: Path) -> None:
    plain = trained(tiny_sweep, tmp_path / "plain", Options(in_process=True))
    assert not (plain.folder / "models").exists()
    every = trained(tiny_sweep, tmp_path / "all", replace(ALL, pack=4))
    assert models(every) == sorted(trial.id for trial in expand(tiny_sweep))
    best = trained(tiny_sweep, tmp_path / "best", replace(BEST, pack=2))
    assert content(plain) == content(every) == content(best)
    wanted = []
    for cell in (0, 1):
        scores = {}
        for trial in expand(tiny_sweep):
            record = plain.load(trial.id)
            assert record is not None
            assert record.measured is not None
            if trial.cell == cell:
                scores[trial.id] = record.measured.final_score
        wanted.append(max(scores, key=lambda one: scores[one] or -1.0))  # the first of equals
    assert models(best) == sorted(wanted)
    for one in wanted:
        for path in (best.folder / "models" / one).glob("*.safetensors"):
            assert path.read_bytes() == (every.folder / "models" / one / path.name).read_bytes()


def test_the_best_is_overtaken_as_trials_finish_and_all_else_stays(trial: Make, tmp_path: Path) -> None:
    every = trained(sweep_of(*(trial(seed, lr=2e-2, epochs=4) for seed in range(1, 9))), tmp_path / "all")
    scores: dict[Trial, float] = {}
    for path in every.trials.glob("*.json"):
        record = every.load(path.stem)
        assert record is not None
        assert record.measured is not None
        scores[record.trial] = record.measured.final_score or 0.0
    worst, *_, better, best = sorted(scores, key=lambda one: (scores[one], one.seeds.seed))
    assert scores[worst] < scores[best]
    seeds = [worst, better, best, next(one for one in scores if one not in (worst, better, best))]
    sweep, store, leaders = sweep_of(*seeds), Store(tmp_path / "best"), []
    for number in range(1, len(seeds) + 1):
        driver.run(sweep, store, replace(BEST, max_trials=1), quiet)
        assert len(models(store)) == 1
        leaders += models(store)
        assert leaders[-1] == max(seeds[:number], key=lambda one: scores[one]).id
    assert len(set(leaders)) > 1
    # One that was asked for by its id is nobody's to remove.
    with driver.keeping_one(sweep, store) as shelf:
        found = rerun.rerun(sweep, store, seeds[0], 0.0, keeping=shelf.keeping)
        shelf.publish([found.again])
    driver.run(sweep_of(*seeds, trial(9, lr=2e-2, epochs=4)), store, BEST, quiet)
    assert seeds[0].id in models(store)
    assert saved.kept(store)[seeds[0].id].kept_as == "rerun"


def test_where_every_run_fails_one_is_kept_all_the_same(trial: Make, tmp_path: Path) -> None:
    runs = [trial(seed, lr=1e30, epochs=1) for seed in (1, 2)]
    store = trained(sweep_of(*runs), tmp_path / "kept", BEST)
    record = store.load(runs[0].id)
    assert record is not None
    assert record.measured is not None
    assert record.measured.final_score is None
    assert models(store) == [runs[0].id]


def test_what_was_trained_without_is_named_and_a_rerun_keeps_it(tiny_sweep: Sweep, tmp_path: Path) -> None:
    store = trained(tiny_sweep, tmp_path / "kept", Options(in_process=True))
    assert driver.run(tiny_sweep, store, ALL, quiet).trained_now == 0
    ids = tuple(trial.id for trial in expand(tiny_sweep))
    assert keep_weights.unkept(tiny_sweep, store, "all") == ids
    assert len(keep_weights.unkept(tiny_sweep, store, "best")) == 2
    assert keep_weights.unkept(tiny_sweep, store, "none") == ()
    with pytest.raises(HarnessError, match=f"--trial {ids[4]} --keep"):
        saved.weights(store, ids[4])
    one = expand(tiny_sweep)[4]
    with driver.keeping_one(tiny_sweep, store) as shelf:
        found = rerun.rerun(tiny_sweep, store, one, 0.0, keeping=shelf.keeping)
        assert found.verdict == "identical"
        shelf.publish([found.again])
    assert models(store) == [one.id]
    assert hashlib.sha256(b"".join(v.tobytes() for v in saved.weights(store, one.id).values())).hexdigest() == digest(
        store, one
    )
    assert one.id not in keep_weights.unkept(tiny_sweep, store, "all")


# ----------------------------------------------------------------------------------------------- kills, disks, nodes


def test_a_driver_killed_while_it_keeps_leaves_nothing_half(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two of the steps that write: the same command goes on to the same folders and records."""
    whole = trained(tiny_sweep, tmp_path / "whole", replace(ALL, pack=3))

    class Killed(BaseException):
        pass

    for number, step in enumerate(("_finish", "_replace", "save", "after")):
        store = Store(tmp_path / f"killed{number}")
        with monkeypatch.context() as patch:

            def die(*words: object, **more: object) -> None:
                raise Killed

            patch.setattr(keep_weights.Shelf, "close", lambda shelf: None)  # a kill closes nothing
            if step == "_finish":
                patch.setattr(keep_weights.Shelf, "_finish", die)
            elif step == "_replace":
                patch.setattr(keep_weights, "_replace", die)
            elif step == "save":
                patch.setattr(recorder, "save", die)
            else:
                patch.setattr(keep_weights.Shelf, "settle", die)
            with pytest.raises(Killed):
                driver.run(tiny_sweep, store, replace(ALL, pack=3), quiet)
        ended = driver.run(tiny_sweep, store, replace(ALL, pack=3), quiet)
        assert ended.left == 0
        assert content(store) == content(whole)
        lacking = keep_weights.unkept(tiny_sweep, store, "all")
        assert not lacking
        assert models(store) == models(whole)
        for one in models(store):
            saved.tensors(store.folder / "models" / one)


def test_a_full_disk_is_one_line_no_crash_and_the_same_command_goes_on(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "kept")
    real = os.fsync

    def full(number: int) -> None:
        if "staged" in os.readlink(f"/proc/self/fd/{number}") and len(models(store)) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match=r"models/\..*staged \(No space left on device\)") as error:
            driver.run(tiny_sweep, store, replace(ALL, pack=3), quiet)
    assert "\n" not in str(error.value)
    assert len(content(store)) == 3
    assert len(models(store)) == 3
    ended = driver.run(tiny_sweep, store, replace(ALL, pack=3), quiet)
    assert (ended.left, ended.crashed, len(models(store))) == (0, 0, 6)


def test_weights_come_back_from_a_node_without_the_folder(
    trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = trial(1, method="lora"), trial(2, method="lora")
    sweep = sweep_of(one, other)
    store = trained(sweep, tmp_path / "here")
    there = keep_weights.Shelf(Store(tmp_path / "there"), sweep, {}, "all")
    away = replace(there.keeping, marker=".driver-of-another-machine")
    results, sent = RayWorker(WorkerSetup("cpu", 1, keeping=away), 1).train("kept", "default", [one, other], {})
    assert list(sent) == [one.id, other.id]
    assert [path.name for path in there.folder.iterdir()] == [there.keeping.marker]
    there.keeping.receive(sent)
    there.publish([record for record, _ in results])
    there.close()
    for name in (one.id, other.id):
        here = {path.name: path.read_bytes() for path in (store.folder / "models" / name).iterdir()}
        assert here == {path.name: path.read_bytes() for path in (there.folder / name).iterdir()}
    # On the driver's own machine nothing travels.
    shelf = keep_weights.Shelf(Store(tmp_path / "same"), sweep, {}, "all")
    assert RayWorker(WorkerSetup("cpu", 1, keeping=shelf.keeping), 1).train("kept", "default", [one], {})[1] == {}
    assert (shelf.folder / f".{one.id}.staged").is_dir()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnkeptError, match="No space left"):
        shelf.keeping.receive(sent)


def test_of_a_pack_only_what_may_be_best_is_left() -> None:
    best, every = Keeping(Path(), "best", ""), Keeping(Path(), "all", "")
    pack = [(0, 0.5), (1, None), (0, 0.7), (1, 0.1), (0, 0.7), (2, None), (2, None)]
    assert best.chosen(pack) == [2, 3, 5]
    assert every.chosen(pack) == list(range(7))
    assert replace(every, which="rerun").chosen(pack[:3]) == [0]


def test_weights_that_were_changed_are_refused(trial: Make, tmp_path: Path) -> None:
    one = trial(method="head", epochs=1)
    store = trained(sweep_of(one), tmp_path / "kept")
    path = store.folder / "models" / one.id / "model.safetensors"
    whole = path.read_bytes()
    assert verify.check(sweep_of(one), store).problems == ()
    values = safetensors.numpy.load_file(path)
    values["classifier.bias"] = values["classifier.bias"] + np.float32(1)
    safetensors.numpy.save_file(values, path)
    with pytest.raises(HarnessError, match="other bits"):
        saved.weights(store, one.id)
    (found,) = verify.check(sweep_of(one), store).problems
    assert (found.trial, found.file, found.rule) == (one.id, f"models/{one.id}", "kept weights")
    assert "other bits than were trained" in found.found
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(HarnessError, match="a FIFO, not a regular file"):
        saved.weights(store, one.id)
    path.unlink()
    path.write_bytes(whole[:100])
    with pytest.raises(HarnessError, match="are not those of their trial's record"):
        saved.weights(store, one.id)
    (path.parent / "harness.json").unlink()
    with pytest.raises(HarnessError, match="are not saved in"):
        saved.weights(store, one.id)


@pytest.mark.parametrize("edited", [{"label_names": ["b", "a"]}, {"outcome": "another"}, {"final_score": 0.999}])
def test_what_a_kept_model_says_of_itself_is_held_to_the_record(
    trial: Make, tmp_path: Path, edited: dict[str, object]
) -> None:
    """Its names of labels are what `harness predict` answers."""
    one = trial(method="head", epochs=1)
    store = trained(sweep_of(one), tmp_path / "kept")
    path = store.folder / "models" / one.id / "harness.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edited))
    (found,) = verify.check(sweep_of(one), store).problems
    assert (found.trial, found.rule) == (one.id, "kept weights")
    assert next(iter(edited)).split("_")[-1] in found.found
