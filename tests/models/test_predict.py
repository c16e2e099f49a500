"""Kept models asked: the record's answers, in the file's order, in memory that a longer file doesn't grow."""

import csv
import errno
import io
import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from kept_runs import logits, sweep_of, trained

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.config.recipe import TaskSpec
from harness.config.trials import Trial
from harness.data import tasks, text_files
from harness.data.text_files import Line
from harness.execution.verification import verify
from harness.models import predict, pretrained, saved
from harness.models.predict import PredictionOptions, Served
from harness.records.store import Store

Make = Callable[..., Trial]
pytestmark = pytest.mark.usefixtures("cpu_only")


def folder(store: Store, trial: Trial) -> Path:
    return saved.place(store, trial.id)


def lines(task: TaskSpec) -> list[Line]:
    rows = tasks.load(task).validation
    seconds: Sequence[str | None] = rows.pairs or [None] * len(rows.texts)
    return [Line(n, a, b, None) for n, (a, b) in enumerate(zip(rows.texts, seconds, strict=True), 2)]


def softmax(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = torch.softmax(torch.from_numpy(values).double(), dim=-1).numpy()
    return found


def dev(task: TaskSpec) -> Path:
    """The dev file of a task, whose rows stand in the order of the record's logits."""
    found = text_files.files_of(task)
    assert found is not None
    return found["validation"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def five(trial: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trial], Store]:
    """Five kept seeds of a cell that learn unlike each other."""
    runs = [trial(seed, lr=2e-2, epochs=4) for seed in (1, 2, 3, 5, 6)]
    return runs, trained(sweep_of(*runs), tmp_path_factory.mktemp("five") / "five")


# ------------------------------------------------------------------------------------------------------ the answers


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"token_type_ids": True}, {"method": "bitfit"}, {"method": "lora", "lora_rank": 1}, {"method": "ia3"},
        {"method": "prefix"}, {"method": "prompt", "virtual_tokens": 4}, {"method": "adapter"},
    ],
)  # fmt: skip
def test_every_kept_model_gives_the_records_logits(
    fields: dict[str, object],
    trial: Make,
    pairs: TaskSpec,
    tmp_path: Path,
) -> None:
    one = trial(task=pairs, lr=1e-2, **fields)
    store = trained(sweep_of(one), tmp_path / "kept")
    found = Served(folder(store, one)).logits(lines(pairs), batch_size=5)
    np.testing.assert_allclose(found, logits(store, one), rtol=1e-4, atol=1e-5)


def test_labels_and_confidences_stand_in_the_files_order_in_every_format(
    five: tuple[list[Trial], Store], tmp_path: Path
) -> None:
    runs, store = five
    kept = logits(store, runs[0])
    wanted = [("no", "yes")[k] for k in kept.argmax(axis=1)]
    sure = softmax(kept).max(axis=1)
    assert len(set(wanted)) == 2
    with dev(runs[0].recipe.task).open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    sources = {"a.tsv": dev(runs[0].recipe.task).read_text()}
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([["label", "text"], *([row["label"], row["text"]] for row in rows)])
    sources["a.csv"] = table.getvalue() + "\n"
    sources["a.jsonl"] = "".join(json.dumps({"text": row["text"], "more": 1}) + "\n" for row in rows)
    for name, content in sources.items():
        (tmp_path / name).write_text(content)
        out = tmp_path / f"out{Path(name).suffix}"
        found = predict.run(PredictionOptions((folder(store, runs[0]),), tmp_path / name, out, batch_size=7))
        assert found.rows == len(rows)
        if name == "a.jsonl":
            answers = [json.loads(line) for line in out.read_text().splitlines()]
            assert found.score is None
        else:
            with out.open(newline="") as stream:
                answers = list(csv.DictReader(stream, delimiter="\t" if name == "a.tsv" else ","))
            record = store.load(runs[0].id)
            assert record is not None
            assert record.measured is not None
            assert found.score == record.measured.final_score
        assert [answer["label"] for answer in answers] == wanted
        np.testing.assert_allclose([float(answer["confidence"]) for answer in answers], sure, atol=2e-6)
        assert list(answers[0]) == ["label", "confidence"]


