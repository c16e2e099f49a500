"""How the runs of a study were made: the settings of its sweeps, and where and with what they were trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.common.text import Scalar, show
from harness.config.recipe import Recipe, Spec
from harness.config.trials import Sweep
from harness.data import vocabulary
from harness.records.record import Environment
from harness.records.study import Study
from harness.report.formatting import duration
from harness.report.table import TextTable
from harness.report.wording import first_part


def _words_table(name: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> TextTable:
    return TextTable(name, caption, tuple(header), tuple(tuple(row) for row in rows), (False,) * len(header))


# ------------------------------------------------------------------------------------------------------------ settings


def settings(sweep: Sweep) -> TextTable:
    """Every field of the recipes: one value, or which cells have which. What goes beyond the study is shown if used."""
    if sweep.is_script:
        return _of_script(sweep)
    names = list(Recipe.model_fields)
    beyond = names[names.index("eval_steps") + 1 :]
    rows = []
    for field in names:
        if field in beyond and not any(cell.recipe.is_set(field) for cell in sweep.cells):
            continue
        value = _on_axis(sweep, field) if field in sweep.axes else _in_cells(sweep, field)
        if value is not None:
            rows.append([field, value])
    rows += [[name, numbers] for name, numbers in _seed_parts(sweep).items()]
    return _words_table("settings", f"Every field of the recipes of {sweep.folder_name}", ["setting", "value"], rows)


def _of_script(sweep: Sweep) -> TextTable:
    """The script's command, what its score is and who fails by it, and the values of the axes."""
    recipe = sweep.cells[0].script
    assert recipe is not None
    script = recipe.script
    rows = [["command" if script.command else "function", script.command or script.function or ""]]
    rows += [["score", f"{script.score.words} ({'higher' if script.higher_is_better else 'lower'} is better)"]]
    if script.threshold is not None:
        failed = "at or below" if script.majority is not None else "below"
        side = failed if script.higher_is_better else failed.replace("below", "above")
        rows += [["failed", f"{side} {show(script.threshold)}"]]
    rows += [[name, _on_axis(sweep, name)] for name in sweep.axes]
    rows += [[name, show(value)] for name, value in recipe.settings if name not in sweep.axes]
    rows += [[f"input {name}", f"SHA-256 {digest[:16]}"] for name, digest in script.inputs]
    rows += [["seeds", _ranges([seeds.seed for seeds in sweep.due_seeds])]]
    return _words_table("settings", f"The script of {sweep.folder_name}", ["setting", "value"], rows)


def _on_axis(sweep: Sweep, field: str) -> str:
    values: list[Scalar] = list(dict.fromkeys(dict(cell.axes)[field] for cell in sweep.cells))
    return ", ".join(map(show, values)) + " (axis)"


def _in_cells(sweep: Sweep, field: str) -> str | None:
    """The value of a field, or each one with the cells that have it; None for a setting of another method."""
    having: dict[str, list[str]] = {}
    for cell in (cell for cell in sweep.cells if cell.recipe.uses_field(field)):
        label = dict(cell.axes).get("recipe", cell.label)  # only named recipes vary a field that is no axis
        having.setdefault(_setting(getattr(cell.recipe, field)), []).append(show(label))
    if len(having) > 1:
        return "; ".join(f"{value} ({', '.join(dict.fromkeys(labels))})" for value, labels in having.items())
    return next(iter(having), None)


def _setting(value: object) -> str:
    """A setting as text; of a task or model what decides the result, not where its files lie on a machine."""
    if isinstance(value, Spec):
        fields = value.model_dump(exclude={"files", "folder", "file", "metric_file", "name"}, exclude_defaults=True)
        return ", ".join([value.name, *(f"{key} {show(inner)}" for key, inner in fields.items())])
    return show(value)


def _seed_parts(sweep: Sweep) -> dict[str, str]:
    """Which seeds drive what: one line where one integer drives all three parts."""
    together = all(len({seeds.init_seed, seeds.order_seed, seeds.dropout_seed}) == 1 for seeds in sweep.due_seeds)
    if together:
        return {
            f"seeds ({first_part([sweep])}, order and dropout together)": _ranges(
                [seeds.seed for seeds in sweep.due_seeds]
            )
        }
    names = ("init_seed", "order_seed", "dropout_seed")
    return {name: _ranges([getattr(seeds, name) for seeds in sweep.due_seeds]) for name in names}


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as `1–3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in runs)


# ---------------------------------------------------------------------------------------------------------- provenance


_NAMES: Mapping[str, str] = {
    **{name: name.replace("_", " ") for name in Environment.model_fields},
    "commit": "harness commit",
    "harness": "harness version",
    "data_sha256": "data, SHA-256",
    "dirty_diff_sha256": "uncommitted changes, SHA-256",
    "driver": "NVIDIA driver",
    "cuda": "CUDA",
    "kernels": "CPU kernels",
    "kernel_settings": "settings of the kernels",
    "tokens_sha256": "token ids, SHA-256",
    "tokenizer_sha256": "tokenizer's files, SHA-256",
    "model_sha256": "model, SHA-256",
    "config_sha256": "model's config.json, SHA-256",
    "trained_parameters": "parameters trained",
    "steps": "steps",
    "unknown_share": "unknown tokens, of the split with most",
    "train_examples": "training examples",
    "dev_examples": "dev examples",
    "test_examples": "test examples",
}


def provenance(study: Study) -> TextTable:
    """Where the finished runs were made; several values of one thing are told with their numbers of runs."""
    finished = study.runs[study.runs["status"] == "finished"]
    trained = finished["trained_parameters"].fillna(finished["parameters"])  # early records don't say
    finished = finished.assign(trained_parameters=trained)
    names = dict(_NAMES)
    if not trained.equals(finished["parameters"]):
        names["parameters"] = "parameters, with frozen ones"
    rows = []
    for imported in study.imports:
        rows += [["imported by", imported.command]]
        rows += [[f"file {name}", f"SHA-256 {digest[:16]}"] for name, digest in imported.files]
    for name, shown in names.items():
        if finished[name].isna().all() and not (study.sweeps and name == "commit"):
            continue
        texts = _values(finished[name])
        if texts:
            rows.append([shown, texts])
    if len(finished) and study.sweeps:
        seconds = pd.to_numeric(finished["lane_seconds"]).sum()
        mebibytes = pd.to_numeric(finished["peak_memory_bytes"]).max() / 2**20
        rows.append(["training time, sum over runs", duration(seconds)])
        rows.append(["peak memory of a pack", f"{mebibytes:.0f} MiB"])
    return _words_table("provenance", "Of the finished runs", ["what", "value"], rows)


def _values(column: pd.Series) -> str:
    """The values of a column, each with its number of runs where there are several."""
    counts = column.value_counts(dropna=False, sort=False).sort_index(key=lambda index: index.map(str))
    texts = [_value(str(column.name), value) for value in counts.index]
    if len(counts) == 1:
        return texts[0]
    return "; ".join(f"{text} ({runs} runs)" for text, runs in zip(texts, counts, strict=True))


def _value(name: str, value: Any) -> str:
    if pd.isna(value):
        return "not known"
    if name == "unknown_share":
        return vocabulary.percent(value)
    text = str(int(value)) if isinstance(value, float) else str(value)
    return text[:16] if name.endswith("sha256") else text
