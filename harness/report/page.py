"""One self-contained page, Markdown, tables and figures of a study, written whole or not at all."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from harness.analysis import analyze
from harness.analysis.analyze import Analysis
from harness.analysis.cells import NEAR_ENTROPY
from harness.common.text import Scalar, show
from harness.config.recipe import Recipe, Spec
from harness.config.trials import Sweep
from harness.data import label_notes, vocabulary
from harness.records.record import Environment
from harness.records.study import Study
from harness.report import formatting, page_notes
from harness.report import opening as findings
from harness.report.figures import all_figures
from harness.report.formatting import Table, percent, score
from harness.report.sections import diagnosis

LARGEST_INLINE_SVG = 250_000  # bytes; the page carries larger figures as PNG, to stay light with very many runs
MOST_RUNS = 2000  # on the page; the file has them all
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\":,;()]+/)+")


@dataclass(frozen=True)
class Report:
    """What was written: the folder and its page, and what they were made from."""

    folder: Path
    page: Path
    found: Analysis

    @property
    def summary(self) -> dict[str, object]:
        """What `harness report --json` prints; made when asked for, for every table is in it."""
        return summary(self.found)


# ------------------------------------------------------------------------------------------------------- for programs


def _single(values: Iterable[float]) -> float | None:
    distinct = set(values)
    return float(distinct.pop()) if len(distinct) == 1 else None


def summary(found: Analysis) -> dict[str, object]:
    """The contract of `harness report --json`: scores as fractions, 95 % Wilson bounds, None where not known.

    `majority` is None before any run is finished, and where the cells differ in it (several tasks). `tables` has every
    table of the analysis, a list of rows each.
    """
    study = found.study
    keys = ["planned", "finished", "crashed", "missing", "failed", "failed_low", "failed_high", "mean", "sd", "min"]
    keys += ["median", "max", "judged", "scored", "at_chance", "best_mean", "loss", "majority"]
    keys += [key for key in ("tested", "test_mean", "test_sd") if key in found.cells]
    rows = [
        {"axes": dict(study.cells[row["cell"]].axes)} | {key: formatting.json_value(row[key]) for key in keys}
        for row in found.cells.to_dict("records")
    ]
    made = {name: formatting.json_rows(table) for name, table in found.tables.items()}
    return {
        "sweep": study.sweeps[0].name if len(study.sweeps) == 1 else study.name,
        "profile": study.profile,
        "title": study.title,
        "stand_in": study.stand_in,
        "majority": _single(pd.to_numeric(study.runs["majority_score"]).dropna()),
        "answer": findings.answer(found),
        "cells": rows,
        "tables": made,
        **({"baselines": made["baselines"]} if any(sweep.baselines for sweep in study.sweeps) else {}),
    }


def _runs_csv(runs: pd.DataFrame) -> str:
    """One row a planned run, without file-system paths; an error is its last line."""
    shown = runs.assign(error=[_error_line(error) if isinstance(error, str) else None for error in runs["error"]])
    counts = ["correct", "majority_correct", "best_step", "diverged_step", "steps", "dev_examples", "train_examples"]
    counts += ["test_examples"]
    counts += ["parameters", "trained_parameters", "peak_memory_bytes", "threads", "pack_size"]
    whole = {name: pd.to_numeric(shown[name]).astype("Int64") for name in counts}  # a missing one makes no 3.0 of 3
    return formatting.csv(shown.assign(**whole).dropna(axis="columns", how="all"))


# --------------------------------------------------------------------------------------------------------- for people


@dataclass(frozen=True)
class Picture:
    """One figure of the page: file name without ending, text for those who don't see it, and its data URI."""

    name: str
    alt: str
    source: str


@dataclass(frozen=True)
class Section:
    """One part of the page: what the numbers say, the figure and how to read it, tables shown and tables folded."""

    anchor: str
    heading: str
    said: tuple[str, ...]
    picture: Picture | None
    reading: str
    shown: tuple[Table, ...]
    folded: tuple[Table, ...]


@dataclass(frozen=True)
class RunRow:
    """One run of the page's table: its texts, the word to filter by, and the command that trains it again."""

    cells: tuple[str, ...]
    verdict: str
    command: str | None


