"""A share of the training file as the dev split: fixed, in proportion, without a text in both, and in the record."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import folder, spec

from harness.common.errors import HarnessError
from harness.config.recipe import TaskSpec
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.data import holdout, tasks

examples = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("xyz")), min_size=4, max_size=60)


@given(examples, st.floats(0.05, 0.6), st.integers(0, 3))
def test_no_text_in_both_and_classes_in_proportion(rows: list[tuple[str, str]], share: float, seed: int) -> None:
    keys, classes = [(text,) for text, _ in rows], [label for _, label in rows]
    try:
        dev = holdout.chosen(keys, classes, share, seed)
    except HarnessError:
        return
    assert 0 < len(dev) < len(rows)
    assert not {keys[place] for place in dev} & {keys[place] for place in range(len(keys)) if place not in dev}
    largest = max(Counter(keys).values())
    assert len(dev) <= round(share * len(rows)) + 3 * largest
    assert dev == holdout.chosen(keys, classes, share, seed)


def test_of_each_class_its_part() -> None:
    classes = ["a"] * 800 + ["b"] * 150 + ["c"] * 50
    keys = [(f"text {number}",) for number in range(1000)]
    dev = holdout.chosen(keys, classes, 0.1, 0)
    assert Counter(classes[place] for place in dev) == {"a": 80, "b": 15, "c": 5}
    assert sorted(dev)[:3] == [5, 22, 29]  # by the hash: the same on every machine, in every version
    assert dev != holdout.chosen(keys, classes, 0.1, 1)


TABLE = "text\tlabel\n" + "".join(f"film {number}\t{'good' if number % 4 else 'bad'}\n" for number in range(40))


@pytest.mark.parametrize("name", ["folder", "file"])
def test_a_training_file_alone(tmp_path: Path, name: str) -> None:
    files = folder(tmp_path, TABLE, TABLE)
    (files / "dev.tsv").unlink()
    where = files if name == "folder" else files / "train.tsv"
    with pytest.raises(HarnessError, match=r"task\.validation=0\.1"):
        tasks.load(spec(files=where))
    raw = tasks.load(spec(files=where, validation=0.2))
    assert (len(raw.train.texts), len(raw.validation.texts)) == (32, 8)
    assert Counter(raw.validation.labels.tolist()) == {0: 2, 1: 6}
    texts = dict(zip(raw.validation.numbers, raw.validation.texts, strict=True))
    assert all(text == f"film {line - 2}" for line, text in texts.items())  # the lines of the file
    assert not set(raw.train.texts) & set(raw.validation.texts)
    assert tasks.load(spec(files=where, validation=0.2, validation_seed=1)).sha256 != raw.sha256


def test_sentences_and_numbers_are_split_too(tmp_path: Path) -> None:
    tagged = "".join(f"word{number}\tB-X\nof\tO\n\n" for number in range(10))
    (tmp_path / "train.tsv").write_text(tagged)
    raw = tasks.load(spec(files=tmp_path, kind="tokens", validation=0.3))
    assert (len(raw.train.texts), len(raw.validation.texts)) == (7, 3)
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "".join(f"t{number}\t{number / 7}\n" for number in range(10)))
    raw = tasks.load(spec(files=tmp_path, metric="pearson", validation=0.3))
    assert (len(raw.train.texts), len(raw.validation.texts)) == (7, 3)


SWEEP = "task: {name: own, files: here}\nmodel: embedded\nlr: 1e-5\nepochs: 1\nseeds: 1\n"


def test_it_is_part_of_the_id_and_of_the_record_and_old_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(SWEEP)
    path = tmp_path / "own.yaml"
    plain, share, other = (
        expand(load(path, None, settings))[0]
        for settings in ([], ["task.validation=0.1"], ["task.validation=0.1", "task.validation_seed=7"])
    )
    assert plain.id == "lr1e-5-bc-ep1-seed1-a2582fe1"  # as it was before there was a share
    assert len({plain.id, share.id, other.id}) == 3
    kept = TaskSpec.model_validate_json(other.recipe.task.model_dump_json())
    assert (kept.validation, kept.validation_seed) == (0.1, 7)
    for setting, said in (("task=rte", "task.validation requires task.files"), ("task.files={train: x}", "dev split")):
        extra = ["task.validation=0.1"] if setting == "task=rte" else []
        with pytest.raises(HarnessError, match=said):
            load(path, None, [setting, *extra])