def test_an_ensemble_is_the_mean_of_probabilities(five: tuple[list[Trial], Store], tmp_path: Path) -> None:
    runs, store = five
    values = softmax(np.stack([logits(store, one) for one in runs]))  # [K, N, C]
    mean, votes = values.mean(axis=0), values.argmax(axis=2)
    file, out = dev(runs[0].recipe.task), tmp_path / "out.tsv"
    found = predict.run(PredictionOptions(tuple(folder(store, one) for one in runs), file, out))
    answers = read(out)
    answer = mean.argmax(axis=1)
    assert [row["label"] for row in answers] == [("no", "yes")[k] for k in answer]
    np.testing.assert_allclose([float(row["confidence"]) for row in answers], mean.max(axis=1), atol=2e-6)
    assert [float(row["agreement"]) for row in answers] == [float((votes[:, n] == answer[n]).mean()) for n in range(30)]
    assert found.disagreeing == np.mean([len(set(votes[:, n])) > 1 for n in range(30)])
    assert found.disagreeing > 0
    labels = tasks.load(runs[0].recipe.task).validation.labels
    scores = [float((one == labels).mean()) for one in votes]
    assert found.members == pytest.approx(scores)
    assert found.score == pytest.approx((answer == labels).mean())
    assert predict.gain(found) == pytest.approx(float((answer == labels).mean()) - sum(scores) / 5)


def test_adapters_are_served_on_one_base(trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [trial(seed, method="lora", lr=2e-2) for seed in (1, 2, 3)]
    store = trained(sweep_of(*runs), tmp_path / "kept")
    pretrained._networks.cache_clear()
    loaded: list[object] = []
    real = pretrained._pretrained
    monkeypatch.setattr(pretrained, "_pretrained", lambda *words: (loaded.append(words), real(*words))[1])
    served = [Served(folder(store, one)) for one in runs]
    assert len(loaded) == 1
    assert len({id(one.module) for one in served}) == 1
    for one, model in zip(runs, served, strict=True):  # in turns, none leaves anything in the base
        found = model.logits(lines(one.recipe.task), 64)
        np.testing.assert_allclose(found, logits(store, one), rtol=1e-4, atol=1e-5)
    assert not np.allclose(logits(store, runs[0]), logits(store, runs[1]))


def test_a_regression_gives_numbers(trial: Make, numbers: TaskSpec, tmp_path: Path) -> None:
    runs = [trial(seed, task=numbers, lr=1e-2) for seed in (1, 2)]
    store = trained(sweep_of(*runs), tmp_path / "kept")
    out = tmp_path / "out.tsv"
    alone = predict.run(PredictionOptions((folder(store, runs[0]),), dev(numbers), out))
    values = np.stack([logits(store, one)[:, 0] for one in runs])
    assert list(read(out)[0]) == ["number"]
    np.testing.assert_allclose([float(row["number"]) for row in read(out)], values[0], rtol=1e-4, atol=1e-5)
    labels = tasks.load(numbers).validation.labels
    assert alone.score == pytest.approx(metrics.score("pearson", values[:1].T, labels).value, abs=1e-4)
    both = predict.run(PredictionOptions(tuple(folder(store, one) for one in runs), dev(numbers), out))
    np.testing.assert_allclose([float(row["number"]) for row in read(out)], values.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        [float(row["sd"]) for row in read(out)], values.std(axis=0, ddof=1), rtol=1e-2, atol=1e-5
    )
    assert len(both.members) == 2
    assert both.disagreeing is None


# --------------------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize("members", [1, 3])
def test_the_probability_of_each_class_is_the_softmax(
    five: tuple[list[Trial], Store], tmp_path: Path, suffix: str, members: int
) -> None:
    runs, store = five
    runs = runs[:members]
    wanted = softmax(np.stack([logits(store, one) for one in runs])).mean(axis=0)
    out = tmp_path / f"out{suffix}"
    folders = tuple(folder(store, one) for one in runs)
    predict.run(PredictionOptions(folders, dev(runs[0].recipe.task), out, probabilities=True))
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [list(row["probabilities"]) for row in rows] == [["no", "yes"]] * 30
        found = np.array([list(row["probabilities"].values()) for row in rows])
    else:
        with out.open(newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if suffix == ".tsv" else ","))
        assert list(rows[0])[-2:] == ["probability_no", "probability_yes"]
        found = np.array([[float(row["probability_no"]), float(row["probability_yes"])] for row in rows])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    sure = np.array([float(row["confidence"]) for row in rows])
    assert np.array_equal(sure, found.max(axis=1))  # with all its digits, not six of them
    assert ("agreement" in rows[0]) == (members > 1)