@dataclass(frozen=True)
class Page:
    """All that the templates show, as text."""

    title: str
    heading: str
    stand_in: str | None
    name: str
    answer: tuple[str, ...]
    completeness: str
    score: str
    notes: tuple[str, ...]
    multiplicity: str
    sections: tuple[Section, ...]
    next_words: str
    next_sweep: str  # the text of a sweep file; empty where none is proposed
    run_header: tuple[str, ...]
    runs: tuple[RunRow, ...]
    runs_left_out: int
    verdicts: tuple[str, ...]
    crashed: tuple[RunRow, ...]
    settings: tuple[Table, ...]
    provenance: Table
    sources: tuple[tuple[str, str], ...]
    glossary: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Part:
    """What a section holds: names of its figure and tables, and who words it."""

    anchor: str
    heading: str
    figure: str | None
    reading: str
    shown: tuple[str, ...]
    folded: tuple[str, ...] = ()
    say: Callable[[Analysis], Sequence[str]] = lambda found: ()


def _seeds(found: Analysis) -> list[str]:
    return [*findings.seeds(found), *diagnosis.same_seeds(found)]


PARTS = (
    _Part(
        "spread",
        "Spread",
        "spread",
        "Each dot is one run, each box the middle half of a cell's runs (drawn from five scores on); whiskers reach "
        "the farthest run within 1.5 box heights. Crosses are failed runs, hollow squares runs at chance, triangles "
        "at the worse edge runs that diverged, diamonds means with their 95 % interval. n counts the scores, × the "
        "failed.",
        ("cells",),
        ("spread", "pair_spreads"),
        findings.spreading,
    ),
    _Part(
        "failing",
        "Failure rates",
        "failure_rates",
        "The mark is the failed share of a cell's finished runs, the bar its 95 % Wilson interval: with few seeds even "
        "0 failed leaves room for a high rate. Crashed and missing runs stand beside the count.",
        ("arms", "contrasts"),
        ("pair_failures", "definitions", "never_failed"),
        findings.failing,
    ),
    _Part(
        "curves",
        "Curves",
        "curves",
        "Left the dev score, right the training loss (running mean), one line a run. The dashed lines are the "
        "majority's score and the labels' entropy (of a regression their variance): a run whose loss stays there has "
        "learned nothing.",
        (),
    ),
    _Part(
        "level",
        "Level",
        "performance_profile",
        "The share of runs whose score is better than τ, with a pointwise 95 % band: the curve that lies higher is the "
        "better one at that score; where curves cross, it depends on the score asked for.",
        ("level",),
        ("pooled_level", "pair_levels"),
        findings.levelling,
    ),
    _Part(
        "noise",
        "What the dev set can tell",
        "noise_floor",
        "Dots are the spread of the accuracies over seeds; the bar is the error that a dev set of this size gives any "
        "single accuracy; diamonds are what of the spread an infinite dev set would leave, with an interval. A spread "
        "below the bar does not mean stability: the runs share their examples.",
        ("noise_floor",),
        ("pair_noise", "flips"),
        findings.noise,
    ),
    _Part("scores", "Other scores", None, "", ("scores",), (), findings.scored),
    _Part("classes", "Classes and calibration", None, "", ("calibration",), ("confusion",), findings.calibrated),
    _Part(
        "best",
        "Best of n",
        "best_of_n",
        "The score to expect if the best of n seeds is reported, with a bootstrap band; n = 1 is the mean. The "
        "steeper, the more a result depends on how many seeds were tried.",
        ("best_of_n",),
        ("selection",),
        findings.best,
    ),
    _Part(
        "budget",
        "Seed budget",
        "seed_budget",
        "How wide the 95 % intervals of the mean and of the failure rate are at other numbers of seeds, at the spread "
        "and rate observed; the marks stand at the seeds there are.",
        ("needed",),
        ("budget",),
        findings.budget,
    ),
    _Part(
        "importance",
        "What drives it",
        "importance",
        "Left the share of each setting, and of settings together (×), in the variance of the score; the residual is "
        "what seeds make within cells. Right its share in explaining which runs fail. Shares are of these settings' "
        "ranges: a wider range of one would raise its share.",
        ("drivers_of_score", "drivers_of_failing"),
        ("effects_on_failing",),
        findings.drivers,
    ),
    _Part("seeds", "Which part of the seed", None, "", ("seed_factors",), ("shared_seeds",), _seeds),
    _Part(
        "why",
        "Why runs fail",
        "loss_vs_score",
        "One mark a run. Right of the dotted line the training data were not fitted: optimisation failed. A failed run "
        "left of it fitted them and does not generalise. Runs that learned and lie at different heights left of it "
        "differ in how they generalise.",
        ("kinds",),
        (),
        diagnosis.reasons,
    ),
    _Part(
        "gradients",
        "Gradients by layer",
        "gradient_norms",
        "One thin line a run, on a logarithmic scale; bold the medians, bands the middle half of the runs. Where the "
        "lost runs' lines fall away from the others' in the lower layers, little of the error reaches them any more.",
        (),
        ("gradients",),
        diagnosis.gradients,
    ),
    _Part(
        "surface",
        "Loss surface",
        "loss_surface",
        "Contours of loss and gradient norm in the plane through the pretrained weights and those of two runs of one "
        "recipe, on logarithmic scales; distances in the picture are distances between weights. Without dropout, with "
        "the head that the first run started from.",
        (),
    ),
    _Part(
        "updates",
        "Size of the updates",
        "step_size_factor",
        "Left how much larger Adam's update is without bias correction; right what the schedule makes of it, in "
        "learning rates: a line above 1 is an update larger than the learning rate says.",
        (),
        ("step_sizes",),
        diagnosis.sizes,
    ),
    _Part(
        "early",
        "How early it can be told",
        "early_warning",
        "Left how well a signal puts lost runs (failed or at chance) before others: 1 always, 0.5 never; bands are "
        "95 % intervals over cells. Right what a rule on it catches; dots where it gave at most 1 % false alarms. All "
        "on cells that nothing was learned from; the dashed line is the first rule that holds.",
        ("stopping",),
        ("early_warning",),
        diagnosis.warning,
    ),
    _Part("baselines", "Against simple baselines", None, "", ("baselines",), (), findings.against_baselines),
    _Part("paper", "Against the paper", None, "", ("against_the_paper",)),
)


