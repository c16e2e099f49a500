"""What the page says of tasks whose level or scores are of another kind than those of classes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from made_runs import Run, study_of

from harness.analysis.analyze import analyse
from harness.config.sweep_file import load
from harness.records.study import Study
from harness.report import opening, page_notes
from harness.report.next_experiment import next_sweep
from harness.report.sections import calibration


def test_multiple_choice_has_to_beat_the_most_frequent_position(tmp_path: Path) -> None:
    text = "task: {name: embedded, kind: choice}\nmodel: embedded\nlr: [1e-4, 1e-3]\nepochs: 3\nseeds: 1..3\n"
    runs: dict[int, list[Run | None]] = {0: [Run(300), Run(310), Run(305)], 1: [Run(200), Run(199), Run(312)]}
    study = study_of(tmp_path, text, runs)
    said = " ".join(map(str, opening.answer(analyse(study))))
    assert "always answering the most frequent position" in said
    assert "majority class" not in said
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
    columns = study_of(tmp_path / "c", f"task: {task}\nmodel: embedded\nlr: 1e-4\nepochs: 3\nseeds: 1..2\n", runs)
    assert shown(columns) == ("right choice", "runs", "chosen e0", "chosen e1", "e0", "e1")


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
