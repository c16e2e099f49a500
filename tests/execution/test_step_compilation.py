"""A sweep is trained with compiled steps or without, as it was begun; a rerun follows; where it can't, both say so."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from driving import content
from torch import Tensor, fx

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution import driver, step_compilation
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.execution.verification import verify
from harness.records.record import Record
from harness.records.store import Store
from harness.training import compiled, loop

pytestmark = pytest.mark.usefixtures("cpu_only")
WITH, WITHOUT, AS_BEGUN = (Options(in_process=True, compiled=way) for way in (True, False, None))


def a_bit_off(graph: fx.GraphModule) -> Callable[..., Sequence[Tensor]]:
    """Stands in for Inductor: the recorded step, its results a last bit off."""
    return lambda *given: [result * (1 + 2**-22) for result in graph(*given)]


@pytest.fixture
def sweep(trial: Callable[..., Trial], build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Two seeds of a network that nothing was compiled of, with a stand-in for the compiler."""
    monkeypatch.setattr(compiled, "_compile", a_bit_off)
    monkeypatch.setattr(compiled, "compiler", lambda device: "a stand-in")
    recipe = trial(epochs=1, model=ModelSpec(name="bert", folder=str(build("bert")))).recipe
    cells = (Cell(axes=(), recipe=recipe),)
    return Sweep(name="one", profile="default", title="One", cells=cells, seeds=(trial(1).seeds, trial(2).seeds))


def run(sweep: Sweep, store: Store, options: Options) -> list[str]:
    """Train what is missing; what the person was told."""
    told: list[str] = []
    driver.run(sweep, store, options, lambda progress: told.extend(set(progress.messages) - set(told)))
    return told


def record_of(store: Store, trial: Trial) -> Record:
    record = store.load(trial.id)
    assert record is not None
    return record


def changed(record: Record, **measured: Any) -> Record:
    assert record.measured is not None
    return record.model_copy(update={"measured": record.measured.model_copy(update=measured)})


def test_the_record_says_how_steps_were_computed_and_a_sweep_goes_on_as_it_was_begun(
    sweep: Sweep, tmp_path: Path
) -> None:
    store, plain = Store(tmp_path / "compiled"), Store(tmp_path / "plain")
    assert not run(sweep, store, WITH)
    run(sweep, plain, AS_BEGUN)
    first, second = expand(sweep)
    record = record_of(store, first)
    assert record.environment is not None
    assert record.environment.compiler == "a stand-in"
    assert step_compilation.is_compiled(record)
    other = record_of(plain, first)
    assert other.environment is not None
    assert other.environment.compiler is None
    assert not step_compilation.is_compiled(other)
    before = content(store)
    store.path(second.id).unlink()
    run(sweep, store, AS_BEGUN)
    assert content(store) == before
    mixed = ((store, WITHOUT, "--no-compile"), (plain, WITH, "--compile"))
    for begun, asked, option in mixed:
        with pytest.raises(HarnessError, match=f"{option} cannot be mixed: 2 trials"):
            run(sweep, begun, asked)


def test_a_rerun_compiles_where_its_record_did(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "compiled")
    run(sweep, store, WITH)
    first = expand(sweep)[0]
    packs: list[int] = []
    trains = loop.train
    monkeypatch.setattr(loop, "train", lambda pack, **more: packs.append(len(pack)) or trains(pack, **more))
    assert rerun(sweep, store, first, 1e-3).verdict == "identical"
    assert packs == [2]  # as its record was: bits may depend on it
    monkeypatch.setattr(compiled, "compiler", lambda device: compiled.NO_COMPILER)
    compiled_steps = compiled.CompiledSteps.of
    monkeypatch.setattr(
        compiled.CompiledSteps, "of",
        lambda self, key, step, given: compiled_steps(self, (key, "elsewhere"), step, given),
    )  # fmt: skip
    found = rerun(sweep, store, first, 1e-3)
    assert found.verdict == "within_tolerance"
    assert found.reasons[:2] == (
        "compiler: a stand-in then, none now",
        "steps: compiled then, not (not compiled: there is no C++ compiler, or for a GPU no Triton) now",
    )


def test_a_trial_that_could_not_be_compiled_says_why_and_is_noted(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "one")
    run(sweep, store, Options(in_process=True, compiled=True, max_trials=1))
    assert not [note for note in verify.check(sweep, store).notes if note.rule == "step mode"]

    monkeypatch.setattr(compiled.CompiledSteps, "of", lambda self, *_: setattr(self, "failure", "g++ went away"))
    told = run(sweep, store, AS_BEGUN)
    first, second = expand(sweep)
    assert told == [f"{second.id} trained without compiled steps: g++ went away"]
    (note,) = (note.found for note in verify.check(sweep, store).notes if note.rule == "step mode")
    assert note == "1 of 2 trials trained with compiled steps: their last bits differ"
    assert rerun(sweep, store, second, 1e-3).verdict == "identical"
    assert rerun(sweep, store, first, 1e-3).verdict == "within_tolerance"


def test_what_was_begun_decides_and_crashed_trials_do_not(sweep: Sweep, tmp_path: Path) -> None:
    store = Store(tmp_path / "one")
    run(sweep, store, WITH)
    record = record_of(store, expand(sweep)[0])
    crashed = record.model_copy(update={"measured": None, "environment": None, "status": "crashed"})
    assert step_compilation.chosen([], None) is False
    assert step_compilation.chosen([], True) is True
    assert step_compilation.chosen([crashed], True) is True
    assert step_compilation.chosen([record, crashed], None) is True
    failed = changed(record, step_mode="recording", step_mode_reason="not compiled: it fails")
    assert step_compilation.chosen([failed], None) is True  # asked for again, as it was
    assert step_compilation.mixed([record, failed]) is not None
    assert step_compilation.mixed([record, crashed]) is None
