"""The worked examples of ARCHITECTURE.md: applied to a copy of the package, each adds what it says, in two files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parents[1]
BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.M | re.S)


def examples() -> dict[str, list[tuple[str, str, str]]]:
    """The blocks of each example by its heading: kind (python or diff), file, text."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Worked examples")[2]
    sections = (section.partition("\n") for section in text.split("\n### ")[1:])
    return {heading: BLOCK.findall(body) for heading, _, body in sections}


def apply(blocks: list[tuple[str, str, str]], root: Path) -> None:
    """Write new files; put the lines with `+` of a diff where its other lines stand, without those with `-`."""
    for kind, name, text in blocks:
        path = root / name
        if kind == "python":
            assert not path.exists()
            path.write_text(text)
            continue
        lines = [line or " " for line in text.splitlines()]
        before = "\n".join(line[1:] for line in lines if line[0] in " -")
        after = "\n".join(line[1:] for line in lines if line[0] in " +")
        content = path.read_text()
        assert content.count(before) == 1, f"{name} has {content.count(before)} of {before!r}"
        path.write_text(content.replace(before, after))


def in_copy(root: Path, *words: str) -> str:
    """What a Python in the copy prints."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all the examples."""
    root = tmp_path_factory.mktemp("extended")
    for name in ("harness", "sweeps"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for blocks in examples().values():
        apply(blocks, root)
    return root


def test_each_example_touches_two_files_at_most() -> None:
    files = {heading: {name for _, name, _ in blocks} for heading, blocks in examples().items()}
    assert len(files) == 7
    assert [heading for heading, names in files.items() if not 1 <= len(names) <= 2] == []


SWEEP = """
task: {name: embedded, metric: mean_recall}
model: embedded
lr: 1e-4
epochs: 1
max_steps: 2
gradient_noise: 0.01
method: norms
seeds: 1
"""


TRAIN = """
import harness
from harness.report.contents import text_tables
results = harness.run("toy.yaml", in_process=True, progress=False)
print(results.runs["metric"].tolist(), text_tables(results.analysis)["run_length"].rows)
"""


def test_a_remedy_a_method_and_a_metric_train_and_a_table_shows_it(extended: Path) -> None:
    (extended / "toy.yaml").write_text(SWEEP)
    assert in_copy(extended, "-c", TRAIN) == "['mean_recall'] (('the only one', '2'),)\n"


FASTTEXT = """
from pathlib import Path
from harness.config.recipe import TaskSpec
from harness.data import tasks
for split in ("train", "dev"):
    Path(f"{split}.txt").write_text("__label__good a fine film\\n__label__bad a dull film\\n")
raw = tasks.load(TaskSpec(name="mine", kind="fasttexts", files={"train": "train.txt", "validation": "dev.txt"}))
print(raw.label_names, raw.train.texts)
"""


def test_a_task_kind_reads_its_files(extended: Path) -> None:
    assert in_copy(extended, "-c", FASTTEXT) == "('bad', 'good') ('a fine film', 'a dull film')\n"


def test_an_importer_and_a_command_are_there(extended: Path) -> None:
    for seed in (1, 2):
        run = extended / "keras" / f"seed{seed}"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"seed": seed, "lr": 0.1}))
        (run / "training.log").write_text(f"epoch,accuracy\n0,0.5\n1,0.{6 + seed}\n")
    columns = ("--seed", "seed", "--metric", "accuracy", "--cell", "lr", "--majority", "0.5", "--as", "keras")
    said = in_copy(extended, "-m", "harness", "import", "keras", *columns)
    assert "1 cell, 2 runs: 2 finished" in said
    assert int(in_copy(extended, "-m", "harness", "count", "smoke")) > 0