def _error_line(error: str) -> str:
    """The line of an error that says what happened, without the folders of the machine it happened on."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    said = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return _ABSOLUTE_PATH.sub("…/", said)[:300]


def seed_name(run: Mapping[str, object], crossed: bool) -> str:
    """The seed of a run of the table; its three parts where they are crossed."""
    seed, *parts = (formatting.json_value(run[name]) for name in ("seed", "init_seed", "order_seed", "dropout_seed"))
    seed, *parts = (int(value) if isinstance(value, float) else value for value in (seed, *parts))
    return "init {}, order {}, dropout {}".format(*parts) if crossed else str(seed)


def _crossed(runs: pd.DataFrame) -> bool:
    """Whether one integer does not drive all three parts of every run."""
    return any((runs[name].notna() & (runs[name] != runs["seed"])).any() for name in runs.filter(regex="_seed$"))


def _place(study: Study, run: Mapping[str, object], crossed: bool) -> tuple[str, ...]:
    return (*(show(value) for _, value in study.cells[int(str(run["cell"]))].axes), seed_name(run, crossed))


def _run_rows(study: Study, runs: pd.DataFrame) -> tuple[RunRow, ...]:
    crossed, rows = _crossed(study.runs), []
    for run in runs.to_dict("records"):
        status, verdict = str(run["status"]), str(run["verdict"])
        word = status if status != "finished" else "failed" if verdict == "diverged" else verdict
        reason = f": {run['reason']}" if isinstance(run["reason"], str) and status == "finished" else ""
        numbers = (score(run[name]) for name in ("final_score", "best_score", "final_train_loss"))
        command = run["command"] if isinstance(run["command"], str) else None
        rows.append(RunRow((*_place(study, run, crossed), word + reason, *numbers), word, command))
    return tuple(rows)


def _crashed_runs(study: Study, runs: pd.DataFrame) -> tuple[RunRow, ...]:
    crossed, rows = _crossed(study.runs), []
    for run in runs[runs["status"] == "crashed"].head(MOST_RUNS).to_dict("records"):
        error = _error_line(run["error"]) if isinstance(run["error"], str) else "no message"
        command = run["command"] if isinstance(run["command"], str) else None
        attempts = formatting.integer(run["attempts"]) if run["attempts"] else "–"
        rows.append(RunRow((*_place(study, run, crossed), attempts, error), "crashed", command))
    return tuple(rows)


def _words_table(name: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    return Table(name, caption, tuple(header), tuple(tuple(row) for row in rows), (False,) * len(header))


def _setting(value: object) -> str:
    """A setting as text; of a task or model what decides the result, not where its files lie on a machine."""
    if isinstance(value, Spec):
        fields = value.model_dump(exclude={"files", "folder", "file", "name"}, exclude_defaults=True)
        return ", ".join([value.name, *(f"{key} {show(inner)}" for key, inner in fields.items())])
    return show(value)


def _settings(sweep: Sweep) -> Table:
    """Every field of the recipes: one value, or which cells have which. What goes beyond the study is shown if used."""
    rows, names = [], list(Recipe.model_fields)
    beyond = names[names.index("eval_steps") + 1 :]
    for field in names:
        if field in beyond and not any(cell.recipe.is_set(field) for cell in sweep.cells):
            continue
        if field in sweep.axes:
            values: list[Scalar] = list(dict.fromkeys(dict(cell.axes)[field] for cell in sweep.cells))
            rows.append([field, ", ".join(map(show, values)) + " (axis)"])
            continue
        having: dict[str, list[str]] = {}
        for cell in (cell for cell in sweep.cells if cell.recipe.uses_field(field)):
            label = dict(cell.axes).get("recipe", cell.label)  # only named recipes vary a field that is no axis
            having.setdefault(_setting(getattr(cell.recipe, field)), []).append(show(label))
        if len(having) == 1:
            rows.append([field, next(iter(having))])
        elif not having:  # a setting of another method
            continue
        else:
            rows.append(
                [field, "; ".join(f"{value} ({', '.join(dict.fromkeys(who))})" for value, who in having.items())]
            )
    rows += [[name, numbers] for name, numbers in _seed_parts(sweep).items()]
    return _words_table("settings", f"Every field of the recipes of {sweep.folder_name}", ["setting", "value"], rows)


def _seed_parts(sweep: Sweep) -> dict[str, str]:
    """Which seeds drive what: one line where one integer drives all three parts."""
    together = all(len({seeds.init_seed, seeds.order_seed, seeds.dropout_seed}) == 1 for seeds in sweep.seeds)
    if together:
        return {"seeds (head, order and dropout together)": _ranges([seeds.seed for seeds in sweep.seeds])}
    names = ("init_seed", "order_seed", "dropout_seed")
    return {name: _ranges([getattr(seeds, name) for seeds in sweep.seeds]) for name in names}


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as `1–3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in runs)


def _provenance(study: Study) -> Table:
    """Where the finished runs were made; several values of one thing are told with their numbers of runs."""
    done = study.runs[study.runs["status"] == "finished"]
    names = {name: name.replace("_", " ") for name in Environment.model_fields}
    names |= {"commit": "harness commit", "harness": "harness version", "data_sha256": "data, SHA-256"}
    names |= {"dirty_diff_sha256": "uncommitted changes, SHA-256", "driver": "NVIDIA driver", "cuda": "CUDA"}
    names |= {
        "kernels": "CPU kernels",
        "tokens_sha256": "token ids, SHA-256",
        "tokenizer_sha256": "tokenizer's files, SHA-256",
        "model_sha256": "model, SHA-256",
        "trained_parameters": "parameters trained",
        "steps": "steps",
    }
    names |= {"unknown_share": "unknown tokens, of the split with most"}
    names |= {"train_examples": "training examples", "dev_examples": "dev examples", "test_examples": "test examples"}
    trained = done["trained_parameters"].fillna(done["parameters"])  # early records don't say
    done = done.assign(trained_parameters=trained)
    if not trained.equals(done["parameters"]):
        names |= {"parameters": "parameters, with frozen ones"}
    rows = []
    for imported in study.imports:
        rows += [["imported by", imported.command]]
        rows += [[f"file {name}", f"SHA-256 {digest[:16]}"] for name, digest in imported.files]
    for name, shown in names.items():
        if done[name].isna().all() and not (study.sweeps and name == "commit"):
            continue
        counts = done[name].value_counts(dropna=False, sort=False).sort_index(key=lambda index: index.map(str))
        texts = []
        for value, runs in counts.items():
            text = "not known" if pd.isna(value) else str(int(value)) if isinstance(value, float) else str(value)
            if name == "unknown_share" and not pd.isna(value):
                text = vocabulary.percent(value)
            text = text[:16] if name.endswith("sha256") else text
            texts.append(text if len(counts) == 1 else f"{text} ({runs} runs)")
        if texts:
            rows.append([shown, "; ".join(texts)])
    if len(done) and study.sweeps:
        rows.append(["training time, sum over runs", _duration(pd.to_numeric(done["lane_seconds"]).sum())])
        mebibytes = pd.to_numeric(done["peak_memory_bytes"]).max() / 2**20
        rows.append(["peak memory of a pack", f"{mebibytes:.0f} MiB"])
    return _words_table("provenance", "Of the finished runs", ["what", "value"], rows)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _completeness(study: Study) -> str:
    counts = {status: int((study.runs["status"] == status).sum()) for status in ("finished", "crashed", "missing")}
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    size = _counted(len(study.cells), "cell")
    if len(study.sweeps) == 1:
        size += f" × {_counted(len(study.sweeps[0].seeds), 'seed')} = {len(study.runs)}"
    else:
        size += f", {_counted(len(study.runs), 'run')}"
    text = f"Planned: {size}; {states}."
    if study.unreadable:
        text += f" {study.unreadable} of the missing left a record that cannot be read."
    if counts["finished"] < len(study.runs):
        text += " Rates are over the finished runs; a crashed or missing run is missing data, never a failed run."
    return text


def _score_note(study: Study) -> str:
    metrics = sorted({str(name) for name in study.runs["metric"].dropna()}) or ["score"]
    named = " / ".join(metrics).replace("_", " ")
    if not study.sweeps:
        return f"Scores are the column {named}; {'higher' if study.higher_is_better else 'lower'} is better."
    tested = " Test scores are of the same weights, on examples that chose nothing."
    return (
        f"Scores are the dev {named} at the end of training, as fractions; “best mean” alone is over each run's best "
        f"evaluation.{tested if study.runs['test_score'].notna().any() else ''}"
    )


GLOSSARY = (
    (
        "failed",
        "A finished run whose final dev score is at or below that of always answering the majority class, compared "
        "in counts of right answers. A run that diverged (NaN or infinite) has no score and counts as failed. "
        "Reasons, where they can be told: constant (one class predicted), diverged, collapsed (was above the "
        "majority, ended below). Of a regression a run failed that is no better than always answering the mean: its "
        "correlation is at or below 0.",
    ),
    (
        "at chance",
        "A run above the majority by count whose right answers are not above it at 5 % (one-sided exact binomial "
        f"test) and whose training loss in the last epoch is at least {percent(NEAR_ENTROPY)} of the "
        "labels' entropy: not failed by the definition, and plainly not trained. Of a regression: a correlation not "
        "above 0 at 5 % (t-test), and the labels' variance; of a token task that loss alone. It is marked, and not "
        "counted as failed.",
    ),
    (
        "rate [95 %]",
        "Failed of finished runs with Wilson's interval. Rates pooled over an axis mix the settings of the others; "
        "the Cochran-Mantel-Haenszel test keeps those apart (its informative strata are those in which some, not all, "
        "runs failed).",
    ),
    ("mean, sd", "Over the scored runs of a cell, failed ones included; sd with n − 1. Where all fail, sd is small."),
    ("n", "Runs with a final score, those that the mean is over: finished without the diverged ones."),
    (
        "bootstrap, BCa",
        "Intervals from resampling the runs. With few seeds they are too short: of normal scores those of a mean cover "
        "82, 88 and 92 % at 5, 10 and 20 seeds, those of an sd 64, 82 and 89 %.",
    ),
    (
        "κ, disagreement, JS divergence",
        "How far the runs of a cell agree on the dev examples: Fleiss' κ of the classes (1: always), the share on "
        "which two runs differ, and the Jensen-Shannon divergence of their probabilities in nats (of very many runs, "
        "over 20,000 of the pairs).",
    ),
    (
        "entity F1",
        "Of token tasks: 2 right / (there + answered) over entities, of which one is right with its start, end and "
        "type (IOB2, strictly: an entity begins with its B). The majority answers O everywhere, whose F1 is 0.",
    ),
    (
        "macro F1, micro F1, Matthews",
        "Macro: the mean of the classes' F1. Micro: of the pooled counts, which with one label an example is the "
        "accuracy. Matthews: the correlation of labels and answers (Gorodkin 2004 for more than two classes).",
    ),
    (
        "ECE, Brier score",
        "Expected calibration error: how far the confidence in an answer lies from the share of right answers at that "
        "confidence, in 15 bins of equal width (Guo et al. 2017). Brier score: squared errors of the probabilities, "
        "summed over the classes (0 to 2).",
    ),
    ("IQR, MAD", "Interquartile range; median absolute deviation from the median, unscaled."),
    (
        "η², ω²",
        "Share of a setting in the variance of the score; ω² takes off what chance alone would give and may fall "
        "below 0.",
    ),
    ("P(better)", "The probability that a run of the one cell is better than one of the other; ties count half."),
    (
        "p, Holm",
        "Adjusted for the number of comparisons in its table. A large p is no proof that there is no difference.",
    ),
    (
        "not optimised, not generalised",
        "Of failed runs: with a training loss in the last epoch above half of the labels' entropy the training data "
        "were not fitted; below it they were, and the run is no better than the majority on the dev set.",
    ),
    (
        "gradients vanished",
        "From some update to the end the gradient norm of at least half of the layers was below a tenth of the median "
        "of runs that learn, at the same share of training: of the same cell where it has three, else of all.",
    ),
    ("lost", "A run that failed or ended at chance: what early warning is about."),
    (
        "AUC",
        "Area under the ROC curve: the share of pairs of a lost and another run that a signal puts in the right order. "
        "Which order is right is learned from cells that neither of the two belongs to.",
    ),
    ("crashed, missing", "What happened to the process, not to the science: missing data, outside every rate."),
)


def _picture(study: Study, part: _Part, folder: Path, sentence: str) -> Picture | None:
    svg, png = (folder / f"{part.figure}.{ending}" for ending in ("svg", "png"))
    if part.figure is None or not svg.exists():
        return None
    light = svg.stat().st_size <= LARGEST_INLINE_SVG
    content = base64.b64encode((svg if light else png).read_bytes()).decode()
    source = f"data:image/{'svg+xml' if light else 'png'};base64,{content}"
    return Picture(part.figure, f"{part.heading} of {study.title}. {sentence}", source)


def _sections(found: Analysis, made: Mapping[str, Table], drawn: Path, opening: str) -> tuple[Section, ...]:
    """The parts that have something to show: a figure, a table or a sentence."""
    sections = []
    for part in PARTS:
        said = tuple(part.say(found))
        picture = _picture(found.study, part, drawn, said[0] if said else opening)
        shown, folded = (tuple(made[name] for name in names if name in made) for names in (part.shown, part.folded))
        if picture or shown or folded or said:
            reading = part.reading if picture else ""
            sections.append(Section(part.anchor, part.heading, said, picture, reading, shown, folded))
    return tuple(sections)


def _balance(study: Study) -> list[str]:
    """What accuracy can't show, where one class is nearly all of a dev split."""
    counted = study.runs[["metric", "majority_correct", "dev_examples"]].dropna().drop_duplicates()
    rows = zip(counted["metric"], counted["majority_correct"], counted["dev_examples"], strict=True)
    return [
        note for metric, most, examples in rows for note in label_notes.unbalanced(metric, int(most), int(examples))
    ]


