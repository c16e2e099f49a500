"""The package as it is installed: everything is in the wheel, and it works in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parents[1]
PACKAGED = ("harness/", "sweeps/", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, built from the tracked files alone."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\0"):
        if (
            name.startswith(("harness/", "sweeps/", "pyproject.toml", "README.md", "LICENSE"))
            and (ROOT / name).exists()
        ):
            copy = source / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                copy.symlink_to(os.readlink(ROOT / name))
            else:
                copy.write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    command = [sys.executable, "-c", build]
    made = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True).stdout.split()[-1]
    zipfile.ZipFile(source / made).extractall(target)
    return target


def harness_in(folder: Path, installed: Path, *words: str) -> str:
    """What `python -m harness` says with the installed package, in a folder."""
    command = [sys.executable, "-m", "harness", *words]
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    kinds = (".py", ".yaml", ".j2", ".typed", ".json", ".safetensors", ".txt", ".md")
    ours = [path for path in (ROOT / "harness").rglob("*") if path.suffix in kinds and "__pycache__" not in path.parts]
    lacking = [str(path.relative_to(ROOT)) for path in ours if not (installed / path.relative_to(ROOT)).is_file()]
    assert lacking == []
    shipped = {path.name for path in (installed / "harness" / "sweeps").iterdir()}
    assert shipped == {path.name for path in (ROOT / "sweeps").iterdir()}


def test_a_shipped_sweep_runs_in_an_empty_folder_and_its_results_land_there(installed: Path, tmp_path: Path) -> None:
    small = ("--set", "seeds=1", "--set", "lr=1e-4", "--set", "max_steps=2")
    said = harness_in(tmp_path, installed, "sweep", "smoke", "--in-process", *small)
    assert "2 of 2 trials finished" in said
    assert {path.name for path in tmp_path.iterdir()} == {"results"}
    assert (tmp_path / "results" / "smoke@embedded" / "report" / "index.html").is_file()
    assert len(list((tmp_path / "results" / "smoke@embedded" / "trials").glob("*.json"))) == 2


def test_a_new_sweep_is_written_and_planned(installed: Path, tmp_path: Path) -> None:
    said = harness_in(tmp_path, installed, "init", "reviews_lr")
    assert "Wrote sweeps/reviews_lr.yaml" in said
    assert "4 cells × 5 seeds = 20 trials" in harness_in(tmp_path, installed, "plan", "reviews_lr")
    assert "NAME" not in (tmp_path / "sweeps" / "reviews_lr.yaml").read_text()
    again = subprocess.run(
        [sys.executable, "-m", "harness", "init", "reviews_lr"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(installed)}, check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert again.stderr.startswith("harness: sweeps/reviews_lr.yaml exists. Choose another name.")


def test_the_version_is_one_and_the_metadata_are_whole(installed: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == harness.__version__
    assert f"version: {harness.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert harness_in(tmp_path, installed, "--version") == f"stability-harness {harness.__version__}\n"
    (metadata,) = installed.glob("*.dist-info/METADATA")
    head = metadata.read_text().partition("\n\n")[0]
    for line in (
        "Name: stability-harness",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "Classifier: Typing",
    ):
        assert line in head
    assert (metadata.parent / "licenses" / "LICENSE").is_file()
    assert re.search(r"^harness = harness\.__main__:main$", (metadata.parent / "entry_points.txt").read_text(), re.M)
