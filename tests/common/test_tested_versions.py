"""The tested versions are those that the locks pin, and others are told of once."""

import io
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from made_runs import HEAD, Run, store_of, sweep_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console

from harness.cli import progress as cli_screen
from harness.common import tested_versions
from harness.config.trials import Sweep
from harness.execution import driver, train_pack
from harness.execution.driver import Options
from harness.execution.verification import verify
from harness.records.store import Store
from harness.training import numerics

ROOT = Path(__file__).parents[2]
CUDA = ("nvidia-", "cuda-", "triton")
MADE_UP = {"python": "3.11", "torch": "2.13.0", "transformers": "5.24.0"}


@pytest.fixture(autouse=True)
def any_versions() -> None:
    """In place of conftest's: here it is said."""


def pins(kind: str) -> dict[str, str]:
    """Package -> version of a lock; raises where a line says anything else."""
    lines = (ROOT / "locks" / f"{kind}.txt").read_text().splitlines()
    found = [re.fullmatch(r"([a-z0-9-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(found), "a line that is no pin: a path, a registry or a hash?"
    return {match[1]: match[2] for match in found if match}


def test_the_tested_versions_are_those_that_are_locked() -> None:
    locked = pins("cpu")
    packages = {name: version for name, version in tested_versions.TESTED.items() if name != "python"}
    assert {name: locked[name] for name in packages} == packages, (
        "run the tests, then change harness/common/tested_versions.py"
    )
    assert f"for Python {tested_versions.TESTED['python']} on" in (ROOT / "locks" / "cpu.txt").read_text()
    readme = (ROOT / "README.md").read_text().replace("\n", " ")
    assert f"torch {locked['torch']}, transformers {locked['transformers']}" in readme


def test_both_locks_pin_the_same_but_for_cuda() -> None:
    cpu, cuda = pins("cpu"), pins("cuda")
    assert cpu == {name: version for name, version in cuda.items() if not name.startswith(CUDA)}
    assert {name for name in cuda if name.startswith(CUDA)} >= {"triton", "nvidia-cudnn-cu13"}


def test_what_writes_the_locks_finds_what_it_imports() -> None:
    assert runpy.run_path(str(ROOT / "locks" / "lock.py"))["TESTED"] is tested_versions.TESTED


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_lock_pins_what_the_ranges_ask_for(kind: str) -> None:
    """A range that was changed without `make lock` is seen here, not on a fresh machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(one) for one in project["dependencies"] + extras["dev"]]
    asked += [Requirement(one) for own in asked for extra in own.extras for one in extras.get(extra, ())]
    locked = pins(kind)
    for one in asked:
        if one.name != project["name"]:
            version = locked.get(canonicalize_name(one.name))
            assert version, f"{one.name} is not in locks/{kind}.txt: run `make lock`"
            assert version in one.specifier, f"{one} in pyproject.toml, {version} in locks/{kind}.txt: run `make lock`"


def test_the_documentations_lock_pins_what_its_group_asks_for() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    locked = pins("docs")
    for one in map(Requirement, groups["docs"]):
        assert locked[canonicalize_name(one.name)] in one.specifier, f"{one}: run `make lock`"
    assert not set(locked) & {"torch", "transformers", "ray"}, "the documentation is built without the harness"


# ---------------------------------------------------------------------------------------------------- what is told


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested_versions, "TESTED", MADE_UP)


def test_what_is_installed_is_named_as_in_a_record() -> None:
    assert tested_versions.installed() == numerics.versions()


@pytest.mark.usefixtures("made_up")
def test_a_build_of_torch_or_a_patch_of_python_is_no_other_version() -> None:
    assert tested_versions.warning({"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.24.0"}) is None
    assert tested_versions.warning({"python": "3.11.0", "torch": "2.13.0+cu130", "transformers": "5.24.0"}) is None
    assert tested_versions.warning({"python": "3.110.1", "torch": "2.13.1", "transformers": "5.24.0"}) == (
        "Not tested with Python 3.110.1, torch 2.13.1 (tested with Python 3.11, torch 2.13.0): "
        "last bits may differ from other machines' records, and more may be wrong."
    )


@pytest.mark.usefixtures("made_up")
def test_verify_counts_the_records_of_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_of(tmp_path, f"{HEAD}lr: 1e-5\nepochs: 3\nseeds: 1..3\n")
    store = store_of(tmp_path / "results", sweep, {0: [Run(300), Run(200), Run(310)]})

    def notes() -> list[str]:
        return [one.found for one in verify.check(sweep, store).notes if one.rule == "versions"]

    assert notes() == ["3 with transformers 5.23.0; tested with Python 3.11, torch 2.13.0, transformers 5.24.0"]
    monkeypatch.setattr(tested_versions, "TESTED", MADE_UP | {"transformers": "5.23.0"})
    assert notes() == []


@pytest.mark.usefixtures("cpu_only")
def test_a_sweep_says_once_that_a_worker_has_other_versions(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's workers may have others than the driver, which says its own at the start."""
    said: list[str] = []

    def show(progress: driver.Progress) -> None:
        said.extend(progress.messages)
        progress.messages.clear()

    monkeypatch.setattr(tested_versions, "TESTED", tested_versions.installed())
    driver.run(tiny_sweep, Store(tmp_path / "same"), Options(in_process=True, pack=2), show)
    assert said == []
    real = train_pack._environment
    monkeypatch.setattr(
        train_pack, "_environment", lambda *given: real(*given).model_copy(update={"transformers": "5.99.0"})
    )
    driver.run(tiny_sweep, Store(tmp_path / "other"), Options(in_process=True, pack=2), show)
    (line,) = said
    assert line.startswith("A worker: Not tested with transformers 5.99.0 (tested with transformers ")


def test_commands_that_train_say_at_the_start_what_is_not_tested(
    tiny_sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested_versions, "TESTED", {**tested_versions.installed(), "torch": "1.0"})
    out = io.StringIO()
    cli_screen.print_untested(Console(file=out, width=300))
    assert out.getvalue().startswith(
        f"Not tested with torch {tested_versions.installed()['torch']} (tested with torch 1.0): "
    )
    source = "\n".join(path.read_text() for path in sorted((ROOT / "harness" / "cli").glob("*.py")))
    commands = {match[1] for match in re.finditer(r"^def (\w+)\((?:(?!^def ).)*?print_untested\(", source, re.M | re.S)}
    assert commands == {"sweep", "search", "find_lr", "rerun", "verify"}