def _not_resampled(study: Study) -> list[str]:
    """What the page leaves out of very many cells whose answers are kept."""
    most = analyze.MOST_RESAMPLED
    if len(study.cells) <= most or not study.sweeps:
        return []
    return [
        "Dev-set sampling noise and selection bias are told by resampling the answers of the first "
        f"{most} of {len(study.cells):,} cells alone."
    ]


def _page(found: Analysis, made: Mapping[str, Table], drawn: Path) -> Page:
    study = found.study
    answer = tuple(findings.answer(found))
    said = study.stand_in and study.stand_in not in study.title
    runs = found.runs
    if len(runs) > MOST_RUNS:  # what went wrong first
        runs = runs.sort_values("verdict", key=lambda words: words.isin(["ok", "unjudged"]), kind="stable")
    shown = _run_rows(study, runs.head(MOST_RUNS))
    proposed = diagnosis.next_sweep(found) or ("", "")
    return Page(
        title=f"{study.title} ({study.stand_in})" if said else study.title,
        heading=study.title,
        stand_in=study.stand_in if said else None,
        name=study.name,
        answer=answer,
        completeness=_completeness(study),
        score=_score_note(study),
        notes=(*study.notes, *_balance(study), *_not_resampled(study), *page_notes.of(study)),
        multiplicity=findings.multiplicity(found),
        sections=_sections(found, made, drawn, answer[0]),
        next_words=proposed[0],
        next_sweep=proposed[1],
        run_header=(
            *(axis.replace("_", " ") for axis in study.axes),
            "seed",
            "verdict",
            "final score",
            "best score",
            "training loss",
        ),
        runs=shown,
        runs_left_out=len(runs) - len(shown),
        verdicts=tuple(sorted({run.verdict for run in shown})),
        crashed=_crashed_runs(study, found.runs),
        settings=tuple(_settings(sweep) for sweep in study.sweeps),
        provenance=_provenance(study),
        sources=tuple(
            (sweep.folder_name, _ABSOLUTE_PATH.sub("…/", sweep.source)) for sweep in study.sweeps if sweep.source
        ),
        glossary=GLOSSARY,
    )


