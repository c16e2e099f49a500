"""What the page says of tasks whose level or scores are of another kind than those of classes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_figures import drawn, words
from made_runs import HEAD, Run, study_of

from harness.analysis import verdicts
from harness.analysis.analyze import analyse
from harness.analysis.verdicts import untrained_loss_name
from harness.common import metrics, squad
from harness.config.sweep_file import load
from harness.records.record import Curves
from harness.records.study import Study
from harness.report import opening, page_notes, provenance
from harness.report.figures import variance
from harness.report.next_experiment import next_sweep
from harness.report.sections import calibration, dev_set, failures, reasons, seed_parts
from harness.stats.example_scores import place_agreement

QUESTIONS = """task: {name: q, kind: span, files: {train: t.json, validation: d.json}}
model: embedded
"""
TAGS = """task: {name: t, kind: tokens, files: {train: t.conll, validation: d.conll}}
model: embedded
"""


def test_multiple_choice_has_to_beat_the_most_frequent_position(tmp_path: Path) -> None:
    text = "task: {name: embedded, kind: choice}\nmodel: embedded\nlr: [1e-4, 1e-3]\nepochs: 3\nseeds: 1..3\n"
    runs: dict[int, list[Run | None]] = {0: [Run(300), Run(310), Run(305)], 1: [Run(200), Run(199), Run(312)]}
    study = study_of(tmp_path, text, runs)
    said = " ".join(map(str, opening.answer(analyse(study))))
    assert "always answering the most frequent position" in said
    assert "majority class" not in said
    told = " ".join(map(str, [*failures.sentences(analyse(study)), *reasons.sentences(analyse(study))]))
    assert "still at the entropy of the right position" in told
    assert "fitted the training data but was no better than the most frequent position" in told
    assert "label entropy" not in told
    assert "not significantly above the most frequent position" in told
    one_sided = study_of(tmp_path / "other", text, {0: [Run(395)]}, majority=390)
    notes = [str(note) for note in page_notes.notes(one_sided) if "of one class" in str(note)]
    assert notes
    assert "f1_macro" not in notes[0]  # of positions there is none


def test_classes_and_choices_go_by_their_names(tmp_path: Path) -> None:
    text = "task: {{name: embedded, kind: {kind}}}\nmodel: embedded\nlr: 1e-4\nepochs: 3\nseeds: 1..2\n"
    runs: dict[int, list[Run | None]] = {0: [Run(300), Run(310)]}
    spec = next(spec for spec in calibration.SECTION.tables if spec.name == "confusion")

    def shown(study: Study) -> tuple[str, ...]:
        table = spec.text(analyse(study))
        assert table is not None
        return (*table.header[1:5], *(row[1] for row in table.rows))

    classes = study_of(tmp_path / "a", text.format(kind="texts"), runs)
    assert shown(classes) == ("class", "runs", "predicted 0", "predicted 1", "0", "1")
    named = classes.runs.assign(label_names='["not_entailment", "entailment"]')
    expected = ("class", "runs", "predicted not_entailment", "predicted entailment", "not_entailment", "entailment")
    assert shown(dataclasses.replace(classes, runs=named)) == expected
    letters = study_of(tmp_path / "b", text.format(kind="choice"), runs)
    assert shown(letters) == ("right choice", "runs", "chosen A", "chosen B", "A", "B")
    files = "{train: t.csv, validation: d.csv}"
    task = f"{{name: x, kind: choice, choices: [e0, e1], files: {files}}}"
    flips = next(spec for spec in dev_set.SECTION.tables if spec.name == "flips").text(analyse(letters))
    assert flips is not None
    assert {row[1] for row in flips.rows} == {"B"}
    columns = study_of(tmp_path / "c", f"task: {task}\nmodel: embedded\nlr: 1e-4\nepochs: 3\nseeds: 1..2\n", runs)
    assert shown(columns) == ("right choice", "runs", "chosen e0", "chosen e1", "e0", "e1")


def _with_scores(study: Study, metric: str, logits: Callable[[int], np.ndarray], labels: np.ndarray) -> Study:
    """The study with another metric, and runs that gave these answers."""
    runs = study.runs.assign(metric=metric, correct=None, majority_correct=None)

    def load(row: int) -> Curves | None:
        curves = study.curves(row)
        own = logits(row).astype(np.float32)
        return None if curves is None else dataclasses.replace(curves, logits=own, labels=labels)

    return dataclasses.replace(study, runs=runs, load=load)


def test_answers_in_contexts_have_dev_set_noise_and_agreement(tmp_path: Path) -> None:
    text = "task: {name: embedded, kind: span}\nmodel: embedded\nlr: [1e-4, 1e-3]\nepochs: 3\nseeds: 1..4\n"
    draw = np.random.default_rng(0)
    f1, start = draw.random((8, 50)), draw.integers(0, 9, (8, 50))

    def answers(row: int) -> np.ndarray:
        columns = {"loss": f1[row], "exact": f1[row] > 0.5, "f1": f1[row], "probability": f1[row]}
        columns |= {"start": start[row], "end": start[row] + 3}
        return np.stack([columns[name] for name in squad.COLUMNS], axis=1)

    study = _with_scores(
        study_of(tmp_path, text, {k: [Run(300)] * 4 for k in (0, 1)}), "squad_f1", answers, np.zeros(50, np.float32)
    )
    analysis = analyse(study)
    row, _ = analysis.noise_floor.to_dict("records")
    assert (row["runs"], row["examples"], row["known_from"]) == (4, 50, "answers")
    assert row["accuracy"] == pytest.approx(f1[:4].mean(), rel=1e-6)
    assert row["consistency"] == pytest.approx(place_agreement(np.stack([start, start + 3], axis=-1)[:4]).same)
    (pair,) = analysis.pair_noise.to_dict("records")
    assert pair["difference"] == pytest.approx(f1[4:].mean() - f1[:4].mean(), rel=1e-5)
    assert pair["difference_low"] < pair["difference"] < pair["difference_high"]
    assert analysis.selection["known_from"].tolist() == ["dev", "dev"]
    assert analysis.selection["too_high"].notna().all()
    said = " ".join(map(str, dev_set.sentences(analysis)))
    assert "A single SQuAD F1 near" in said
    assert "the SQuAD F1 has a standard deviation of" in said
    assert "Two runs give the same answer to" in said
    assert "accura" not in said
    assert not any("ccuracy" in spec.caption for spec in dev_set.SECTION.tables if spec.name == "pair_noise")
    assert "differ only in lr" in said.replace("differs", "differ")
    assert "in SQuAD F1 (95 %" in said
    assert "entropy of a guessed place" in untrained_loss_name(study)
    assert "Fleiss" not in str(dev_set.SECTION.tables[0].text(analysis))
    assert variance.noise_floor(analysis) is not None


def test_exact_match_has_dev_set_noise_and_loss_says_that_it_has_none(tmp_path: Path) -> None:
    task = "task: {{name: embedded, kind: completion, metric: {}}}\nmodel: embedded-decoder\n"
    text = f"{task}lr: 1e-4\nepochs: 3\nseeds: 1..3\n"
    tokens = np.array([2.0, 1, 3, 2], np.float32)
    right = np.array([[2, 1, 3, 2], [2, 0, 3, 1], [1, 1, 3, 2]])

    def answers(row: int) -> np.ndarray:
        return np.stack([-np.ones(4), right[row]], axis=1)

    for metric in ("exact_match", "loss"):
        made = study_of(tmp_path / metric, text.format(metric), {0: [Run(300)] * 3})
        analysis = analyse(_with_scores(made, metric, answers, tokens))
        (row,) = analysis.noise_floor.to_dict("records")
        said = " ".join(map(str, dev_set.sentences(analysis)))
        if metric == "loss":
            assert row["known_from"] == ""
            assert "no simple formula" in said
        else:
            assert row["accuracy"] == pytest.approx(9 / 12)
            assert row["alike"] == pytest.approx(np.mean([1 / 3, 1 / 3, 1, 1 / 3]))
            assert "Two runs are both right or both wrong on" in said


def test_of_a_script_no_head_recording_or_formula_is_told(tmp_path: Path) -> None:
    text = (
        "command: python --version {lr} {seed}\nlr: [0.1, 0.2]\nseeds: 1..2\nscore: {stdout: '(.*)'}\nmajority: 0.5\n"
    )
    (tmp_path / "script.yaml").write_text(text)
    made = study_of(tmp_path, f"{HEAD}lr: [0.1, 0.2]\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(200)]})
    runs = made.runs.assign(dev_examples=np.nan, correct=None, majority_correct=None, label_entropy=np.nan)
    script = dataclasses.replace(made, sweeps=(load(tmp_path / "script.yaml"),), runs=runs, load=lambda row: None)
    for study, told in ((script, "(a script's `predictions` would tell)"), (made, "")):
        analysis = analyse(study)
        sections = (dev_set, reasons, seed_parts)
        said = " ".join(str(sentence) for section in sections for sentence in section.sentences(analysis))
        assert ("How the failed runs trained is not recorded of other training code." in said) == bool(told)
        assert ("One integer seeds head" in said) == (not told)
        assert "no simple formula" not in said
        assert told in said


def test_a_language_model_s_seed_draws_no_head(tmp_path: Path) -> None:
    for kind, model, first in (("completion", "embedded-decoder", "initialisation"), ("texts", "embedded", "head")):
        (tmp_path / "x.yaml").write_text(
            f"task: {{name: embedded, kind: {kind}}}\nmodel: {model}\nlr: 1e-4\nepochs: 3\nseeds: 1..2\n"
        )
        names = [row[0] for row in provenance.settings(load(tmp_path / "x.yaml")).rows]
        assert f"seeds ({first}, order and dropout together)" in names


def test_correlations_are_no_fractions(tmp_path: Path) -> None:
    text = f"{HEAD}lr: 1e-4\nepochs: 3\nseeds: 1..2\n"
    for metric, unit in (("pearson", "; higher is better"), ("accuracy", "")):
        study = study_of(tmp_path / metric, text, {0: [Run(300), Run(310)]}, metric=metric)
        told = page_notes.about_scores(study)
        assert ("as fractions" in told) == (not unit)
        assert ("higher is better" in told) == bool(unit)


def test_thresholds_chosen_on_dev_are_told(tmp_path: Path) -> None:
    files = {"train": "t.jsonl", "validation": "d.jsonl"}
    for threshold, told in (("dev", True), (0.5, False), (0.3, False)):
        task = {"name": "topics", "kind": "labels", "label": "labels", "threshold": threshold, "files": files}
        text = f"task: {json.dumps(task)}\nmodel: embedded\nlr: 1e-4\nepochs: 3\nseeds: 1..2\n"
        study = study_of(tmp_path / str(threshold), text, {0: [Run(300), Run(310)]})
        notes = " ".join(map(str, page_notes.notes(study)))
        assert ("dev scores are optimistic" in notes) == told


def test_the_next_sweep_lists_columns_of_choices(tmp_path: Path) -> None:
    files = {"train": "t.csv", "validation": "d.csv"}
    task = {"name": "x", "kind": "choice", "choices": ["e0", "e1"], "files": files}
    text = f"task: {json.dumps(task)}\nmodel: embedded\nlr: 1e-3\nepochs: 1\nseeds: 1..4\n"
    study = study_of(tmp_path, text, {0: [Run(300), Run(200), Run(200), Run(200)]})
    proposed = next_sweep(analyse(study))
    assert proposed is not None
    (tmp_path / "next.yaml").write_text(proposed[1])
    assert load(tmp_path / "next.yaml").cells[0].recipe.task == study.sweeps[0].cells[0].recipe.task


@pytest.mark.parametrize(
    ("head", "score", "level"),
    [
        ("task: {name: embedded, kind: choice}\nmodel: embedded\n", "dev accuracy", "most frequent position"),
        (HEAD, "dev accuracy", "majority class"),
        (QUESTIONS, "dev SQuAD F1", "commonest answer or none"),
        (TAGS, "dev F1 entity", "tag O"),
    ],
)
def test_figures_say_the_score_and_the_level_as_sentences_do(tmp_path: Path, head: str, score: str, level: str) -> None:
    runs: dict[int, list[Run | None]] = {0: [Run(300), Run(310), Run(305)], 1: [Run(200), Run(199), Run(312)]}
    study = study_of(tmp_path, f"{head}lr: [1e-4, 1e-3]\nepochs: 3\nseeds: 1..3\n", runs, metric=metric_of(score))
    analysis = analyse(study)
    assert level in " ".join(map(str, opening.answer(analysis)))
    figures = drawn(analysis, ("spread", "performance_profile", "loss_vs_score", "curves"))
    assert {"spread", "performance_profile"} <= set(figures)
    for name, figure in figures.items():
        assert score in words(figure), name
        assert level in words(figure), name


def metric_of(score: str) -> str:
    """The metric's name in a record."""
    return next((name for name in ("squad_f1", "f1_entity") if metrics.words(name) in score), "accuracy")


def test_a_run_that_answers_well_is_not_near_chance_whatever_its_loss(tmp_path: Path) -> None:
    """Flat logits may still point at the right words; a run just above the level with such a loss is marked."""
    text = "task: {name: embedded, kind: span}\nmodel: embedded\nlr: 1e-4\nepochs: 3\nseeds: 1..3\n"
    study = study_of(tmp_path, text, {0: [Run(300, loss=0.7), Run(300, loss=0.7), Run(300, loss=0.7)]})
    scores = {"metric": "squad_f1", "majority_score": 0.4, "final_score": [0.45, 0.69, 0.75], "correct": None}
    table = study.runs.assign(**scores)
    assert verdicts.near_chance(table).tolist() == [True, True, False]
