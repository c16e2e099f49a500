"""A trial trained again, and how two runs are compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import HarnessError
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution import driver
from harness.execution.causes import causes
from harness.execution.driver import Options
from harness.execution.rerun import TOLERANCE, compare, rerun
from harness.records.frame import frame
from harness.records.store import Store
from harness.training import loop

pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture(scope="module")
def trained(trial: Callable[..., Trial], tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """A finished sweep of one cell and two seeds."""
    cell = Cell(axes=(), recipe=trial(epochs=1).recipe)
    sweep = Sweep(name="one", profile="default", title="One", cells=(cell,), seeds=(trial(1).seeds, trial(2).seeds))
    store = Store(tmp_path_factory.mktemp("one") / "one")
    driver.run(sweep, store, Options(in_process=True), lambda progress: None)
    return sweep, store


def test_a_rerun_is_identical(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    before = {path.name: path.read_bytes() for path in store.trials.iterdir()}
    found = rerun(sweep, store, expand(sweep)[1], 1e-3)
    assert (found.verdict, found.max_difference, found.first_differing_step) == ("identical", 0.0, None)
    assert {path.name: path.read_bytes() for path in store.trials.iterdir()} == before


def test_a_rerun_fills_its_pack_where_several_threads_share_the_work(
    trained: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, store = trained
    packs: list[int] = []
    trains = loop.train
    monkeypatch.setattr(loop, "train", lambda pack, **more: packs.append(len(pack)) or trains(pack, **more))
    assert rerun(sweep, store, expand(sweep)[0], 1e-3).verdict == "identical"
    other = Store(tmp_path / "one")
    driver.run(sweep, other, Options(in_process=True, threads=2, pack=2), lambda progress: None)
    assert rerun(sweep, other, expand(sweep)[0], 1e-3).verdict == "identical"
    assert packs == [1, 2, 2]


def test_a_pack_that_does_not_fit_the_memory_is_one_line(
    trained: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = trained
    store, one = Store(tmp_path / "one"), expand(sweep)[0]
    driver.run(sweep, store, Options(in_process=True, threads=2, pack=2), lambda progress: None)

    def fails(error: Exception) -> None:
        def train(*given: object, **more: object) -> None:
            raise error

        monkeypatch.setattr(loop, "train", train)

    for error in (
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        fails(error)
        with pytest.raises(HarnessError, match=r"a pack of 2, on which .* so many do not fit this machine's memory"):
            rerun(sweep, store, one, 1e-3)
    fails(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        rerun(sweep, store, one, 1e-3)


def test_a_lane_under_batch_padding_has_a_reason_where_its_pack_counts(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    record = store.load(expand(sweep)[0].id)
    assert record is not None
    assert record.environment is not None
    recipe = record.trial.recipe.model_copy(update={"padding": "batch"})
    batched = record.model_copy(update={"trial": record.trial.model_copy(update={"recipe": recipe})})
    for threads, count in ((1, 0), (2, 1)):
        place = record.environment.model_copy(update={"threads": threads, "pack_size": 2})
        then = batched.model_copy(update={"environment": place})
        assert len(causes(then, then).computes) == count


def test_a_comparison_says_where_and_how_far_two_runs_differ(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    trial = expand(sweep)[0].id
    record, kept = store.load(trial), store.curves(trial)
    assert record is not None
    assert record.measured is not None
    assert record.environment is not None
    assert kept is not None
    digest = record.arrays_sha256
    losses = kept.train_loss.copy()
    losses[4] += np.float32(1e-4)
    threads = record.environment.model_copy(update={"threads": 2})
    weights = record.measured.model_copy(update={"weights_sha256": "0"})
    again = record.model_copy(update={"environment": threads, "measured": weights})
    near = compare(record, kept, again, replace(kept, train_loss=losses), 1e-3, digest)
    assert (near.verdict, near.first_differing_step, near.reasons) == (
        "within_tolerance",
        5,
        ("threads: 1 then, 2 now",),
    )
    assert near.max_difference == pytest.approx(1e-4, rel=1e-2)
    other = {"cuda": "13.0", "driver": "580.1", "kernels": "AVX2", "dirty_diff_sha256": "f" * 64}
    before = {"cuda": "12.8", "driver": None, "kernels": "AVX512", "dirty_diff_sha256": "0" * 64}  # driver: not known
    place = record.environment
    far = compare(
        record.model_copy(update={"environment": place.model_copy(update=before)}), kept,
        record.model_copy(update={"environment": place.model_copy(update=other)}),
        replace(kept, train_loss=losses), 1e-3, digest,
    )  # fmt: skip
    assert far.reasons == (
        "CPU kernels: AVX512 then, AVX2 now",
        "CUDA: 12.8 then, 13.0 now",
        f"uncommitted changes: {'0' * 20} then, {'f' * 20} now",
    )
    assert compare(record, kept, again, replace(kept, train_loss=losses), 1e-5).verdict == "different"
    losses[2] = np.nan
    broken = compare(record, kept, record, replace(kept, train_loss=losses), 1e-3, digest)
    assert (broken.verdict, broken.max_difference, broken.first_differing_step) == ("different", None, 3)
    assert broken.reasons == ("nothing in the records explains it",)
    tampered = compare(record, kept, record, replace(kept, train_loss=losses), 1e-3, "another")
    assert tampered.reasons == ("the record's curves were changed after they were written: their hash is another",)
    # Without the curves the weights decide, and the comparison says so.
    bare = compare(record, None, record, kept, 1e-3)
    assert (bare.verdict, bare.by_steps) == ("identical", False)
    assert compare(record, None, again, kept, 1e-3).verdict == "different"
    # Two runs that diverged alike are identical: NaN equals NaN.
    lost = replace(kept, train_loss=np.full_like(kept.train_loss, np.nan))
    assert compare(record, lost, record, lost, 1e-3).verdict == "identical"


@pytest.mark.parametrize("edited", [{"final_score": 0.99}, {"outcome": "another"}])
def test_a_record_that_tells_another_score_of_the_same_weights_is_not_identical(
    trained: tuple[Sweep, Store], edited: dict[str, object]
) -> None:
    sweep, store = trained
    trial = expand(sweep)[0].id
    record, kept = store.load(trial), store.curves(trial)
    assert record is not None
    assert record.measured is not None
    told = record.model_copy(update={"measured": record.measured.model_copy(update=edited)})
    found = compare(told, kept, record, kept, 1e-3, record.arrays_sha256)
    assert (found.verdict, found.first_differing_step) == ("different", None)
    assert "it was edited" in found.reasons[0]
    assert compare(record, kept, record, kept, 1e-3, record.arrays_sha256).verdict == "identical"


def test_a_rerun_needs_a_finished_record(trained: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, _ = trained
    with pytest.raises(HarnessError, match="which is missing"):
        rerun(sweep, Store(tmp_path), expand(sweep)[0], 1e-3)


def test_the_frame_of_a_real_sweep_has_a_row_a_trial(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    table = frame(sweep, store)
    assert table["trial"].tolist() == [trial.id for trial in expand(sweep)]
    assert table["status"].tolist() == ["finished", "finished"]


@pytest.mark.parametrize(
    ("environment", "measured", "verdict", "reason"),
    [
        ({}, {}, "different", "nothing in the records explains it"),
        ({"kernels": "other"}, {}, "within_tolerance", "CPU kernels"),
        ({"kernel_settings": "MKL_CBWR=AVX2"}, {}, "within_tolerance", "MKL_CBWR"),
        ({"threads": 2}, {}, "within_tolerance", "threads"),
        ({"torch": "1.0"}, {}, "within_tolerance", "torch"),
        ({"device_name": "another"}, {}, "within_tolerance", "device name"),
        # Other code may compute something else, and other inputs are another experiment.
        ({"transformers": "1.0"}, {}, "different", "transformers"),
        ({"commit": "fffffff"}, {}, "different", "commit"),
        ({"threads": 2}, {"tokens_sha256": "0" * 64}, "different", "tokenizer (other token ids of the same texts)"),
        ({"threads": 2}, {"data_sha256": "0" * 64, "tokens_sha256": "0" * 64}, "different", "data"),
        ({"threads": 2}, {"model_sha256": "0" * 64}, "different", "pretrained weights"),
        ({"threads": 2}, {"augmentation_sha256": "0" * 64}, "different", "words or translators of the augmentation"),
        ({"threads": 2}, {"outcome": "other"}, "different", "threads"),
    ],
)
def test_equal_within_tolerance_is_what_rounding_explains(
    trained: tuple[Sweep, Store],
    environment: dict[str, object],
    measured: dict[str, object],
    verdict: str,
    reason: str,
) -> None:
    sweep, store = trained
    record, kept = store.load(expand(sweep)[0].id), store.curves(expand(sweep)[0].id)
    assert record is not None
    assert record.measured is not None
    assert record.environment is not None
    assert kept is not None
    losses = kept.train_loss + np.float32(1e-6)  # from the first step on
    again = record.model_copy(
        update={
            "environment": record.environment.model_copy(update=environment),
            "measured": record.measured.model_copy(update={"weights_sha256": "0" * 64, **measured}),
        }
    )
    found = compare(record, kept, again, replace(kept, train_loss=losses), TOLERANCE, record.arrays_sha256)
    assert (found.verdict, found.first_differing_step) == (verdict, 1)
    assert found.reasons[0].split(":")[0] == reason


def test_what_an_early_record_does_not_say_explains_nothing_and_is_named(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    record, kept = store.load(expand(sweep)[0].id), store.curves(expand(sweep)[0].id)
    assert record is not None
    assert record.measured is not None
    assert record.environment is not None
    assert kept is not None
    none = {"tokens_sha256": None, "tokenizer_sha256": None}
    early = record.model_copy(
        update={
            "environment": record.environment.model_copy(update={"kernels": None}),
            "measured": record.measured.model_copy(update=none),
        }
    )
    assert compare(early, kept, record, kept, TOLERANCE, record.arrays_sha256).verdict == "identical"
    other = replace(kept, train_loss=kept.train_loss + np.float32(1e-6))
    found = compare(early, kept, record, other, TOLERANCE, record.arrays_sha256)
    assert (found.verdict, found.reasons) == (
        "different",
        (
            "nothing in the records explains it",
            "not recorded then, so not compared: the tokenizer and the CPU's kernels",
        ),
    )
