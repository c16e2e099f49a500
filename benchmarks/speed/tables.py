"""The tables: what is compared with what, on which work, and against which bar."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.config.recipe import ModelSpec, Recipe
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.execution import lanes_memory, model_shape

from . import lora as lora_work
from . import work
from .processes import HARNESS, ROOT, NotMeasured, answer, environment, module, pool, run, started, together
from .results import Bar, Row, paired
from .work import SIZES

SWEEP = ROOT / "sweeps" / "rte_lr.yaml"
_TRIALS, _MANY_TRIALS = 16, 96  # the latter: as many as `rte_lr` has
_LEAST_SWEEP = {  # over Trainer, a process a trial, and over a plain loop
    (_TRIALS, "float32"): (3.0, 1.3),
    (_TRIALS, "bf16"): (3.0, 1.3),
    (_MANY_TRIALS, "float32"): (2.5, 1.35),
    (_MANY_TRIALS, "bf16"): (3.5, 1.8),
}
_NO_GPU = "no GPU here"


@dataclass(frozen=True)
class Bench:
    """What is asked for, and where: `device` is that of the tables of a GPU, None without one."""

    home: Path
    repetitions: int
    steps: int
    epochs: int  # of a trial on the GPU
    device: str | None
    shape: str | None  # in the place of base and large, to try the GPU's tables without one
    cores: int


@dataclass(frozen=True)
class Measured:
    """The rows of a table and what is to be said of all of them."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"  {text}", file=sys.stderr, flush=True)