def test_a_text_longer_than_the_model_reads_is_cut_there(five: tuple[list[Trial], Store], tmp_path: Path) -> None:
    runs, store = five
    (tmp_path / "a.tsv").write_text("text\n" + "good " * 50 + "\n" + "good " * 30 + "bad\n" + "good " * 30 + "\n")
    assert runs[0].recipe.max_length > 32  # and the model has 32 positions
    predict.run(PredictionOptions((folder(store, runs[0]),), tmp_path / "a.tsv", tmp_path / "out.tsv"))
    assert len({row["confidence"] for row in read(tmp_path / "out.tsv")}) == 1


def test_a_regression_has_no_probabilities(trial: Make, numbers: TaskSpec, tmp_path: Path) -> None:
    one = trial(task=numbers, lr=1e-2)
    store = trained(sweep_of(one), tmp_path / "kept")
    out = tmp_path / "out.tsv"
    with pytest.raises(HarnessError, match=r"--probabilities requires a task with classes .got numbers, a regression"):
        predict.run(PredictionOptions((folder(store, one),), dev(numbers), out, probabilities=True))
    assert not out.exists()
    predict.run(PredictionOptions((folder(store, one),), dev(numbers), out))
    found = np.array([float(row["number"]) for row in read(out)], dtype=np.float32)
    model = Served(folder(store, one))
    kept = np.concatenate([model.logits([line], 1)[:, 0] for line in lines(numbers)])
    np.testing.assert_allclose(found, kept, rtol=1e-5)
    assert len(set(found)) > len({f"{value:.6g}" for value in found}) / 2


# ------------------------------------------------------------------------------------------------------------ words


@pytest.fixture(scope="module")
def three(trial: Make, tagged: TaskSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trial], Store]:
    """Three kept seeds of a token task; the last is LoRA's, as a cell of its own."""
    runs = [trial(seed, task=tagged, lr=2e-2, epochs=6) for seed in (1, 2)]
    runs.append(trial(1, task=tagged, lr=2e-2, epochs=3, method="lora"))
    return runs, trained(sweep_of(*runs), tmp_path_factory.mktemp("three") / "three")


def words_of(task: TaskSpec) -> list[tuple[str, ...]]:
    found = tasks.load(task).validation.words
    assert found is not None
    return list(found)


def test_every_word_is_answered_as_the_record_has_it(three: tuple[list[Trial], Store], tmp_path: Path) -> None:
    runs, store = three
    task, out = runs[0].recipe.task, tmp_path / "out.tsv"
    sentences = words_of(task)
    for one in (runs[0], runs[2]):
        kept = logits(store, one)
        record = store.load(one.id)
        assert record is not None
        assert record.measured is not None
        found = predict.run(PredictionOptions((folder(store, one),), dev(task), out, batch_size=3, probabilities=True))
        assert (found.rows, found.metric, found.score) == (20, "f1_entity", record.measured.final_score)
        rows = read(out)
        assert [row["word"] for row in rows] == [word for words in sentences for word in words]
        assert [int(row["sentence"]) for row in rows] == [n for n, w in enumerate(sentences, 1) for _ in w]
        names = ("O", "B-COLOUR", "I-COLOUR", "B-TIME", "I-TIME")
        assert [row["label"] for row in rows] == [names[k] for k in kept.argmax(axis=1)]
        shares = np.array([[float(row[f"probability_{name}"]) for name in names] for row in rows])
        np.testing.assert_allclose(shares, softmax(kept), rtol=1e-3, atol=1e-6)