def _render(template: str, page: Page) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = formatting.markdown_text
    return environment.get_template(template).render(page=page)


def write(study: Study, folder: Path, threshold: float | None = None) -> Report:
    """Write the report of a study into `folder`: page, Markdown, `tables/` and `figures/`.

    A score worse than `threshold` counts as failed in one more definition beside ours. A report that is already there
    is replaced by two renames once the new one is whole, so that a killed report never leaves half a page.
    """
    found = analyze.analyse(study, threshold)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / "new"
        _fill(fresh, found)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        fresh.rename(folder)
    return Report(folder=folder, page=folder / "index.html", found=found)


def _named(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """A table of pairs of cells with their names for their numbers; any other table as it is."""
    if "reference" not in data or "cell" not in data:
        return data
    return data.assign(**{name: [study.cells[index].label for index in data[name]] for name in ("reference", "cell")})


def _fill(folder: Path, found: Analysis) -> None:
    """Write all files of a report into a new folder."""
    drawn, listed = folder / "figures", folder / "tables"
    for inner in (drawn, listed):
        inner.mkdir(parents=True)
    with all_figures.saved(found, drawn):
        made = _write_tables(listed, found)
    page = _page(found, made, drawn)
    for name, template in {"index.html": "report.html.j2", "report.md": "report.md.j2"}.items():
        (folder / name).write_text(_render(template, page), encoding="utf-8")


def _write_tables(listed: Path, found: Analysis) -> dict[str, Table]:
    """Write every table for people and programs; the former are given back."""
    made = formatting.tables(found)
    for name, table in made.items():
        (listed / f"{name}.md").write_text(formatting.markdown(table), encoding="utf-8")
        (listed / f"{name}.tex").write_text(formatting.latex(table), encoding="utf-8")
    for name, data in found.tables.items():
        if name in made or name == "profile":
            (listed / f"{name}.csv").write_text(formatting.csv(_named(found.study, data), "%.10g"), encoding="utf-8")
    fates = found.diagnosis.fates[["kind", "vanished"]].rename(columns={"vanished": "gradients_vanished_by"})
    (listed / "runs.csv").write_text(_runs_csv(found.runs.join(fates)), encoding="utf-8")
    return made
