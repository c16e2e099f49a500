"""Plans for machines that aren't here."""

from pathlib import Path

import pytest
from made_runs import HEAD, Run, store_of, sweep_of

from harness.common.errors import HarnessError
from harness.execution import known_hardware
from harness.execution.duration import GPU_SPEED, estimate


def test_a_kind_has_a_rate_a_memory_and_a_source() -> None:
    measured, scaled = known_hardware.read("h100-80gb"), known_hardware.read("A100-80GB,8")
    assert (measured.count, measured.speed, measured.source) == (
        1,
        GPU_SPEED,
        "a rate that small batches reach on a large GPU, within a factor of three",
    )
    assert scaled.words == "8 × a100-80gb"
    assert scaled.speed == pytest.approx(GPU_SPEED * 2039 / 3350)
    assert "published memory bandwidths (2,039 of 3,350 GB/s)" in scaled.source
    assert scaled.fit(7 * 2**30) == "About 10 lanes fit on one a100-80gb."
    assert scaled.fit(90 * 2**30) == "A lane does not fit on one a100-80gb."
    assert known_hardware.read("cores,64").fit(2**30) == ""
    for text in ("a100", "a100-80gb,0", "a100-80gb,x", ""):
        with pytest.raises(HarnessError, match=r"--hardware must be a kind of machine and how many"):
            known_hardware.read(text)


def test_a_plan_for_another_machine_goes_by_its_rate_alone(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 5\nseeds: 1..4\n")
    records = store_of(tmp_path / "results", sweep, {0: [Run(300)]}).records(sweep)
    assert estimate(sweep, records, 1).basis == "from the finished trials"
    slow, quick = (estimate(sweep, records, 1, speed).between for speed in (1e12, 4e12))
    assert slow is not None
    assert quick == pytest.approx(tuple(value / 4 for value in slow))
