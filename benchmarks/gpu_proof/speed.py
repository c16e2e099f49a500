"""Trials an hour by lanes of a pack, against a plain loop and one Trainer process; what a lane takes of the memory."""

from __future__ import annotations

import gc
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed import work

from .kit import Journal, OutOfTime, Request, wait_for
from .models import name_of, words_of

if TYPE_CHECKING:
    from harness.training.run import TrainingRun

_ROWS = work.RTE  # training and dev pairs of RTE, from which the updates of a trial follow
_EPOCHS = 3
# Updates before the clock runs (plans, recordings and captures are made then), timed ones, and where one is evaluated.
_WARM, _TIMED, _EVALUATED = 4, 11, 16
_TOO_LARGE = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED")
# Of the memory that a device has free, what lanes may be reckoned to fill before they are tried.
_FILLED = 0.95


@dataclass(frozen=True)
class Load:
    """What every contender trains: batches of so many texts of so many tokens at most, in a precision."""

    kind: str  # "base", "large" or "lora"
    precision: str
    batch: int
    width: int  # tokens of the longest text; the lengths are spread as RTE's
    fields: tuple[tuple[str, object], ...] = ()  # further ones of the recipe

    @property
    def words(self) -> str:
        """For a row."""
        return f"{self.precision}, {self.batch} texts × {self.width} tokens"


