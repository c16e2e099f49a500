"""What the driver sends to workers on other machines, and what they make of it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, Recipe, Seeds, TaskFiles, TaskSpec, WordList
from harness.config.trials import Trial
from harness.data import augmentation, tasks
from harness.execution import shipping


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_trial_reads_elsewhere_what_it_would_read_here(trial: Callable[..., Trial]) -> None:
    planned = trial()
    specs = (planned.recipe.task, planned.recipe.model)
    folders = {}
    for spec in specs:
        files = shipping.files(spec)
        assert files is not None
        folders[spec] = shipping.unpacked(shipping.sha256(files), lambda files=files: files)  # type: ignore[misc]
    moved = shipping.moved(planned, folders)
    assert moved.id == planned.id
    assert moved.recipe.task.files != planned.recipe.task.files
    assert tasks.load(moved.recipe.task).sha256 == tasks.load(planned.recipe.task).sha256
    there, here = moved.recipe.model.folder, planned.recipe.model.folder
    assert there is not None
    assert here is not None
    assert {p.name: p.read_bytes() for p in Path(there).iterdir()} == {
        p.name: p.read_bytes() for p in Path(here).iterdir()
    }
    assert shipping.moved(planned, {}) == planned


def test_words_and_translators_go_with_a_trial(trial: Callable[..., Trial], tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("good\tfine\n")
    planned = trial(augment="synonyms", synonyms=WordList(name="mine", file=str(tmp_path / "words.tsv")))
    spec = planned.recipe.specs[2]
    files = shipping.files(spec)
    assert files is not None
    moved = shipping.moved(planned, {spec: shipping.unpacked(shipping.sha256(files), lambda: files)})
    (tmp_path / "words.tsv").unlink()
    assert moved.id == planned.id
    assert moved.recipe.synonyms is not None
    assert augmentation.read(moved.recipe.synonyms).of == {"good": ("fine",)}
    model = planned.recipe.model
    planned = trial(augment="backtranslate", translator=ModelSpec(name="there", folder=model.folder))
    moved = shipping.moved(planned, {planned.recipe.specs[2]: tmp_path})
    assert moved.recipe.translator == ModelSpec(name="there", folder=str(tmp_path))
    assert (moved.id, moved.recipe.model) == (planned.id, model)


def test_files_of_one_name_and_names_without_files(tmp_path: Path) -> None:
    for split in ("a", "b"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "data.csv").write_text(split)
    files = TaskFiles(train=str(tmp_path / "a" / "data.csv"), validation=str(tmp_path / "b" / "data.csv"))
    found = shipping.files(TaskSpec(name="own", files=files))
    assert found is not None
    assert {name: bytes(values) for name, values in found.items()} == {
        "train/data.csv": b"a",
        "validation/data.csv": b"b",
    }
    (tmp_path / "c.csv").write_text("c")
    spec = TaskSpec(name="own", files=files.model_copy(update={"test": str(tmp_path / "c.csv")}))
    sent = shipping.files(spec)
    assert sent is not None
    assert bytes(sent["test/c.csv"]) == b"c"
    recipe = Recipe(task=spec, model=ModelSpec(name="embedded"), lr=1.0, epochs=1)
    planned = Trial(recipe=recipe, seeds=Seeds(seed=1, init_seed=1, order_seed=1, dropout_seed=1), cell=0)
    there = shipping.moved(planned, {spec: shipping.unpacked(shipping.sha256(sent), lambda: sent)}).recipe.task.files
    assert there is not None
    assert {name: Path(path).read_text() for name, path in there.model_dump().items()} == {
        "train": "a", "validation": "b", "test": "c",
    }  # fmt: skip
    assert shipping.files(TaskSpec(name="embedded")) is None
    assert shipping.files(ModelSpec(name="bert-base-uncased")) is None


def test_of_a_models_weights_only_those_that_are_loaded_are_sent(tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "onnx").mkdir()
    spec = ModelSpec(name="own", folder=str(tmp_path))
    assert set(shipping.files(spec) or ()) == {"config.json", "pytorch_model.bin"}
    (tmp_path / "model.safetensors").write_bytes(b"y")
    assert set(shipping.files(spec) or ()) == {"config.json", "model.safetensors"}


def test_what_was_unpacked_is_fetched_once_and_again_where_it_was_changed(tmp_path: Path) -> None:
    files = {"one": np.frombuffer(b"1", np.uint8), "sub/two": np.frombuffer(b"", np.uint8)}
    fetched = []

    def fetch() -> shipping.Files:
        fetched.append(1)
        return files

    digest = shipping.sha256(files)
    folder = shipping.unpacked(digest, fetch)
    assert shipping.unpacked(digest, fetch) == folder
    assert len(fetched) == 1
    (folder / "one").write_bytes(b"2")
    assert (shipping.unpacked(digest, fetch) / "one").read_bytes() == b"1"
    (folder / "sub" / "two").unlink()
    shipping.unpacked(digest, fetch)
    assert len(fetched) == 3
    assert (folder / "sub" / "two").read_bytes() == b""
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([digest, f".{digest}.lock"])


def test_a_folder_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"harness-files-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(HarnessError, match="others own it or may write to it"):
        shipping.unpacked("0" * 64, dict)