def in_turns(
    contenders: Mapping[str, Callable[[], float]], repetitions: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Each contender's number, in turns; and why one that failed has none."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    failed: dict[str, str] = {}
    for turn in range(repetitions):
        for name, measure in contenders.items():
            if name in failed:
                continue
            try:
                found[name].append(measure())
            except NotMeasured as why:
                failed[name], found[name] = str(why), []
            else:
                say(f"{turn + 1} of {repetitions}: {name} {found[name][-1]:.4g}")
    return found, failed


def ratio(what: str, ours: Sequence[float], theirs: Sequence[float], least: float | None, why: str = "") -> Row:
    """How many times ours is theirs, in pairs, against a bar."""
    bar = None if least is None else Bar(least=least)
    values = paired(ours, theirs) if ours and theirs else ()
    return Row(what=what, unit="×", values=values, bar=bar, note="" if values else why or "")


def quickest(candidates: Mapping[str, Callable[[], float]]) -> tuple[str, str]:
    """The candidate with the highest rate in a short probe, and the probe in words; raises NotMeasured without one."""
    rates: dict[str, float] = {}
    failed = ""
    for name, measure in candidates.items():
        try:
            rates[name] = measure()
        except NotMeasured as why:
            failed = str(why)
        else:
            say(f"probe: {name}, {rates[name]:.3g} steps a second")
    if not rates:
        raise NotMeasured(failed)
    best = max(rates, key=lambda name: rates[name])
    return best, "; ".join(f"{name} {rate:.3g} steps a second" for name, rate in rates.items())


# ------------------------------------------------------------------------------------------------ a sweep, end to end


def sweep(bench: Bench, epochs: int = 3, precision: str = "float32", trials: int = _TRIALS) -> Measured:
    """Some trials of the embedded sweep from the command to the report, against what people run."""
    least = _LEAST_SWEEP[trials, precision]
    if find_spec("ray") is None:
        lacking = dict.fromkeys(("harness", "trainer", "loop"), "ray is not installed")
        return Measured(_sweep_rows({}, lacking, [], least))
    asked = [f"seeds=1..{trials}", f"epochs={epochs}", f"precision={precision}"]
    overrides = ["lr=4e-4", "bias_correction=on", "pad_to_multiple_of=16", *asked]
    planned = expand(load(SWEEP, "embedded", overrides))
    assert len(planned) == trials
    folder = work.write(bench.home / f"embedded-{epochs}-{precision}", planned[-1].recipe)
    seen, cores = environment("cpu"), bench.cores
    scores: dict[str, list[float]] = {}
    last_record: list[float] = []

    def harness() -> float:
        with tempfile.TemporaryDirectory(dir=bench.home) as results:
            words = ["sweep", str(SWEEP), "--profile", "embedded", "--results", results]
            begun = time.time()
            seconds, _ = run([*HARNESS, *words, *(word for one in overrides for word in ("--set", one))], seen)
            records = list(Path(results).glob("*/trials/*.json"))
            last_record.append(max(path.stat().st_mtime for path in records) - begun)
            kept = [json.loads(path.read_text())["measured"]["final_score"] for path in records]
        if len(kept) != trials:
            raise NotMeasured(f"{len(kept)} of {trials} trials were finished")
        scores["harness"] = kept
        return seconds

    def trainers(at_once: int, threads: int, count: int, most: int | None = None) -> float:
        _accelerate()
        commands = [module("trainer", folder, seeds=[s], threads=threads, max_steps=most) for s in range(1, count + 1)]
        seconds, answers = pool(commands, at_once, environment("cpu", threads))
        scores["trainer"] = [score for one in answers for score in one["scores"]]
        return seconds

    def loops(at_once: int, threads: int, count: int, most: int | None = None) -> float:
        shares = [list(range(1 + first, count + 1, at_once)) for first in range(at_once)]
        commands = [module("loop", folder, seeds=seeds, threads=threads, max_steps=most) for seeds in shares]
        seconds, answers = pool(commands, at_once, environment("cpu", threads))
        scores["loop"] = [score for one in answers for score in one["scores"]]
        return seconds

    # As many processes as cores with a thread each, or one with all of them.
    at_most = min(cores, trials)
    ways = {
        f"{at_once} at once, {threads} thread{'s' * (threads > 1)}": (at_once, threads)
        for at_once, threads in dict.fromkeys([(at_most, cores // at_most), (1, cores)])
    }
    notes = [
        f"{trials} trials of {epochs} epochs, {cores} cores, all in {precision}; fresh processes, imports counted.",
        "The recipe pads to 16 tokens, where a pack's softmax is fast; the others train at the longest text's 15.",
    ]
    contenders: dict[str, Callable[[], float]] = {"harness": harness}
    why: dict[str, str] = {}
    most = 60
    for name, contender in (("trainer", trainers), ("loop", loops)):
        try:
            # Two trials a process, since a loop's start is shared by several.
            candidates = {
                way: lambda c=contender, a=at_once, t=threads: 2 * a * most / c(a, t, 2 * a, most)  # type: ignore[misc]
                for way, (at_once, threads) in ways.items()
            }
            best, probe = quickest(candidates)
        except NotMeasured as reason:
            why[name] = str(reason)
            continue
        notes.append(f"{name}: {best} (probe of {most} steps: {probe}).")
        contenders[name] = lambda c=contender, way=ways[best]: c(*way, trials)  # type: ignore[misc]
    found, failed = in_turns(contenders, bench.repetitions)
    means = [f"{name} {statistics.mean(values):.3f}" for name, values in scores.items() if values]
    notes.append(f"Mean dev accuracy: {', '.join(means)}.")
    return Measured(_sweep_rows(found, why | failed, last_record, least), tuple(notes))


def _sweep_rows(
    found: Mapping[str, Sequence[float]],
    why: Mapping[str, str],
    last_record: Sequence[float],
    least: tuple[float, float],
) -> tuple[Row, ...]:
    ours, trainer, loop = (found.get(name, []) for name in ("harness", "trainer", "loop"))
    return (
        ratio("`harness sweep` over Trainer, a process a trial", trainer, ours, least[0], _of(why, "trainer")),
        ratio("`harness sweep` over the plain loop over seeds", loop, ours, least[1], _of(why, "loop")),
        _shown("`harness sweep`, start to exit", "s", ours, why.get("harness")),
        _shown("`harness sweep`, until the last record", "s", last_record if ours else [], why.get("harness")),
        _shown("Trainer, a process a trial, start to exit", "s", trainer, why.get("trainer")),
        _shown("plain loop over seeds, start to exit", "s", loop, why.get("loop")),
    )


def _shown(what: str, unit: str, values: Sequence[float], why: str | None, bar: Bar | None = None) -> Row:
    return Row(what=what, unit=unit, values=tuple(values), bar=bar, note="" if values else why or "")


def _of(why: Mapping[str, str], *names: str) -> str:
    """Why one of these, or else the harness, has no number."""
    return next((why[name] for name in (*names, "harness", *why) if name in why), "")


# ---------------------------------------------------------------------------------------------- a step of the engine


def embedded(bench: Bench, **fields: object) -> Path:
    """The embedded sweep's work, long enough for any number of steps."""
    recipe = expand(load(SWEEP, "embedded", ["lr=4e-4"]))[-1].recipe
    return work.write(bench.home / "embedded-steps", recipe.model_copy(update={"epochs": 100} | fields))


def steps_cpu(bench: Bench, **fields: object) -> Measured:
    """A lane-step by lanes of the pack, on one thread."""
    return _steps(bench, embedded(bench, **fields), "cpu", least_alone=1.0, least_share=None)


def steps_gpu(bench: Bench, shape: str, precision: str) -> Measured:
    """The same on the GPU, with the share that is reached of the rate of matrix products."""
    least = 0.5 if (shape, precision) == ("base", "bf16") else None
    if bench.device is None:
        bar = None if least is None else Bar(least=least)
        return Measured((_shown("the best number of lanes: share of the rate of products", "", [], _NO_GPU, bar),))
    folder = work.build(bench.home, bench.shape or shape, precision, _texts(bench), 100)
    return _steps(bench, folder, bench.device, least_alone=None, least_share=least)


def _steps(bench: Bench, folder: Path, device: str, least_alone: float | None, least_share: float | None) -> Measured:
    options = {"device": device, "number": bench.steps, "repetitions": bench.repetitions}
    _, said = run(module("lanes", folder, "steps", **options), environment(device), show=True)
    found = answer(said)
    seconds, failed, rate, flops = (found[key] for key in ("seconds", "failed", "rate", "flops"))
    plain = seconds["plain"]
    rows = [Row(what="plain module", unit="ms", values=tuple(1e3 * one for one in plain))]
    for size in map(str, SIZES):
        lanes = f"{size} lane{'s' * (size != '1')}"
        rows.append(_shown(f"{lanes}: a lane-step", "ms", [1e3 * one for one in seconds[size]], failed.get(size)))
    for size in map(str, SIZES):
        lanes, least = f"{size} lane{'s' * (size != '1')}", least_alone if size == "1" else None
        rows.append(ratio(f"{lanes}: speed over the plain module's", plain, seconds[size], least, failed.get(size, "")))
    shares = {name: [flops / one / rate for one in values] for name, values in seconds.items()}
    best = min((size for size in map(str, SIZES) if seconds[size]), key=lambda size: statistics.median(seconds[size]))
    rows.append(Row(what="plain module: share of the rate of products", unit="", values=tuple(shares["plain"])))
    for size in dict.fromkeys(["1", best]):
        bar = Bar(least=least_share) if size == best and least_share is not None else None
        what = f"{size} lane{'s' * (size != '1')}{', the best' * (size == best)}: share of the rate of products"
        rows.append(_shown(what, "", shares[size], failed.get(size), bar))
    notes = (
        f"{bench.steps} steps a repetition after 3 to warm up, {'one thread' if device == 'cpu' else device}.",
        f"A lane-step has {flops / 1e9:.4g} GFLOP in matrix products: 6 × weights in products × tokens, and "
        f"attention's; the best square product of this precision ran at {rate / 1e9:,.0f} GFLOP/s.",
    )
    return Measured(tuple(rows), notes)


def recording(bench: Bench) -> Measured:
    """What recording for a diagnosis adds to a step."""
    options = {"device": "cpu", "number": bench.steps, "repetitions": bench.repetitions}
    folder = embedded(bench, epochs=7)  # of a run this short each update is recorded
    _, said = run(module("lanes", folder, "recording", **options), environment("cpu"), show=True)
    seconds = answer(said)["seconds"]
    rows = []
    for size, values in seconds["with"].items():
        lanes = f"{size} lane{'s' * (size != '1')}"
        added = tuple(100 * (one / other - 1) for one, other in zip(values, seconds["without"][size], strict=True))
        rows.append(Row(what=f"{lanes}: a step takes longer by", unit="%", values=added, bar=Bar(most=5)))
    return Measured(tuple(rows), (f"{bench.steps} steps a repetition after 3 to warm up, in turns, one thread.",))


# --------------------------------------------------------------------------------------------------- trials an hour


# Over one Trainer process at a time, and over the best of the others.
_LEAST = {"base": (8.0, 3.0), "large": (4.0, 1.5)}
_OTHERS = {"trainer": "Trainer processes at once", "loop": "plain loops at once"}


def hour(bench: Bench, shape: str, precision: str) -> Measured:
    """Whole trials on the GPU, against Trainer processes and plain loops, one and several at once."""
    if bench.device is None:
        return Measured(
            _hour_rows(shape, {}, {"harness": _NO_GPU, "one": _NO_GPU, "trainer": _NO_GPU, "loop": _NO_GPU})
        )
    device = bench.device
    folder = work.build(bench.home, bench.shape or shape, precision, _texts(bench), bench.epochs)
    seen = environment(device, max(1, bench.cores // 8) if device == "cuda" else 1)
    scores: dict[str, list[float]] = {}
    packs: list[int] = []

    def harness() -> float:
        seconds, said = run(module("lanes", folder, "trials", device=device, number=_TRIALS), seen)
        found = answer(said)
        packs[:], scores["the harness"] = found["packs"], found["scores"]
        return _TRIALS * 3600 / seconds

    def one() -> float:
        _accelerate()
        seconds, (found,) = pool([module("trainer", folder, seeds=[1], device=device)], 1, seen)
        scores["one Trainer"] = found["scores"]
        return 3600 / seconds

    def several(name: str, at_once: int, most: int | None = None) -> float:
        """Trials an hour, or updates a second of a probe without the processes' starts."""
        if name == "trainer":
            _accelerate()
        commands = [
            module(name, folder, seeds=[seed], device=device, max_steps=most, wait=True)
            for seed in range(1, at_once + 1)
        ]
        loading, seconds, answers = together(commands, seen)
        if most is not None:
            return at_once * most / seconds
        scores[_OTHERS[name]] = [score for one in answers for score in one["scores"]]
        # A loop loads once for all its trials, as the harness does; Trainers' starts hide behind each other's training.
        return _TRIALS * 3600 / (seconds * _TRIALS / at_once + (loading if name == "loop" else 0.0))

    contenders: dict[str, Callable[[], float]] = {"harness": harness, "one": one}
    notes, why = [], {}
    for name, what in _OTHERS.items():
        rates: dict[int, float] = {}
        for at_once in (1, 2, 4, 8):
            try:
                rates[at_once] = several(name, at_once, 40)
            except NotMeasured as reason:  # as a rule, no memory for so many
                why[name] = str(reason)
                break
            say(f"probe: {what}, {at_once}: {rates[at_once]:.3g} steps a second")
            if rates[at_once] < max(rates.values()):
                break
        if rates:
            why.pop(name, None)
            best = max(rates, key=lambda at_once: rates[at_once])
            probe = ", ".join(f"{at_once}: {rate:.3g}" for at_once, rate in rates.items())
            notes.append(f"{what}: {best} (steps a second in a probe by processes: {probe}).")
            contenders[name] = lambda name=name, best=best: several(name, best)  # type: ignore[misc]
    found, failed = in_turns(contenders, bench.repetitions)
    means = [f"{name} {statistics.mean(values):.3f}" for name, values in scores.items() if values]
    notes += [
        f"Trials of {bench.epochs} epoch{'s' * (bench.epochs > 1)}; {_TRIALS} of the harness's in packs of "
        f"{', '.join(map(str, packs)) or 'none'}, their process's start counted, as the one Trainer's is and once for "
        f"{_TRIALS} trials the loops'; not that of Trainers at once, which hides behind each other's training.",
        f"Mean dev accuracy: {', '.join(means)}.",
    ]
    return Measured(_hour_rows(shape, found, why | failed), tuple(notes))


def _hour_rows(shape: str, found: Mapping[str, list[float]], why: Mapping[str, str]) -> tuple[Row, ...]:
    ours, one = found.get("harness", []), found.get("one", [])
    others = [found[name] for name in _OTHERS if found.get(name)]
    best = [max(values) for values in zip(*others, strict=True)]
    least_one, least_best = _LEAST[shape]
    return (
        ratio("the harness over one Trainer process at a time", ours, one, least_one, _of(why, "one")),
        ratio("the harness over the best of the others", ours, best, least_best, _of(why, *_OTHERS)),
        _shown("the harness", "trials/h", ours, why.get("harness")),
        _shown("one Trainer process at a time", "trials/h", one, why.get("one")),
        *(_shown(what, "trials/h", found.get(name, []), why.get(name)) for name, what in _OTHERS.items()),
    )


def _accelerate() -> None:
    if find_spec("accelerate") is None:
        raise NotMeasured("accelerate is not installed")


def _texts(bench: Bench) -> tuple[int, int]:
    return (320, 40) if bench.shape == "tiny" else work.RTE


# ----------------------------------------------------------------------------------------------------------- memory


def memory(bench: Bench) -> Measured:
    """What one more lane takes, against what the harness reckons with."""
    rows = []
    texts = work.build_texts(bench.home / "peak", (64, 100), 15, 60)
    plain = Recipe(task=texts, model=ModelSpec(name="embedded"), lr=1e-4, epochs=1, max_length=16)
    for precision in ("float32", "bf16"):
        folder = work.write(bench.home / f"peak-{precision}", plain.model_copy(update={"precision": precision}))
        rows += _memory(bench, f"embedded, {precision}, CPU, process", folder, "cpu", 8)
    for precision in ("bf16", "tf32"):
        what = f"bert-{bench.shape or 'base'} shape, {precision}, {bench.device or 'GPU'}"
        if bench.device is None:
            rows.append(_shown(f"{what}: a lane over `lane_bytes`", "×", [], _NO_GPU, Bar(least=0.75, most=1.25)))
        else:
            folder = work.build(bench.home, bench.shape or "base", precision, (64, 100), 1)
            rows += _memory(bench, what, folder, bench.device, 4)
    return Measured(tuple(rows), ("Peaks of packs of n and 2n lanes in fresh processes, an epoch with its evaluation; "
                                  "their difference by n.",))  # fmt: skip


def _memory(bench: Bench, what: str, folder: Path, device: str, lanes: int) -> list[Row]:
    recipe = work.recipe(folder)
    reckoned = lanes_memory.lane_bytes(recipe, model_shape.parameter_count(recipe.model))
    assert reckoned is not None

    def peak(number: int) -> float:
        _, said = run(module("lanes", folder, "peak", device=device, number=number), environment(device))
        return float(answer(said)["bytes"]) / 2**20

    found, failed = in_turns(
        {f"{lanes} lanes": lambda: peak(lanes), f"{2 * lanes} lanes": lambda: peak(2 * lanes)}, bench.repetitions
    )
    few, many = found.values()
    each = [(more - less) / lanes for less, more in zip(few, many, strict=False)]
    why, bar = _of(failed), Bar(least=0.75, most=1.25)
    return [
        _shown(f"{what}: a lane over `lane_bytes`", "×", [one / (reckoned / 2**20) for one in each], why, bar),
        _shown(f"{what}: a lane (reckoned: {reckoned / 2**20:.1f} MiB)", "MiB", each, why),
        *(_shown(f"{what}: peak of {name}", "MiB", values, failed.get(name)) for name, values in found.items()),
    ]


METHODS: dict[str, dict[str, object]] = {
    "full": {},
    "LoRA, rank 8": {"method": "lora"},
    "top layer": {"method": "top_layers", "top_layers": 1},
    "head": {"method": "head"},
}


def methods(bench: Bench) -> Measured:
    """Memory and time by method and number of lanes: what is not trained is held once for all lanes."""
    device, shape = bench.device or "cpu", (bench.shape or "base") if bench.device else "mini"
    # Texts for sixteen updates of sixteen.
    plain = work.recipe(work.build(bench.home / "methods", shape, "float32", (256, 32), 1))
    rows = []
    for name, fields in METHODS.items():
        home = bench.home / "methods" / name.replace(" ", "-")
        folder = work.write(home, plain.model_copy(update=fields))
        for lanes in (1, 4, 16):
            found: list[dict[str, float]] = []
            why = ""
            for _ in range(bench.repetitions):
                try:
                    _, said = run(module("lanes", folder, "peak", device=device, number=lanes), environment(device))
                except NotMeasured as error:
                    why = str(error)
                    break
                found.append(answer(said))
            what = f"{name}, {lanes} lane{'s' * (lanes != 1)}"
            rows.append(_shown(f"{what}: peak", "MiB", [one["bytes"] / 2**20 for one in found], why))
            rows.append(_shown(f"{what}: a lane-step", "ms", [1e3 * one["seconds"] for one in found], why))
            say(what)
    sizes, of = work.SHAPES[shape], "the whole of it" if device == "cpu" else "what is allocated"
    notes = (
        f"{shape} shape: {sizes.layers} layers of {sizes.hidden}, texts of up to {sizes.width} tokens, batch 16, "
        f"float32, {device}; a fresh process each, whose peak is {of}.",
    )
    return Measured(tuple(rows), notes)


def lora(bench: Bench) -> Measured:
    """Memory and CPU time of an adapter's lanes over one base, against a process of Trainer and peft a trial."""
    folder = lora_work.build(bench.home / "lora", bench.shape or "small")
    commands = {f"{lanes}": module("lanes", folder, "peak", number=lanes) for lanes in _LORA_LANES}
    commands["trainer"] = module("lora_trainer", folder, seeds=[1])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    lacking = [name for name in ("accelerate", "peft") if find_spec(name) is None]
    why = {"trainer": f"{lacking[0]} is not installed"} if lacking else {}
    for turn in range(bench.repetitions):
        for name in (name for name in commands if name not in why):
            try:
                found[name].append(answer(run(commands[name], environment("cpu"))[1]))
            except NotMeasured as error:
                why[name] = str(error)
        say(f"{turn + 1} of {bench.repetitions}")
    layers, hidden, words = lora_work.SIZES[bench.shape or "small"]
    notes = (
        f"A decoder of GPT-2's shape with random weights, {layers} layers of {hidden}, {words:,} words; LoRA of rank 8 "
        f"on its attention, batches of 2 examples of {lora_work.WIDTH} tokens, float32, one thread. A fresh process "
        "each: one for all lanes, or one a trial. A process's own memory is without the libraries and the model's "
        "file, which processes share; of n processes it is n times that of one, which was measured alone.",
    )
    return Measured(_lora_rows(found, why), notes)


_LORA_LANES = (1, 4, 16)


def _lora_rows(found: Mapping[str, list[dict[str, float]]], why: Mapping[str, str]) -> tuple[Row, ...]:
    def values(name: str, key: str, unit: float) -> list[float]:
        return [each[key] / unit for each in found[name]]

    rows, reason = [], _of(why, "trainer", *map(str, _LORA_LANES))
    for lanes in _LORA_LANES[1:]:
        theirs = [lanes * own for own in values("trainer", "own", 1)]
        what = f"own memory of {lanes} processes of Trainer and peft over {lanes} lanes"
        rows.append(ratio(what, theirs, values(f"{lanes}", "own", 1), None, reason))
    for lanes in _LORA_LANES:
        what = f"CPU time of an update of Trainer and peft over a lane-step of {lanes}"
        rows.append(
            ratio(what, values("trainer", "cpu_seconds", 1), values(f"{lanes}", "cpu_seconds", 1), None, reason)
        )
    for name, what in [*((f"{n}", f"{n} lane{'s' * (n > 1)}") for n in _LORA_LANES), ("trainer", "Trainer and peft")]:
        step = "CPU time of an update" if name == "trainer" else "CPU time of a lane-step"
        rows.append(_shown(f"{what}: own memory", "MiB", values(name, "own", 2**20), why.get(name)))
        rows.append(_shown(f"{what}: the whole process", "MiB", values(name, "bytes", 2**20), why.get(name)))
        rows.append(_shown(f"{what}: {step}", "ms", values(name, "cpu_seconds", 1e-3), why.get(name)))
    return tuple(rows)


# ------------------------------------------------------------------------------------------------------------- start


def start(bench: Bench) -> Measured:
    """How long a person waits before anything happens."""
    home = bench.home / "start"
    texts = work.build_texts(home, (16, 16), 15, 60)
    assert texts.files is not None
    sweep = home / "small.yaml"
    sweep.write_text(
        "title: One step a trial\nmodel: embedded\nlr: 1e-4\nepochs: 1\nmax_length: 16\nseeds: 1..2\n"
        f"task: {{name: bench, files: {{train: {texts.files.train}, validation: {texts.files.validation}}}}}\n"
    )
    seen = environment("cpu")
    finished = home / "results"
    run([*HARNESS, "sweep", str(sweep), "--results", str(finished), "--in-process"], seen)

    def first_record(*words: str) -> float:
        with tempfile.TemporaryDirectory(dir=home) as results:
            command = [*HARNESS, "sweep", str(sweep), "--results", results, "--set", "seeds=1..1", *words]
            return started(command, seen, lambda: any(Path(results).glob("*/trials/*.json")))

    def over_ray() -> float:
        if find_spec("ray") is None:
            raise NotMeasured("ray is not installed")
        return first_record()

    imports = [sys.executable, "-c", "import harness.cli.app, harness.report.page"]
    plan = [*HARNESS, "plan", str(sweep), "--results", str(finished)]
    report = [*HARNESS, "report", str(sweep), "--results", str(finished)]
    contenders: dict[str, Callable[[], float]] = {
        "`harness plan`, start to exit": lambda: run(plan, seen)[0],
        "`harness report`, all that it imports": lambda: run(imports, seen)[0],
        "`harness report` of two trials, start to exit": lambda: run(report, seen)[0],
        "`harness sweep --in-process`, until the record of a trial of one step": lambda: first_record("--in-process"),
        "`harness sweep` over Ray, until the record of a trial of one step": over_ray,
    }
    found, failed = in_turns(contenders, bench.repetitions)
    bars = [Bar(most=1.5), Bar(most=1.5)]
    rows = [
        _shown(name, "s", values, failed.get(name), bars[number] if number < len(bars) else None)
        for number, (name, values) in enumerate(found.items())
    ]
    for name, command in (("plan", plan), ("report", report)):
        rows.append(_not_loaded(name, command[len(HARNESS) :], seen))
    return Measured(tuple(rows))


def _not_loaded(name: str, words: Sequence[str], seen: dict[str, str]) -> Row:
    """Whether a command leaves the heavy packages alone."""
    code = (
        "import sys\nfrom harness.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('\\nloaded:' + ','.join(sorted({'torch', 'ray', 'transformers'} & set(sys.modules))))"
    )
    what, bar = f"`harness {name}`: how many of torch, ray and transformers it loads", Bar(most=0)
    try:
        _, said = run([sys.executable, "-c", code, *words], seen)
    except NotMeasured as why:
        return _shown(what, "", [], str(why), bar)
    loaded = [one for one in said.rpartition("\nloaded:")[2].strip().split(",") if one]
    return Row(what=what, unit="", values=(float(len(loaded)),), bar=bar, note=", ".join(loaded))


# ------------------------------------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Entry:
    """A table: its title, and how it is measured."""

    title: str
    measure: Callable[[Bench], Measured]


def _bert(shape: str, precision: str) -> dict[str, Entry]:
    name = f"{shape}-{precision}"
    return {
        name: Entry(f"Trials an hour: bert-{shape} shape, RTE's lengths, {precision}, GPU",
                    lambda bench: hour(bench, shape, precision)),
        f"{name}-steps": Entry(f"A lane-step by lanes: bert-{shape} shape, {precision}, GPU",
                               lambda bench: steps_gpu(bench, shape, precision)),
    }  # fmt: skip


TABLES: dict[str, Entry] = {
    "sweep": Entry("A sweep of 16 trials, end to end, CPU", sweep),
    "sweep-bf16": Entry("A sweep of 16 trials in bf16, end to end, CPU", lambda bench: sweep(bench, precision="bf16")),
    "sweep-long": Entry("A sweep of 16 trials of 8 epochs, end to end, CPU", lambda bench: sweep(bench, 8)),
    "sweep-96": Entry("A sweep of 96 trials, end to end, CPU", lambda bench: sweep(bench, trials=_MANY_TRIALS)),
    "sweep-96-bf16": Entry(
        "A sweep of 96 trials in bf16, end to end, CPU",
        lambda bench: sweep(bench, precision="bf16", trials=_MANY_TRIALS),
    ),
    "steps": Entry("A lane-step by lanes: the embedded model, CPU, one thread", steps_cpu),
    "steps-bf16": Entry(
        "A lane-step by lanes: the embedded model padded to 16 tokens, bf16, CPU, one thread",
        lambda bench: steps_cpu(bench, precision="bf16", pad_to_multiple_of=16),
    ),
    **_bert("base", "bf16"),
    **_bert("base", "tf32"),
    **_bert("large", "bf16"),
    **_bert("large", "tf32"),
    "recording": Entry("What recording for a diagnosis adds: the embedded model, CPU, one thread", recording),
    "memory": Entry("Memory of a lane", memory),
    "methods": Entry("Memory and time by method and lanes", methods),
    "lora": Entry("LoRA by lanes on one base, against a process a trial, CPU", lora),
    "start": Entry("From the command to the first sign", start),
}
LONG = ("sweep-long", "sweep-96", "sweep-96-bf16")


def here(device: str | None, shape: str | None, home: Path, repetitions: int, steps: int, epochs: int) -> Bench:
    """What this machine can measure."""
    return Bench(home, repetitions, steps, epochs, device, shape, len(os.sched_getaffinity(0)))
