"""A model folder with something wrong is refused in one line before anything is trained, by plan and by sweep."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.models import model_files

WEIGHTS = "model.safetensors"


def cut(path: Path, keep: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def pickled(folder: Path, legacy: bool = False) -> Path:
    """The weights in torch's own format instead."""
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    (folder / WEIGHTS).unlink()
    return folder / "pytorch_model.bin"


def sharded(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    parts = {name: f"model-{number % 2 + 1}-of-2.safetensors" for number, name in enumerate(tensors)}
    for part in set(parts.values()):
        save_file({name: tensors[name] for name in tensors if parts[name] == part}, folder / part)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    (folder / WEIGHTS).unlink()


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


# What is done to a whole folder, and what the refusal says of it.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda folder: cut(folder / WEIGHTS), r"model\.safetensors: it has [\d,]+ of [\d,]+ bytes"),
    "cut in its header": (lambda folder: cut(folder / WEIGHTS, 0.01), "not a complete safetensors file"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "0 bytes, not a complete safetensors file"),
    "longer than it says": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"xyz"),
        r"bytes, but [\d,]+ by its header",
    ),
    "another file": (lambda folder: (folder / WEIGHTS).write_text("<html>" * 99), "not a complete safetensors file"),
    "a pointer": (
        lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a Git LFS pointer",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "it lacks weights"),
    "a folder for weights": (
        lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()),
        "it lacks weights",
    ),
    "torch's format cut short": (lambda folder: cut(pickled(folder)), "cut short or damaged"),
    "torch's format, no such": (lambda folder: pickled(folder).write_text("hello"), "not a torch file"),
    "a part missing": (
        lambda folder: (sharded(folder), (folder / "model-2-of-2.safetensors").unlink()),
        r"it lacks model-2-of-2\.safetensors, which model\.safetensors\.index\.json names",
    ),
    "a part cut short": (
        lambda folder: (sharded(folder), cut(folder / "model-1-of-2.safetensors")),
        r"model-1-of-2\.s",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "configuration cut short": (lambda folder: cut(folder / "config.json"), "not a JSON object"),
    "configuration empty": (lambda folder: (folder / "config.json").write_text(""), r"config\.json: the file is empty"),
    "no kind of model": (lambda folder: (folder / "config.json").write_text("{}"), "it has no model_type"),
    "no tokenizer": (without_tokenizer, "it lacks a tokenizer's files"),
    "tokenizer cut short": (lambda folder: cut(folder / "tokenizer.json"), r"tokenizer\.json: not a JSON object"),
}


@pytest.fixture
def copy(bert: ModelSpec, tmp_path: Path) -> ModelSpec:
    """A small model's folder of one's own, to be damaged."""
    folder = tmp_path / "model"
    shutil.copytree(str(bert.folder), folder)
    return ModelSpec(name="mine", folder=str(folder))


def line(spec: ModelSpec, look: Callable[[ModelSpec], None] = model_files.check) -> str:
    with pytest.raises(HarnessError) as caught:
        look(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused_without_reading_weights(copy: ModelSpec, damage: str) -> None:
    harm, said = DAMAGES[damage]
    model_files.check(copy)
    harm(Path(str(copy.folder)))
    found = line(copy)
    assert re.search(said, found), found
    assert "--set model.folder=DIR" in found


@pytest.mark.parametrize("shape", ["one file", "parts", "torch's", "torch's before 1.6"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(copy: ModelSpec, shape: str, value: float) -> None:
    folder, name = Path(str(copy.folder)), "encoder.layer.1.output.dense.weight"
    tensors = load_file(folder / WEIGHTS)
    tensors[name][3, 5] = value
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    if shape == "parts":
        sharded(folder)
    elif shape != "one file":
        pickled(folder, legacy=shape != "torch's")
    model_files.check(copy)
    word = "NaN" if np.isnan(value) else "infinity"
    assert f"the weights of 'mine' are not all finite: {word} (1 of 512 numbers) in {name} (" in line(
        copy, model_files.check_finite
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types(copy: ModelSpec, kind: torch.dtype) -> None:
    path = Path(str(copy.folder)) / WEIGHTS
    tensors = {name: value.to(kind) for name, value in load_file(path).items()}
    tensors["counts"] = torch.arange(3)
    save_file(tensors, path)
    model_files.check_finite(copy)
    tensors["embeddings.LayerNorm.bias"][:2] = torch.tensor([float("nan"), float("-inf")])
    save_file(tensors, path)
    found = line(copy, model_files.check_finite)
    assert "NaN and infinity (2 of 16 numbers) in embeddings.LayerNorm.bias" in found


def test_a_file_of_torchs_that_breaks_when_it_is_read(copy: ModelSpec) -> None:
    path = pickled(Path(str(copy.folder)), legacy=True)
    cut(path)
    model_files.check(copy)  # nothing at its end would tell
    assert "torch can't read it" in line(copy, model_files.check_finite)


def test_the_shipped_model_is_whole_and_finite() -> None:
    model_files.check(ModelSpec(name="embedded"))
    model_files.check_finite(ModelSpec(name="embedded"))
    model_files.check(ModelSpec(name="org/on-the-hub"))  # is told when it is loaded
