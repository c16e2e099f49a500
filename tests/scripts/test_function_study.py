"""A study of a Python function, from a module or from a notebook."""

import sys
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.common.errors import HarnessError

MODULE = """\
def train(lr, seed, report, scale=1):
    report(1, loss=lr)
    return scale * (lr + seed)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_function_of_a_module(here: Path) -> None:
    (here / "of_this_test.py").write_text(MODULE)
    from of_this_test import train  # type: ignore[import-not-found]

    study = harness.study(train, lr=np.array([0.25, 0.5]), scale=2, seeds=range(1, 3), majority=3)
    del sys.modules["of_this_test"]
    assert (study.name, len(study.trials)) == ("train", 4)
    results = harness.run(study, in_process=True, progress=False)
    assert sorted(results.runs["final_score"]) == [2.5, 3, 4.5, 5]
    assert sorted(results.runs["outcome"]) == ["failed", "failed", "ok", "ok"]
    again = harness.load_sweep("harness_studies/train.yaml")
    assert again.sweep == study.sweep
    assert "harness_studies/train.yaml" in results.runs["command"].iloc[0]


def test_a_function_that_is_in_no_module_is_kept_as_it_is(here: Path) -> None:
    offset = 0.125

    def train(lr: float, seed: int) -> dict[str, float]:
        return {"score": lr + seed + offset}

    study = harness.study(train, lr=[1.0, 2.0], seeds="1..1", name="mine")
    same = harness.study(train, lr=[1.0, 2.0], seeds="1..1", name="mine")
    assert [trial.id for trial in study.trials] == [trial.id for trial in same.trials]
    results = harness.run(study, in_process=True, progress=False)
    assert list(results.runs["final_score"]) == [2.125, 3.125]
    assert results.runs["outcome"].isna().all()


def test_what_a_function_does_not_take_is_said(here: Path) -> None:
    def train(lr: float, seed: int, width: int) -> float:
        return lr

    with pytest.raises(HarnessError, match=r"train takes no rate\. Allowed: lr, seed, width"):
        harness.study(train, rate=[1.0], seeds=range(3))
    with pytest.raises(HarnessError, match="train needs width, which is neither an axis nor given"):
        harness.study(train, lr=[1.0], seeds=range(3))
