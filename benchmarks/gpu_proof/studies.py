"""Real studies on a GPU: as many seeds as the time allows, in whole packs; their records are brought back."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import weights
from .kit import ROOT, Journal, Request
from .speed import say

if TYPE_CHECKING:
    from harness.config.trials import Sweep
    from harness.records.store import Store

RESULTS = "studies"  # under `home`
_CUT = "weights cut to the data's vocabulary and stored in half precision, trained from float32"
# Every text as long as the longest: batches of one shape, which is what a GPU's steps are captured for.
_MINILM = f"""
profiles:
  gpu:
    title: "MiniLM-L6 on SST-2 (6,735 sentences), learning rate × bias correction; {_CUT}"
    padding: dataset
    precision: tf32
    seeds: 1..5
"""
_MPNET = f"""
profiles:
  gpu:
    title: "MPNet-base on RTE, with and without bias correction; {_CUT}"
    padding: dataset
    seeds: 1..25
"""
# Rates at which the correction is looked for, on seeds that the study does not use.
_RATES, _FINDING_SEEDS = (5e-5, 1e-4), (901, 902, 903, 904)


@dataclass
class Study:
    """A sweep file of the profile `gpu`, and where its records are."""

    request: Request
    name: str
    file: Path
    overrides: tuple[str, ...]

    @property
    def store(self) -> Store:
        """Its results folder."""
        from harness.records.store import Store

        return Store(self.request.home / RESULTS / f"{self.name}@gpu")

    def load(self, seeds: str, more: Sequence[str] = ()) -> Sweep:
        """The sweep with these seeds."""
        from harness.config.sweep_file import load

        return load(self.file, "gpu", [*self.overrides, *more, f"seeds={seeds}"])

    def train(self, sweep: Sweep) -> float:
        """Train what is missing in this process, packs as large as fit; the seconds it took."""
        from harness.config.trials import expand
        from harness.execution import driver, pack_size

        device = self.request.device
        room = pack_size.worker_memory_budget(device)
        size = most_lanes(sweep, device, room)
        started = time.monotonic()
        options = driver.Options(
            in_process=True, threads=self.request.threads, pack=size, time_limit=max(1.0, self.request.left - 2)
        )
        # What is raised while a pack trains would be recorded as its crash; the limit leaves it instead.
        ended = driver.run(sweep, self.store, options, lambda _: None)
        seconds = time.monotonic() - started
        say(f"{self.name}: {ended.finished} of {len(expand(sweep))} trials after {seconds:.1f} s more, packs of {size}")
        return seconds


def most_lanes(sweep: Sweep, device: str, room: int) -> int:
    """Lanes of a pack: as many as the memory holds on a GPU, two without one."""
    from harness.execution import lanes_memory

    return min(lanes_memory.most_lanes(cell.recipe, device, room) for cell in sweep.cells) if device == "cuda" else 2


def minilm(request: Request, journal: Journal) -> None:
    """MiniLM-L6 on SST-2: three rates, with and without correction."""
    study = _study(request, journal, "sst2_minilm", request.minilm, request.data / "sst2_small", _MINILM)
    if study is None:
        return
    rates = ("lr=[1e-4]",) if request.tiny else ()
    _as_many_seeds(study, journal, 2 if request.tiny else 50, rates)


def mpnet(request: Request, journal: Journal) -> None:
    """MPNet-base on RTE: the rate at which correction matters most on seeds 901.., then the study at that rate."""
    study = _study(request, journal, "rte_mpnet", request.mpnet, request.data / "rte", _MPNET)
    if study is None:
        return
    rate = request.mpnet_lr if request.mpnet_lr is not None else _find(request, journal, study)
    journal.say(f"The study's learning rate: {rate:g}.")
    _as_many_seeds(study, journal, 2 if request.tiny else 25, (f"lr={rate!r}",))


def _study(
    request: Request, journal: Journal, name: str, folder: Path | None, data: Path, profile: str
) -> Study | None:
    if not (data / "train.tsv").exists():
        journal.add(f"{name}@gpu: finished trials", "", (), note=f"no data in {data}")
        return None
    try:
        model = weights.found(folder, request.home / "models")
    except ValueError as error:
        journal.add(f"{name}@gpu: finished trials", "", (), note=str(error))
        return None
    if model is None:
        journal.add(f"{name}@gpu: finished trials", "", (), note="no weights")
        return None
    file = request.home / "sweeps" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((ROOT / "sweeps" / file.name).read_text() + profile)
    few = ("max_steps=4", "max_length=16") if request.tiny else ()
    # Relative, as the records and the report name them.
    return Study(request, name, file, (f"task.files={_near(data)}", f"model.folder={_near(model)}", *few))


def _near(path: Path) -> str:
    return os.path.relpath(path)


def _find(request: Request, journal: Journal, study: Study) -> float:
    """The rate at which most runs fail without correction that don't with it; where that is no one's, at which the
    mean differs most.
    """
    finding = Study(request, f"{study.name}_rates", study.file.with_name(f"{study.name}_rates.yaml"), study.overrides)
    finding.file.write_text(study.file.read_text())
    rates = _RATES[:1] if request.tiny else _RATES
    seeds = _FINDING_SEEDS[:1] if request.tiny else _FINDING_SEEDS
    some = f"lr=[{', '.join(map(repr, rates))}]"
    sweep = finding.load(f"[{', '.join(map(str, seeds[:2]))}]", (some,))
    whole = request.left
    seconds = finding.train(sweep)
    if seconds < whole / 6 and len(seeds) > 2:
        sweep = finding.load(f"[{', '.join(map(str, seeds))}]", (some,))
        finding.train(sweep)
    gains = {}
    records = finding.store.records(sweep)
    for rate in rates:
        failed, scores = {}, {}
        for corrected in (False, True):
            measured = [
                record.measured
                for record in records.values()
                if record.measured
                and record.trial.recipe.lr == rate
                and record.trial.recipe.bias_correction == corrected
            ]
            failed[corrected] = sum(one.outcome == "failed" for one in measured)
            scores[corrected] = sum(one.final_score or 0.0 for one in measured) / max(1, len(measured))
            journal.add(
                f"finding the rate: {rate:g}, correction {'on' if corrected else 'off'}: failed", "",
                [failed[corrected]], note=f"of {len(measured)}, mean accuracy {scores[corrected]:.3f}",
            )  # fmt: skip
        gains[rate] = (failed[False] - failed[True], scores[True] - scores[False])
    return max(rates, key=lambda rate: gains[rate])


def _as_many_seeds(study: Study, journal: Journal, most: int, more: Sequence[str] = ()) -> None:
    """Train all cells with seeds from 1 up to as many as the time allows, so that no cell has more than another."""
    from harness.config.trials import expand
    from harness.execution import pack_size

    request = study.request
    began = time.monotonic()
    cells = len(study.load("1..2", more).cells)
    size = most_lanes(study.load("1..2", more), request.device, pack_size.worker_memory_budget(request.device))
    seeds, planned, pace = 0, min(most, max(1, size // cells)), 0.0
    while True:
        sweep = study.load(f"1..{planned}", more)
        seconds = study.train(sweep)
        packs = max(1, -(-(planned - seeds) * cells // size))
        pace, seeds = seconds / packs, planned
        _so_far(study, journal, sweep, time.monotonic() - began)
        fit = max(0, int((request.left - 3) / max(0.1, 1.1 * pace)))  # packs that still do
        planned = min(most, seeds + fit * size // cells)
        if planned == seeds:
            break
    if not request.tiny:
        _baselines(study, sweep)
    missing = [trial.id for trial in expand(sweep) if trial.id not in study.store.records(sweep)]
    if missing:
        journal.say(f"{len(missing)} trials of the plan are missing.")


def _so_far(study: Study, journal: Journal, sweep: Sweep, seconds: float) -> None:
    records = study.store.records(sweep)
    done = [record.measured for record in records.values() if record.measured]
    failed = sum(one.outcome == "failed" for one in done)
    hour = 3600 * len(done) / seconds
    ways = {(getattr(one, "step_mode", None), getattr(one, "step_mode_reason", None)) for one in done}
    how = "; ".join(f"steps {mode}{f' ({why})' if why else ''}" for mode, why in sorted(ways, key=str))
    journal.rows[:] = [row for row in journal.rows if "finding" in row.what]
    journal.add(
        f"{study.name}@gpu: finished trials", "", [len(done)],
        note=f"{failed} failed, {len(sweep.seeds)} seeds, {how}",
    )  # fmt: skip
    journal.add(f"{study.name}@gpu: trials an hour, start and evaluations counted", "trials/h", [hour])
    for index, cell in enumerate(sweep.cells):
        own = [record.measured for record in records.values() if record.measured and record.trial.cell == index]
        scores = sorted(one.final_score for one in own if one.final_score is not None)
        axes = ", ".join(f"{name} {value}" for name, value in cell.axes)
        journal.add(
            f"{study.name}@gpu: {axes}: accuracy, one value a seed", "", scores,
            note=f"{sum(one.outcome == 'failed' for one in own)} of {len(own)} failed",
        )  # fmt: skip


def _baselines(study: Study, sweep: Sweep) -> None:
    """What the cells are compared with in the report, where the time is there."""
    if study.request.left < 5 or not sweep.baselines:
        return
    from harness.execution import baselines

    try:
        baselines.train(sweep, study.store, say)
    except Exception as error:  # the records are worth more than what they are compared with
        say(f"no baselines: {error}")