def test_words_without_tags_and_several_models(three: tuple[list[Trial], Store], tmp_path: Path) -> None:
    runs, store = three
    task = runs[0].recipe.task
    sentences = words_of(task)
    folders = tuple(folder(store, one) for one in runs[:2])
    sources = {
        "bare.txt": "\n\n".join("\n".join(words) for words in sentences) + "\n",
        "bare.jsonl": "".join(json.dumps({"words": words}) + "\n" for words in sentences),
    }
    wanted = softmax(np.stack([logits(store, one) for one in runs[:2]])).mean(axis=0).argmax(axis=1)
    for name, content in sources.items():
        (tmp_path / name).write_text(content)
        out = tmp_path / "out.jsonl"
        found = predict.run(PredictionOptions(folders, tmp_path / name, out))
        assert (found.rows, found.score, found.unscored) == (20, None, None)
        assert found.disagreeing is not None
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        assert [tuple(one["words"]) for one in answers] == sentences
        names = ("O", "B-COLOUR", "I-COLOUR", "B-TIME", "I-TIME")
        assert [tag for one in answers for tag in one["tags"]] == [names[k] for k in wanted]
        assert set(answers[0]) == {"words", "tags", "confidence", "agreement"}
    both = predict.run(PredictionOptions(folders, dev(task), out))
    measured = [record.measured for one in runs[:2] if (record := store.load(one.id))]
    assert list(both.members) == [one.final_score for one in measured if one]
    # What was written has tags as a task's files have them.
    again = predict.run(PredictionOptions(folders[:1], out, tmp_path / "again.jsonl"))
    assert again.score is not None


def test_words_that_are_cut_or_lack_a_tag_are_one_line(three: tuple[list[Trial], Store], tmp_path: Path) -> None:
    runs, store = three
    (tmp_path / "long.txt").write_text("a\nb\n\n" + "a\n" * 200)
    asked = PredictionOptions((folder(store, runs[0]),), tmp_path / "long.txt", tmp_path / "out.tsv")
    with pytest.raises(
        HarnessError, match=r"long.txt, line 4: only 30 of 200 words have a token within max_length 32; 1 sentence"
    ):
        predict.run(asked)
    assert not (tmp_path / "out.tsv").exists()
    (tmp_path / "long.txt").write_text("a\tO\nred\tB-COLOUR\n\nb\tB-OTHER\n")
    assert predict.run(asked).unscored == (
        "the file's label 'B-OTHER' is none of O, B-COLOUR, I-COLOUR, B-TIME, I-TIME"
    )
    (tmp_path / "long.txt").write_text("a\nb\n")
    with pytest.raises(HarnessError, match="A line is a word and its tag"):
        predict.run(replace(asked, label="1"))
    with pytest.raises(HarnessError, match=r"unknown file type '\.xls'"):
        predict.run(replace(asked, file=tmp_path / "long.xls"))


# --------------------------------------------------------------------------------------------------- files and memory


