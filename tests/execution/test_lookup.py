"""What a name means: one's own sweeps before shipped ones, and folders of results."""

import os
from pathlib import Path

import pytest

from harness.common.errors import HarnessError
from harness.execution import lookup

HEAD = "task: embedded\nmodel: embedded\nlr: 1e-4\nepochs: 1\nseeds: 1\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ones_own_sweep_hides_a_shipped_one(here: Path) -> None:
    assert lookup.sweep_file("smoke") == lookup.SHIPPED / "smoke.yaml"
    (here / "sweeps").mkdir()
    (here / "sweeps" / "smoke.yaml").write_text(HEAD)
    assert lookup.sweep_file("smoke") == Path("sweeps/smoke.yaml")
    assert lookup.sweep_file("rte_lr") == lookup.SHIPPED / "rte_lr.yaml"
    assert lookup.sweep_file("other.yaml") == Path("other.yaml")


def test_names_are_those_of_both_folders_once(here: Path) -> None:
    shipped = lookup.sweep_names()
    assert {"rte_lr", "smoke"} <= set(shipped)
    (here / "sweeps").mkdir()
    for name in ("smoke", "aaa"):
        (here / "sweeps" / f"{name}.yaml").write_text(HEAD)
    assert lookup.sweep_names() == ["aaa", *shipped]


def test_a_folder_with_a_plan_is_a_result_even_if_a_sweep_has_its_name(here: Path) -> None:
    (here / "smoke").mkdir()
    (here / "folder").mkdir()
    assert not lookup.is_results("smoke")
    assert lookup.is_results("folder")
    (here / "smoke" / "plan.json").write_text("{}")
    assert lookup.is_results("smoke")


def test_a_folder_whose_name_is_no_text_is_refused(here: Path) -> None:
    """Its name would stand in the commands of every table."""
    odd = here / os.fsdecode(b"x\xff")
    odd.mkdir()
    with pytest.raises(HarnessError, match="its name is no UTF-8"):
        lookup.study_of(str(odd), None, [], Path("results"))
    (here / "plain").mkdir()
    with pytest.raises(HarnessError, match=r"has no plan\.json"):
        lookup.study_of("plain", None, [], Path("results"))


def test_nothing_of_a_name_is_said(here: Path) -> None:
    with pytest.raises(HarnessError, match="'nothing'"):
        lookup.study_of("nothing", None, [], Path("results"))