@dataclass
class Pace:
    """What a contender was seen to do: seconds of an update over all its lanes, and of an evaluation; peak bytes."""

    update: float
    evaluation: float
    peak: int | None = None
    way: str = ""  # how the steps were run, where that is said
    start: float = 0.0  # seconds from the call to the first timed update: weights, plans, recordings, captures

    def trials_an_hour(self, lanes: int, batch: int) -> float:
        """Of RTE's size and three epochs; what a process needs to start is not counted."""
        updates = _EPOCHS * -(-_ROWS[0] // batch)
        return lanes * 3600 / (updates * self.update + _EPOCHS * self.evaluation)


@dataclass
class Bench:
    """A part's measurements of one model: contenders and packs by load."""

    request: Request
    journal: Journal
    kind: str
    rates: dict[str, float] = field(default_factory=dict)  # precision -> operations a second of a product

    def folder(self, load: Load) -> Path:
        """The work of a load, made where it is not there; waits for the model."""
        request = self.request
        name = name_of(load.kind, request.tiny)
        model = wait_for(request.home / name, request)
        rows = (64, 20) if request.tiny else _ROWS
        fields = "-".join(f"{key}={value}" for key, value in load.fields)
        home = request.home / f"{name}-{load.precision}-{load.batch}x{load.width}{fields and '-'}{fields}"
        if not (home / "plain.json").exists():
            from harness.config.recipe import ModelSpec, Recipe

            task = work.build_texts(home / "texts", rows, load.width, words_of(name))
            recipe = Recipe(
                task=task,
                model=ModelSpec(name=f"{name}-shape", folder=str(model)),
                lr=2e-5,
                epochs=100,  # left long before
                batch_size=load.batch,
                max_length=load.width,
                precision=load.precision,  # type: ignore[arg-type]
                eval_steps=_EVALUATED,
                **dict(load.fields),  # type: ignore[arg-type]
            )
            work.write(home, recipe)
            made = json.loads((home / "plain.json").read_text())["width"]
            if made != load.width:
                raise ValueError(f"the longest text has {made} tokens, not {load.width}")
        return home

    def product_rate(self, precision: str) -> float:
        """The measured rate of products of square matrices, operations a second; measured once a precision."""
        from benchmarks.speed.lanes import product_rate

        if precision not in self.rates:
            self.rates[precision] = product_rate(self.request.device, precision)
        return self.rates[precision]

    def packs(self, load: Load, sizes: Sequence[int], *, captured: bool = True) -> dict[int, Pace]:
        """The pace of each pack size that could be measured, each with its row; a size that can't fit is not tried."""
        folder = self.folder(load)
        found: dict[int, Pace] = {}
        for size in sizes:
            what = f"{load.words}: {size} lane{'s' * (size > 1)}{'' if captured else ' with HARNESS_CAPTURE=off'}"
            reckoned, free = size * self.reckoned(folder), free_memory(self.request.device)
            if free is not None and reckoned > _FILLED * free:
                pace: Pace | str = f"not tried: {reckoned / 2**30:.0f} GiB reckoned, {free / 2**30:.0f} free"
            else:
                with capturing(captured):
                    pace = self.attempt(lambda size=size: pack_pace(folder, size, self.request))  # type: ignore[misc]
            self._pace(what, pace, size, load)
            if isinstance(pace, Pace):
                found[size] = pace
        return found

    def attempt(self, measure: Callable[[], Pace]) -> Pace | str:
        """The pace, or why there is none."""
        if self.request.left < 3:
            return "no time was left"
        return attempt(measure)

    def reckoned(self, folder: Path) -> int:
        """The bytes that a lane is reckoned with."""
        from harness.execution import lanes_memory, model_shape

        recipe = work.recipe(folder)
        return lanes_memory.lane_bytes(recipe, model_shape.trained_count(recipe)) or 0

    def others(self, load: Load) -> dict[str, Pace | str]:
        """The pace of the plain loop and of one Trainer process, or why there is none, each with its row."""
        folder = self.folder(load)
        found = {}
        for name, pace in (("one Trainer process", trainer_pace), ("plain loop", loop_pace)):
            found[name] = self.attempt(lambda pace=pace: pace(folder, self.request))  # type: ignore[misc]
            self._pace(f"{load.words}: {name}", found[name], 1, load)
        return found

    def compare(
        self, load: Load, sizes: Sequence[int], *, least: float | None = None, share: float | None = None,
        others: bool = True,
    ) -> None:  # fmt: skip
        """The rows of a load: paces, the best pack over the others, its share of the products' rate, memory."""
        contenders = self.others(load) if others else {}
        known = self.packs(load, sizes)
        best = max(known, key=lambda size: known[size].trials_an_hour(size, load.batch)) if known else None
        for name, other in contenders.items():
            what = f"{self.kind}, {load.words}: best pack over {'the ' * (name == 'plain loop')}{name}"
            bar = least if name == "one Trainer process" else None
            if best is None or isinstance(other, str):
                why = other if isinstance(other, str) else "no pack was measured"
                self.journal.add(what, "×", (), least=bar, note=why)
                continue
            ours, theirs = known[best].trials_an_hour(best, load.batch), other.trials_an_hour(1, load.batch)
            self.journal.add(what, "×", [ours / theirs], least=bar, note=f"{best} lanes")
        self._share(load, best, known, contenders.get("plain loop"), share)
        self._memory(load, known)

    def _pace(self, what: str, pace: Pace | str, lanes: int, load: Load) -> None:
        say(f"{self.kind}, {what}: {pace}")
        if isinstance(pace, str):
            self.journal.add(f"{what}, trials an hour", "trials/h", (), note=pace)
            return
        note = f"{1e3 * pace.update / lanes:.4g} ms a lane-step"
        note += f", {pace.peak / 2**30:.1f} GiB" if pace.peak else ""
        note += f", {pace.start:.1f} s to start" if pace.start else ""
        note += f", {pace.way}" if pace.way else ""
        hourly = pace.trials_an_hour(lanes, load.batch)
        self.journal.add(f"{what}, trials an hour", "trials/h", [hourly], note=note)

    def _share(
        self, load: Load, best: int | None, known: dict[int, Pace], loop: Pace | str | None, least: float | None
    ) -> None:
        if load.kind == "lora":  # the arithmetic is counted for full fine-tuning alone
            return
        folder = self.folder(load)
        width = json.loads((folder / "plain.json").read_text())["width"]
        operations = work.lane_step(work.recipe(folder), width)
        rate = self.product_rate(load.precision)
        note = f"products at {rate / 1e12:.4g} TFLOP/s, a lane-step has {operations / 1e12:.3g} TFLOP"
        what = f"{self.kind}, {load.words}: share of the products' rate"
        if best is None:
            self.journal.add(f"{what}, best pack", "", (), least=least, note="no pack was measured")
        else:
            shares = [operations * best / known[best].update / rate]
            self.journal.add(f"{what}, best pack", "", shares, least=least, note=f"{best} lanes; {note}")
        if isinstance(loop, Pace):
            self.journal.add(f"{what}, plain loop", "", [operations / loop.update / rate])

    def _memory(self, load: Load, known: dict[int, Pace]) -> None:
        reckoned = self.reckoned(self.folder(load))
        peaks = {size: pace.peak for size, pace in sorted(known.items()) if pace.peak}
        what = f"{self.kind}, {load.words}: memory of a lane over what is reckoned"
        if len(peaks) < 2 or not reckoned:
            self.journal.add(what, "×", (), least=0.75, most=1.25, note="it takes two sizes of pack on a GPU")
            return
        (few, less), *_, (many, more) = peaks.items()
        lane = (more - less) / (many - few)  # type: ignore[operator]
        note = f"{lane / 2**30:.2f} GiB a lane by packs of {few} and {many}, {reckoned / 2**30:.2f} reckoned"
        self.journal.add(what, "×", [lane / reckoned], least=0.75, most=1.25, note=note)


# -------------------------------------------------------------------------------------------------- one contender


class _EnoughError(Exception):
    """A contender has done the updates that were to be timed."""


def attempt(measure: Callable[[], Pace]) -> Pace | str:
    """The pace, or why there is none."""
    try:
        return measure()
    except OutOfTime:
        return "no time was left"
    except Exception as error:  # one contender that breaks is no reason to lose the others
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return "out of memory" if _TOO_LARGE.search(str(error)) else f"{type(error).__name__}: {line}"[:250]
    finally:
        release()


def pack_pace(folder: Path, lanes: int, request: Request, *, compiled: bool = False) -> Pace:
    """How fast a pack trains, by `train` itself, which is left after an evaluation."""
    import torch

    from benchmarks.speed.loop import synchronise
    from harness.training.loop import train

    marks: dict[int, float] = {}
    way = [""]
    began = time.perf_counter()

    def watch(run: TrainingRun) -> None:
        request.check_time()
        step = run.updates
        if step in (_WARM, _WARM + _TIMED, _EVALUATED):
            synchronise(request.device)
            marks[step] = time.perf_counter()
        if step == _EVALUATED:
            way[0] = way_of_steps(run)
            raise _EnoughError

    with suppress(_EnoughError):
        train(
            work.trials(folder, lanes),
            device=request.device,
            threads=request.threads,
            callbacks=[watch],
            compiled=compiled,
        )
    update = (marks[_WARM + _TIMED] - marks[_WARM]) / _TIMED
    evaluation = max(0.0, marks[_EVALUATED] - marks[_WARM + _TIMED] - update * (_EVALUATED - _WARM - _TIMED))
    peak = torch.cuda.max_memory_allocated() if request.device == "cuda" else None
    return Pace(update, evaluation, peak, way[0], marks[_WARM] - began)


def loop_pace(folder: Path, request: Request) -> Pace:
    """How fast the plain loop trains."""
    import torch

    from benchmarks.speed.lanes import plain_seconds
    from benchmarks.speed.loop import Loop, synchronise

    torch.set_num_threads(request.threads)
    loop = Loop(folder, request.device)
    updates = chain.from_iterable(loop.steps(seed) for seed in count(1))
    plain_seconds(updates, request.device, _WARM)
    update = plain_seconds(updates, request.device, _TIMED)
    started = time.perf_counter()
    loop.accuracy()
    synchronise(request.device)
    return Pace(update, time.perf_counter() - started)


def trainer_pace(folder: Path, request: Request) -> Pace:
    """How fast `transformers.Trainer` trains in one process, as it comes."""
    import torch
    from transformers import TrainerCallback, logging

    from benchmarks.speed.loop import synchronise
    from benchmarks.speed.trainer import rows, trainer

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(request.threads)
    marks = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Marks the beginning and the end of the timed updates."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Called by the Trainer after every update."""
            if state.global_step in (_WARM, _WARM + _TIMED):
                synchronise(request.device)
                marks.append(time.perf_counter())

    plan = json.loads((folder / "plain.json").read_text())
    with tempfile.TemporaryDirectory() as home:
        made = trainer(plan, rows(folder), 1, request.device, home, _WARM + _TIMED, callbacks=[Clock()])
        made.train()
        started = time.perf_counter()
        made.evaluate()
        synchronise(request.device)
        evaluation = time.perf_counter() - started
    return Pace((marks[1] - marks[0]) / _TIMED, evaluation)


def way_of_steps(run: TrainingRun) -> str:
    """How a run's steps reach the device, and why not as it was asked for or tried."""
    reason = run.replayer.reason
    return run.replayer.step_mode + (f" ({reason})" if reason else "")


@contextmanager
def capturing(allowed: bool) -> Iterator[None]:
    """Let steps be captured, or not."""
    before = os.environ.pop("HARNESS_CAPTURE", None)
    if not allowed:
        os.environ["HARNESS_CAPTURE"] = "off"
    try:
        yield
    finally:
        os.environ.pop("HARNESS_CAPTURE", None)
        if before is not None:
            os.environ["HARNESS_CAPTURE"] = before


def free_memory(device: str) -> int | None:
    """Bytes that a GPU has free now; None without one."""
    if device != "cuda":
        return None
    import torch

    release()
    return int(torch.cuda.mem_get_info()[0])


def release() -> None:
    """Give back what the contender before left."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    torch.set_float32_matmul_precision("highest")


def say(text: str) -> None:
    """Progress, for the log."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


# --------------------------------------------------------------------------------------------------------- the parts


def base(request: Request, journal: Journal) -> None:
    """bert-base's shape, in the order of what matters most."""
    bench = Bench(request, journal, "base")
    _say_how(journal)
    if request.tiny:
        bench.compare(Load("base", "bf16", 4, 16), (1, 2), least=8.0, share=0.5)
        return
    rte = Load("base", "bf16", 16, 128)
    bench.compare(rte, (8, 1, 16, 4, 2, 32), least=8.0, share=0.5)
    bench.packs(rte, (1, 8), captured=False)
    short = Load("base", "bf16", 16, 32)
    bench.compare(short, (8, 1, 32))
    bench.packs(short, (1, 8), captured=False)
    bench.compare(Load("base", "tf32", 16, 128), (8, 1, 12), least=8.0)
    bench.compare(Load("base", "bf16", 64, 128), (4, 1))
    bench.compare(Load("base", "tf32", 16, 32), (8, 1))
    try:
        _profile(bench, rte, 8)
    except Exception as error:  # it is for the log alone
        say(f"no profile: {error}")


def large(request: Request, journal: Journal) -> None:
    """bert-large's shape, packs that fit."""
    bench = Bench(request, journal, "large")
    _say_how(journal)
    if request.tiny:
        bench.compare(Load("large", "bf16", 4, 16), (1, 2), least=4.0)
        return
    rte = Load("large", "bf16", 16, 128)
    bench.compare(rte, (4, 1, 2, 8), least=4.0)
    bench.compare(Load("large", "tf32", 16, 128), (4, 1), least=4.0)
    bench.compare(Load("large", "bf16", 16, 32), (8, 1))
    bench.packs(rte, (1, 4), captured=False)


def lora(request: Request, journal: Journal) -> None:
    """LoRA's lanes over one frozen base of half a billion parameters, held once."""
    bench = Bench(request, journal, "lora")
    journal.say("Qwen2-0.5B's shape (494 M parameters, random weights), LoRA of rank 8 on queries and values.")
    if request.tiny:
        bench.compare(Load("lora", "bf16", 4, 16, (("method", "lora"),)), (1, 2), others=False)
        return
    short = Load("lora", "bf16", 16, 64, (("method", "lora"),))
    bench.compare(short, (1, 16, 4), others=False)
    bench.packs(short, (1, 4), captured=False)


def compiled(request: Request, journal: Journal) -> None:
    """A step compiled by Inductor beside one that isn't, at the load that the bars are for."""
    bench = Bench(request, journal, "base")
    load = Load("base", "bf16", 4, 16) if request.tiny else Load("base", "bf16", 16, 128)
    journal.say("The first pace is that of a compiled step, whose start counts its compilation; the other is without.")
    lanes = 1 if request.tiny else 8
    folder = bench.folder(load)
    pace = bench.attempt(lambda: pack_pace(folder, lanes, request, compiled=True))
    bench._pace(f"{load.words}: {lanes} lanes compiled", pace, lanes, load)
    forget_recordings()
    bench.packs(load, (lanes,))


def forget_recordings() -> None:
    """Have what is recorded of a network recorded anew."""
    from harness.models import pretrained

    pretrained._networks.cache_clear()


def _say_how(journal: Journal) -> None:
    journal.say(
        f"{_TIMED} updates after {_WARM} to warm up and one evaluation of each contender, all in one process; trials "
        f"an hour are those of {_EPOCHS} epochs on {_ROWS[0]:,} training and {_ROWS[1]} dev texts, without any start."
    )


def _profile(bench: Bench, load: Load, lanes: int) -> None:
    """Which kernels the updates of a pack spend their time in, for the log alone."""
    from torch.profiler import ProfilerActivity, profile

    from harness.training.callbacks import report_progress
    from harness.training.loop import train

    def progress(step: int, _: int) -> None:
        bench.request.check_time()
        if step == _WARM:
            profiler.start()
        if step == _WARM + 2:
            profiler.stop()
            raise _EnoughError

    for captured in (True, False):
        profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        with capturing(captured), suppress(_EnoughError):
            train(
                work.trials(bench.folder(load), lanes), device=bench.request.device, threads=bench.request.threads,
                callbacks=[report_progress(progress)],
            )  # fmt: skip
        print(
            f"---- two updates of {lanes} lanes, {load.words}, {'as it is' if captured else 'not captured'}", flush=True
        )
        print(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=90))
        release()