def test_columns_are_the_tasks_or_named_and_what_is_not_clean_is_one_line(
    five: tuple[list[Trial], Store], tmp_path: Path
) -> None:
    runs, store = five
    asked = PredictionOptions((folder(store, runs[0]),), tmp_path / "a.csv", tmp_path / "out.tsv")

    def refused(content: str | bytes, name: str = "a.csv", **more: object) -> str:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(HarnessError) as error:
            predict.run(replace(asked, **({"file": tmp_path / name} | more)))  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
        assert not asked.out or not asked.out.exists()
        return str(error.value)

    assert " for the text. Allowed: review" in refused("review\na\n")
    assert "Name it with --text" in refused("review\na\n")
    assert "has no column label for the label" in refused("text\na\n", label="label")
    assert "line 3" in refused("text\na\na,b\n")
    assert "wrong quotes" in refused('text\na\n"b\n')
    assert "byte 0xff" in refused(b"text\n\xff\n")
    assert "has no rows" in refused("")
    assert "not a JSON object" in refused('{"text": "a"}\nno\n', "a.jsonl")
    assert "no key text" in refused('{"text": "a"}\n{"txt": "a"}\n', "a.jsonl")
    assert "a blank line between rows" in refused("text\na\n\nb\n", "a.tsv")
    assert "unknown file type" in refused("a", "a.txt")
    assert "unknown file type" in refused("text\na\n", out=tmp_path / "out.xls")
    assert "no such" in refused("a", "a.csv", file=tmp_path / "b.csv").lower()
    (tmp_path / "a.csv").write_text('review,stars\ngood,yes\n" ",no\n"good\nold",maybe\n\n')
    found = predict.run(replace(asked, text="review"))
    assert (found.rows, found.score, found.unscored) == (3, None, None)
    found = predict.run(replace(asked, text="review", label="stars"))
    assert (found.score, found.unscored) == (None, "the file's label 'maybe' is none of no, yes")


