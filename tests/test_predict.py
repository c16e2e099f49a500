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
import torch
from kept_runs import logits, sweep_of, trained

from harness import data_files, keeping, metrics, models, predict, tasks
from harness.data_files import Line
from harness.predict import Asked, Served
from harness.records import Store
from harness.sweep import HarnessError, TaskSpec, Trial

Make = Callable[..., Trial]
pytestmark = pytest.mark.usefixtures("cpu_only")


def folder(store: Store, trial: Trial) -> Path:
    return keeping.place(store, trial.id)


def lines(task: TaskSpec) -> list[Line]:
    rows = tasks.load(task).validation
    seconds: Sequence[str | None] = rows.pairs or [None] * len(rows.texts)
    return [Line(n, a, b, None) for n, (a, b) in enumerate(zip(rows.texts, seconds, strict=True), 2)]


def softmax(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = torch.softmax(torch.from_numpy(values).double(), dim=-1).numpy()
    return found


def dev(task: TaskSpec) -> Path:
    """The dev file of a task, whose rows stand in the order of the record's logits."""
    found = data_files.files_of(task)
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
        found = predict.run(Asked((folder(store, runs[0]),), tmp_path / name, out, batch_size=7))
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
    found = predict.run(Asked(tuple(folder(store, one) for one in runs), file, out))
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
    models._networks.cache_clear()
    loaded: list[object] = []
    real = models._pretrained
    monkeypatch.setattr(models, "_pretrained", lambda *words: (loaded.append(words), real(*words))[1])
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
    alone = predict.run(Asked((folder(store, runs[0]),), dev(numbers), out))
    values = np.stack([logits(store, one)[:, 0] for one in runs])
    assert list(read(out)[0]) == ["number"]
    np.testing.assert_allclose([float(row["number"]) for row in read(out)], values[0], rtol=1e-4, atol=1e-5)
    labels = tasks.load(numbers).validation.labels
    assert alone.score == pytest.approx(metrics.score("pearson", values[:1].T, labels).value, abs=1e-4)
    both = predict.run(Asked(tuple(folder(store, one) for one in runs), dev(numbers), out))
    np.testing.assert_allclose([float(row["number"]) for row in read(out)], values.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        [float(row["sd"]) for row in read(out)], values.std(axis=0, ddof=1), rtol=1e-2, atol=1e-5
    )
    assert len(both.members) == 2
    assert both.disagreeing is None


# --------------------------------------------------------------------------------------------------- files and memory


def test_columns_are_the_tasks_or_named_and_what_is_not_clean_is_one_line(
    five: tuple[list[Trial], Store], tmp_path: Path
) -> None:
    runs, store = five
    asked = Asked((folder(store, runs[0]),), tmp_path / "a.csv", tmp_path / "out.tsv")

    def refused(content: str | bytes, name: str = "a.csv", **more: object) -> str:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(HarnessError) as error:
            predict.run(replace(asked, **({"file": tmp_path / name} | more)))  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
        assert not asked.out or not asked.out.exists()
        return str(error.value)

    assert "the text column stands in the data" in refused("review\na\n")
    assert "name it with --text" in refused("review\na\n")
    assert "the label column stands" in refused("text\na\n", label="label")
    assert "line 3" in refused("text\na\na,b\n")
    assert "quotes are closed" in refused('text\na\n"b\n')
    assert "byte 0xff" in refused(b"text\n\xff\n")
    assert "a data file has rows" in refused("")
    assert "every line is a JSON object" in refused('{"text": "a"}\nno\n', "a.jsonl")
    assert "no such key" in refused('{"text": "a"}\n{"txt": "a"}\n', "a.jsonl")
    assert "only the last lines are blank" in refused("text\na\n\nb\n", "a.tsv")
    assert "told by its ending" in refused("a", "a.txt")
    assert "told by its ending" in refused("text\na\n", out=tmp_path / "out.xls")
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

    def answer(model: Served, rows: Sequence[Line], batch_size: int) -> np.ndarray:
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
        predict.run(Asked(folders, file, out))
        tracemalloc.start()
        found = predict.run(Asked(folders, file, out))
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
    one = Asked((folder(store, runs[0]),), dev(runs[0].recipe.task), tmp_path / "out.tsv")
    with monkeypatch.context() as patch:

        def full(number: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match="No space left on device"):
            predict.run(one)
    assert not list(tmp_path.iterdir())
    lost = trial(lr=1e30, epochs=1)
    kept = trained(sweep_of(lost), tmp_path / "lost")
    with pytest.raises(HarnessError, match="which diverged"):
        predict.run(replace(one, folders=(folder(kept, lost),)))
    other = trial(method="lora")
    kept = trained(sweep_of(other), tmp_path / "lora")
    card = keeping.read_card(folder(kept, other)).model_copy(update={"model_sha256": "0" * 64})
    (folder(kept, other) / "harness.json").write_text(card.model_dump_json())
    with pytest.raises(HarnessError, match="an adapter stands on the weights"):
        predict.run(replace(one, folders=(folder(kept, other),)))
    renamed = card.model_copy(update={"label_names": ("a", "b")})
    (folder(kept, other) / "harness.json").write_text(renamed.model_dump_json())
    with pytest.raises(HarnessError, match="learnt the same task"):
        predict.run(replace(one, folders=(*one.folders, folder(kept, other))))