def test_memory_does_not_grow_with_the_file(
    five: tuple[list[Trial], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the network, whose answers are made up here: ten times the rows, the same peak."""
    runs, store = five
    monkeypatch.setattr(predict, "_CHUNK", 500)

    def answer(model: Served, rows: Sequence[Line], batch_size: int, source: str) -> np.ndarray:
        values = [[int(row.text.split()[1]) % 2, 0.5] for row in rows]
        return np.array(values, dtype=np.float32)

    monkeypatch.setattr(Served, "logits", answer)
    peaks = []
    for count in (2_000, 20_000):
        file, out = tmp_path / f"{count}.tsv", tmp_path / "out.tsv"
        with file.open("w") as stream:
            stream.write("text\tlabel\n")
            stream.writelines(f"good {number} {'old ' * 20}\t{('yes', 'no')[number % 2]}\n" for number in range(count))
        folders = tuple(folder(store, one) for one in runs[:2])
        predict.run(PredictionOptions(folders, file, out))
        tracemalloc.start()
        found = predict.run(PredictionOptions(folders, file, out))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.rows, found.score) == (count, 1.0)
        assert [row["label"] for row in read(out)] == ["yes", "no"] * (count // 2)
    assert file.stat().st_size > 1.5 * peaks[1], "the file is to be larger than what is held of it"
    assert peaks[1] < 1.3 * peaks[0]


def test_a_full_disk_and_models_that_cannot_answer_are_one_line(
    five: tuple[list[Trial], Store], trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, store = five
    one = PredictionOptions((folder(store, runs[0]),), dev(runs[0].recipe.task), tmp_path / "out.tsv")
    with monkeypatch.context() as patch:

        def full(number: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match="no space left on device"):
            predict.run(one)
    assert not list(tmp_path.iterdir())
    lost = trial(lr=1e30, epochs=1)
    kept = trained(sweep_of(lost), tmp_path / "lost")
    with pytest.raises(HarnessError, match="lr1e30-bc-ep1-seed1-e48d5107 diverged: its weights are not finite"):
        predict.run(replace(one, folders=(folder(kept, lost),)))
    other = trial(method="lora")
    kept = trained(sweep_of(other), tmp_path / "lora")
    card = saved.read_card(folder(kept, other)).model_copy(update={"config_sha256": "0" * 64})
    (folder(kept, other) / "harness.json").write_text(card.model_dump_json())
    with pytest.raises(HarnessError, match=r"the config\.json of 'tiny-bert' is not that with which this adapter was"):
        predict.run(replace(one, folders=(folder(kept, other),)))
    card = card.model_copy(update={"model_sha256": "0" * 64})
    (folder(kept, other) / "harness.json").write_text(card.model_dump_json())
    with pytest.raises(HarnessError, match="are not those that this adapter was trained on"):
        predict.run(replace(one, folders=(folder(kept, other),)))
    renamed = card.model_copy(update={"label_names": ("a", "b")})
    (folder(kept, other) / "harness.json").write_text(renamed.model_dump_json())
    with pytest.raises(HarnessError, match="cannot predict together"):
        predict.run(replace(one, folders=(*one.folders, folder(kept, other))))


def _swap_words(model: Path) -> None:
    path = model / "tokenizer.json"
    path.write_text(path.read_text().replace('"good":', '"goods":').replace('"bad":', '"good":'))


def _set(model: Path, **fields: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _cut(model: Path) -> None:
    (path,) = model.glob("*model.safetensors")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def _other_run(model: Path) -> None:
    (path,) = model.glob("*model.safetensors")
    values = safetensors.numpy.load_file(path)
    name = min(values)
    safetensors.numpy.save_file({**values, name: values[name] + np.float32(1)}, path, {"format": "pt"})


def _fifo(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()
    os.mkfifo(model / "tokenizer_config.json")


@pytest.mark.parametrize("method", ["full", "bitfit"])
@pytest.mark.parametrize(
    ("damage", "said", "early"),
    [
        (_cut, "are not those of their trial's record", True),
        (_other_run, "other bits than were trained|model.safetensors was changed", True),
        (lambda model: _set(model, num_hidden_layers=1), "config.json was changed", True),
        (lambda model: _set(model, max_position_embeddings=8), "config.json was changed", True),
        (lambda model: _set(model, layer_norm_eps=0.1), "config.json was changed", False),
        (_swap_words, "tokenizer.json was changed", False),
        (_fifo, "tokenizer_config.json can't be read .a FIFO, not a regular file", False),
        (lambda model: (model / "tokenizer.json").unlink(), "tokenizer.json can't be read .no such file", False),
    ],
)
def test_a_saved_model_that_was_changed_answers_nothing(
    method: str,
    damage: Callable[[Path], None],
    said: str,
    early: bool,
    trial: Make,
    tmp_path: Path,
) -> None:
    one = trial(epochs=1, method=method)
    store = trained(sweep_of(one), tmp_path / "kept")
    model, asked = (
        folder(store, one),
        PredictionOptions((folder(store, one),), dev(one.recipe.task), tmp_path / "o.tsv"),
    )
    assert verify.check(sweep_of(one), store).problems == ()
    predict.run(asked)
    (tmp_path / "o.tsv").unlink()
    damage(model)
    with pytest.raises(HarnessError, match=said):
        predict.run(asked)
    assert [problem.rule for problem in verify.check(sweep_of(one), store).problems] == ["kept weights"]
    early_card = json.loads((model / "harness.json").read_text())
    del early_card["files"]  # an early model, whose card has its weights' hash alone
    (model / "harness.json").write_text(json.dumps(early_card))
    if early and method == "full":
        with pytest.raises(HarnessError, match=r"are not those of their trial's record|do not fit its config\.json"):
            predict.run(asked)
    assert not (tmp_path / "o.tsv").exists()


def test_a_trial_whose_weights_are_not_saved_says_how_to_save_them(tmp_path):
    folder = tmp_path / "mine@default" / "models" / "lr1e-3-seed1"
    (tmp_path / "mine@default" / "trials").mkdir(parents=True)
    (tmp_path / "mine@default" / "trials" / "lr1e-3-seed1.json").write_text("{}")
    with pytest.raises(
        HarnessError, match=r"not saved in .*`harness rerun .*mine@default --trial lr1e-3-seed1 --keep`"
    ):
        saved.read_card(folder)
