"""Somebody else's runs: every format gives the same study, bad files one clear line, and no row is lost or doubled."""

import csv
import gzip
import io
import json
import math
import resource
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import MOSBACH, MOSBACH_RUNS, store_of, sweep_of
from typer.testing import CliRunner

from harness.analysis import cells as cells_module
from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.records import imported, study
from harness.records.importing.options import AGGREGATIONS, NAN_CHOICES, ImportOptions
from harness.records.importing.runs import import_runs, read_runs
from harness.report import page

ROWS = [
    {"lr": 2e-5, "bc": True, "task": "rte", "seed": 2, "acc": 0.625},
    {"lr": 1e-5, "bc": True, "task": "rte", "seed": 1, "acc": 0.5},
    {"lr": 1e-5, "bc": True, "task": "rte", "seed": 2, "acc": 0.75},
    {"lr": 2e-5, "bc": False, "task": "cola", "seed": 1, "acc": 0.25},
    {"lr": 2e-5, "bc": True, "task": "rte", "seed": 1, "acc": 0.875},
]
NASTY = [
    "<script>alert(1)</script>",
    'it\'s "quoted"',
    "naïve 🙂🏽",
    "\u202eevil",
    "שלום",
    "a,b",
    "a\nb",
    "=1+1",
    "100 %",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(name: str, rows: list[dict], **options: object) -> Path:
    """Write a CSV file as Python's csv module does."""
    path = Path(name)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def text(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ask(*files: Path | str, **fields) -> ImportOptions:
    given = {"seed": "seed", "metric": "acc", "name": "x", "cell": ("lr,bc,task",)} | fields
    return ImportOptions(sources=tuple(str(file) for file in files), **given)


def of(*files: Path | str, **fields) -> study.Study:
    """Import and read back, as `report` does."""
    folder, found = import_runs(ask(*files, **fields), Path("results"), overwrite=True)
    back = imported.of_import(folder)
    assert len(back.runs) == len(found.runs) == found.counts["runs"]
    assert back.imports == (found.imported,)
    return back


def small(*rows: tuple, columns=("lr", "seed", "acc"), name="small.csv") -> Path:
    """A table of a few rows as tuples."""
    return table(name, [dict(zip(columns, row, strict=True)) for row in rows])


def simple(path, **fields) -> study.Study:
    return of(path, **({"cell": ("lr",)} | fields))


def refusal(*files, **fields) -> str:
    """The one line of a HarnessError; nothing is written then."""
    asked = ask(*files, **({"cell": ("lr",), "name": "refused"} | fields))
    with pytest.raises(HarnessError) as caught:
        import_runs(asked, Path("results"))
    line = str(caught.value)
    assert "\n" not in line
    assert not Path("results/refused").exists()
    return line


def content(found: study.Study) -> list[tuple]:
    names = ["cell", "seed", "init_seed", "status", "outcome", "reason", "final_score", "metric"]
    runs = found.runs[names].astype(object)
    return [tuple(row) for row in runs.where(runs.notna(), None).itertuples(index=False)]


# ------------------------------------------------------------------------------------------------------- the formats


def jsonl(name: str, rows: list[dict]) -> Path:
    return text(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def parquet(name: str, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), name)
    return Path(name)


def mlrun(experiment: str, run: str, params: dict, metrics: dict, status: int = 3, **meta: object) -> Path:
    """One run as MLflow's FileStore writes it (store/tracking/file_store.py)."""
    folder = Path(experiment, run)
    info = {
        "artifact_uri": f"file:///home/me/{folder}/artifacts", "end_time": 1700000000500, "entry_point_name": "",
        "experiment_id": Path(experiment).name, "lifecycle_stage": "active", "run_id": run, "run_name": "gifted-ape-1",
        "run_uuid": run, "source_name": "", "source_type": 4, "source_version": "", "start_time": 1700000000000,
        "status": status, "tags": [], "user_id": "me",
    } | meta  # fmt: skip
    for kind in ("artifacts", "metrics", "params", "tags"):
        (folder / kind).mkdir(parents=True)
    (folder / "meta.yaml").write_text("".join(f"{key}: {value!r}\n" for key, value in sorted(info.items())))
    for kind, values in (("params", params), ("metrics", metrics), ("tags", {"mlflow.runName": f"run {run}"})):
        for name, value in values.items():
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else str(value))
    return folder


def mlruns() -> Path:
    """A store with an experiment, as MLflow leaves it: `.trash` and an experiment's own meta.yaml among it."""
    Path("mlruns/.trash").mkdir(parents=True)
    Path("mlruns/0").mkdir()
    Path("mlruns/0/meta.yaml").write_text("experiment_id: '0'\nlifecycle_stage: active\nname: Default\n")
    return Path("mlruns")


def same_by_mlflow(rows: list[dict]) -> Path:
    for number, row in enumerate(rows):
        settings = {name: str(row[name]) for name in ("lr", "bc", "task", "seed")}
        start = 1700000000000 + number
        mlrun("mlruns/0", f"{9 - number:032x}", settings, {"acc": f"{start} {row['acc']} 3\n"}, start_time=start)
    return Path("mlruns")


def wandb(name: str, rows: list[dict]) -> Path:
    """A runs table as W&B's page exports it: all in quotes, its own columns first."""
    own = {"State": "finished", "Notes": "-", "User": "me", "Tags": "", "Created": "2024-01-01T00:00:00.000Z"}
    full = [{"Name": f"run-{number}", **own, "Runtime": 12, "Sweep": "", **row} for number, row in enumerate(rows)]
    return table(name, full, quoting=csv.QUOTE_ALL)


FORMATS = {
    "csv": lambda rows: table("a.csv", rows),
    "tsv": lambda rows: table("a.tsv", rows, delimiter="\t"),
    "bom and windows": lambda rows: text("b.csv", b"\xef\xbb\xbf" + table("c.csv", rows).read_bytes()),
    "unix": lambda rows: table("u.csv", rows, lineterminator="\n"),
    "gzip": lambda rows: text("a.csv.gz", gzip.compress(table("c.csv", rows).read_bytes())),
    "jsonl": lambda rows: jsonl("a.jsonl", rows),
    "ndjson with numbers as text": lambda rows: jsonl(
        "a.ndjson", [row | {"lr": str(row["lr"]), "seed": f" {row['seed']} "} for row in rows]
    ),
    "parquet": lambda rows: parquet("a.parquet", rows),
    "mlflow": lambda rows: same_by_mlflow(rows),
    "wandb": lambda rows: wandb("w.csv", rows),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_study(kind):
    found = of(FORMATS[kind](ROWS), majority="0.5")
    assert [cell.axes for cell in found.cells] == [
        (("lr", 1e-5), ("bc", True), ("task", "rte")),
        (("lr", 2e-5), ("bc", False), ("task", "cola")),
        (("lr", 2e-5), ("bc", True), ("task", "rte")),
    ]
    assert [type(value) for _, value in found.cells[0].axes] == [float, bool, str]
    assert content(found) == [
        (0, 1, 1, "finished", "failed", None, 0.5, "acc"),
        (0, 2, 2, "finished", "ok", None, 0.75, "acc"),
        (1, 1, 1, "finished", "failed", None, 0.25, "acc"),
        (2, 1, 1, "finished", "ok", None, 0.875, "acc"),
        (2, 2, 2, "finished", "ok", None, 0.625, "acc"),
    ]
    assert len(found.runs["trial"].unique()) == 5


def test_files_are_read_one_after_the_other_whatever_their_format():
    found = of(table("a.csv", ROWS[:2]), jsonl("b.jsonl", ROWS[2:4]), parquet("c.parquet", ROWS[4:]))
    assert content(found) == content(of(table("all.csv", ROWS)))
    assert list(found.runs["trial"]) == ["a.csv:3", "b.jsonl:1", "b.jsonl:2", "c.parquet:1", "a.csv:2"]
    assert "Read from a.csv and b.jsonl and c.parquet: 5 rows." in found.notes
    Path("d").mkdir()
    again = of(table("a.csv", ROWS[:2]), table("d/a.csv", ROWS[2:]))
    assert sorted(again.runs["trial"]) == ["a.csv#2:2", "a.csv#2:3", "a.csv#2:4", "a.csv:2", "a.csv:3"]


def test_lines_are_those_of_the_file_where_texts_run_over_several():
    path = text("a.csv", 'lr,seed,acc\n"x\ny",1,0.5\n\n"z",2,"0.5\n"\nq,3,0.5\n')
    assert list(simple(path).runs["trial"]) == ["a.csv:2", "a.csv:5", "a.csv:7"]
    text("b.csv", 'lr,seed,acc\n"x\ny",1,0.5\n\n"z",2,bad\n')
    assert "'bad' in b.csv:5" in refusal("b.csv")


def test_what_is_kept_is_what_was_asked_and_names_no_folder_of_the_machine(here):
    table("a.csv", ROWS)
    found = of(here / "a.csv", majority="0.5", where=("task=rte",), seeds="1..2", examples="8", nan="missing",
               aggregate="mean", cell=("lr", "bc"))  # fmt: skip
    kept = found.imports[0]
    assert kept.command == (
        "harness import a.csv --cell lr --cell bc --seed seed --metric acc --where task=rte --majority 0.5 "
        "--nan missing --aggregate mean --seeds 1..2 --examples 8 --as x"
    )
    assert [name for name, _ in kept.files] == ["a.csv"]
    assert len(kept.files[0][1]) == 64
    for path in Path("results/x").iterdir():
        assert str(here) not in path.read_text()
    assert sorted(path.name for path in Path("results/x").iterdir()) == ["imported.json", "runs.csv"]


def test_a_reference_is_kept_and_a_wrong_one_refused_before_anything_is_written():
    table("a.csv", ROWS)
    found = of("a.csv", cell=("lr", "bc", "task"), reference=("task=rte", "lr=2e-05"))
    assert dict(found.compared.references) == {"task": "rte", "lr": 2e-5}
    assert found.imports[0].command.endswith("--reference task=rte --reference lr=2e-05 --as x")
    assert refusal("a.csv", cell=("lr", "bc"), where=("task=rte",), reference=("lr=3e-5",)) == (
        "--reference: 'lr' has no value '3e-5'. Allowed: 1e-5, 2e-5."
    )
    assert "'tsk'" in refusal("a.csv", cell=("lr", "bc", "task"), reference=("tsk=rte",))
    assert "must be of the form AXIS=VALUE" in refusal("a.csv", cell=("lr", "bc", "task"), reference=("lr",))
    assert "names 'bc' twice" in refusal("a.csv", cell=("lr", "bc", "task"), reference=("bc=on", "bc=on"))


def test_the_command_that_is_kept_repeats_the_import(here):
    import shlex

    table("a b.csv", [{"l,r": -1, "it's": "x=y", "seed": 1, "acc": 1}, {"l,r": 2, "it's": "n", "seed": 1, "acc": 1}])
    found = of("a b.csv", cell=("l,r",), where=("it's=x=y",), majority="-5", higher_is_better=False)
    assert found.axes == ("l,r",)
    words = shlex.split(found.imports[0].command)
    assert words[:3] == ["harness", "import", "a b.csv"]
    result = CliRunner().invoke(app, words[1:])  # the same command may replace
    assert result.exit_code == 0, result.output
    assert imported.of_import(Path("results/x")).imports == found.imports


# ------------------------------------------------------------------------------------------- cells, seeds and statuses


def test_numbers_are_sorted_texts_stand_as_they_first_appear_and_nothing_comes_last():
    rows = [(10, 1, 0.5), (9, 1, 0.5), ("", 1, 0.5), (100, 1, 0.5), ("inf", 1, 0.5)]
    assert simple(small(*rows)).values("lr") == [9, 10, 100, "inf", None]
    rows = [("10", 1, 0.5), ("b", 1, 0.5), ("", 1, 0.5), ("a", 1, 0.5), ("9", 1, 0.5)]
    assert simple(small(*rows)).values("lr") == ["10", "b", "a", "9", None]
    assert simple(small(("007", 1, 0.5), ("7", 1, 0.5))).values("lr") == ["007", "7"]
    assert simple(small(("1e-5", 1, 0.5), ("1", 1, 0.5))).values("lr") == [1e-5, 1.0]
    assert simple(small((" 3", 1, 0.5), ("2 ", 1, 0.5))).values("lr") == [2, 3]


def test_a_text_one_and_a_number_one_are_the_same_setting_in_any_mix_of_files():
    one = jsonl("a.jsonl", [{"lr": 1, "seed": 1, "acc": 0.5}, {"lr": "auto", "seed": 1, "acc": 0.5}])
    other = small((1, 2, 0.5), ("auto", 2, 0.5))
    assert of(one, other, cell=("lr",)).values("lr") == ["1", "auto"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_with_markup_quotes_emoji_and_right_to_left_survive_unchanged(kind):
    column = '<b>"né" 🙂\u202e</b>'
    rows = [{column: value, "seed": value, "<i>": 0.5} for value in NASTY]
    for row in rows:
        row["seed"] = row["seed"].replace("\n", " ").replace("\u202e", "")
    found = of(FORMATS[kind](rows), cell=(column,), metric="<i>")
    assert found.axes == (column,)
    assert found.values(column) == NASTY
    assert list(found.runs["seed"]) == [row["seed"] for row in rows]
    assert list(found.runs[column]) == NASTY
    assert set(found.runs["metric"]) == {"<i>"}
    assert found.runs["init_seed"].isna().all()


def test_seeds_may_be_padded_texts_or_very_large():
    assert list(simple(small(("a", "007", 0.5), ("a", "10", 0.5))).runs["seed"]) == [7, 10]
    assert list(simple(small(("a", "1.0", 0.5), ("a", "10.0", 0.5))).runs["seed"]) == [1, 10]
    assert list(simple(small(("a", "s1", 0.5), ("a", "2", 0.5))).runs["seed"]) == ["2", "s1"]
    assert list(simple(small(("a", 2**70, 0.5), ("a", -1, 0.5))).runs["seed"]) == [-1, 2**70]


def test_an_axis_never_takes_a_name_that_the_table_of_runs_has():
    path = table("a.csv", [{"status": "a", "metric": "b", "sweep": "c", "setting metric": "d", "seed": 1, "acc": 1}])
    found = of(path, cell=("status", "metric", "sweep", "setting metric"))
    assert found.axes == ("setting status", "setting setting metric", "setting sweep", "setting metric")
    assert list(found.runs["status"]) == ["finished"]
    assert list(found.runs["metric"]) == ["acc"]
    assert any("status (setting status)" in note for note in found.notes)


def test_columns_with_commas_and_equals_signs_can_be_named():
    path = table("a.csv", [{"a,b": 1, "c": 2, "d=e": "x=y", "seed": 1, "acc": 1}])
    for cell in (("a,b", "c"), ('"a,b",c',)):
        assert of(path, cell=cell, where=("d=e=x=y",)).axes == ("a,b", "c")


def test_no_axis_at_all_is_one_recipe():
    found = simple(small((1, 1, 0.5), (1, 2, 0.5)), cell=())
    assert [cell.label for cell in found.cells] == ["the only recipe"]


def test_where_compares_texts_numbers_and_truth():
    rows = [("1e-5", "True", "test"), ("0.00001", "False", "test"), ("2e-5", "True", "dev"), ("2e-5", "True", "a,b")]
    path = table("a.csv", [{"lr": lr, "bc": bc, "split": split, "seed": number, "acc": 0.5}
                           for number, (lr, bc, split) in enumerate(rows)])  # fmt: skip
    assert list(simple(path, where=("lr=1e-05",)).runs["seed"]) == [0, 1]
    assert list(simple(path, where=("bc=true",)).runs["seed"]) == [0, 2, 3]
    assert list(simple(path, where=("split=test,dev",)).runs["seed"]) == [0, 1, 2]
    assert list(simple(path, where=("split=a,b",)).runs["seed"]) == [3]
    found = simple(path, where=("split=test", "bc=True"))
    assert list(found.runs["seed"]) == [0]
    assert "split=test and bc=True: 3 other rows left out." in found.notes
    assert "'test', 'dev', 'a,b'" in refusal(path, where=("split=train",), cell=("lr",))


def test_a_text_in_a_row_that_is_left_out_is_no_error():
    path = table(
        "a.csv", [{"lr": 1, "use": "no", "seed": "", "acc": "bad"}, {"lr": 2, "use": "yes", "seed": 1, "acc": 1}]
    )
    assert len(simple(path, where=("use=yes",)).runs) == 1


def test_planned_seeds_without_a_row_are_missing():
    found = simple(small((1, 1, 0.5), (1, 3, 0.7), (2, 2, 0.6)), seeds="1..3", majority="0.5")
    assert [(row[0], row[1], row[3]) for row in content(found)] == [
        (0, 1, "finished"), (0, 2, "missing"), (0, 3, "finished"),
        (1, 1, "missing"), (1, 2, "finished"), (1, 3, "missing"),
    ]  # fmt: skip
    assert len(found.runs["trial"].unique()) == 6
    assert "The planned seeds are 1..3 in every cell: 3 runs have no row." in found.notes
    assert found.runs["outcome"].isna().sum() == 3
    unplanned = simple(small((1, 1, 0.5)))
    assert any("do not say what was planned" in note for note in unplanned.notes)
    assert list(simple(small((1, "a", 0.5)), seeds="a,b").runs["status"]) == ["finished", "missing"]


# ---------------------------------------------------------------------------------------------------- judging the runs


def outcomes(*scores: object, **fields) -> list:
    path = small(*((1, number, score) for number, score in enumerate(scores)))
    return [None if value is None else value for value in simple(path, **fields).runs["outcome"]]


def test_failing_is_a_score_at_or_below_the_majority():
    assert outcomes(0.526, 0.527, 0.5271, 0.9, majority="0.527") == ["failed", "failed", "ok", "ok"]
    assert outcomes(0.1 + 0.2, 0.30001, majority="0.3") == ["failed", "ok"]  # 0.30000000000000004
    assert outcomes(1.2, 1.0, 0.9, majority="1.0", higher_is_better=False) == ["failed", "failed", "ok"]
    assert outcomes(0.1, 0.9) == [None, None]
    found = simple(small((1, 1, 0.528), (1, 2, 0.5271), (1, 3, 0.6)), majority="0.527")
    assert any(note.startswith("2 scores lie within 0.001 of the majority") for note in found.notes)


def test_the_majority_may_be_a_column_that_is_one_number_in_a_cell():
    columns = ("lr", "seed", "acc", "major")
    found = simple(
        small((1, 1, 0.5, 0.5), (1, 2, 0.6, 0.5), (2, 1, 0.6, 0.7), (3, 1, 0.6, ""), columns=columns), majority="major"
    )
    assert list(found.runs["outcome"]) == ["failed", "ok", "failed", None]
    assert list(found.runs["majority_score"])[:3] == [0.5, 0.5, 0.7]
    assert any("not known for 1 cell" in note for note in found.notes)
    line = refusal(small((1, 1, 0.5, 0.5), (1, 2, 0.6, 0.6), columns=columns, name="b.csv"), majority="major")
    assert "0.5 and 0.6 in 'lr 1'" in line


def test_with_examples_failing_is_judged_in_right_answers():
    # RTE: 277 examples, 146 of the larger class: a share of 0.527 is 146 right answers, 0.5307 one more.
    assert outcomes(0.527, 0.5271, 0.5307, 0.5235, majority="0.527", examples="277") == [
        "failed",
        "failed",
        "ok",
        "failed",
    ]
    found = simple(small((1, 1, 0.5271), (1, 2, 0.5307)), majority="0.527", examples="277")
    assert list(found.runs["correct"]) == [146, 147]
    assert set(found.runs["majority_correct"]) == {146}
    assert set(found.runs["dev_examples"]) == {277}
    assert "Failing is judged in right answers: score × --examples, rounded." in found.notes
    doubtful = simple(small((1, 1, 0.5271), (1, 2, 0.53252)), majority="0.527", examples="277")
    assert any("that is no whole number for 1 score (0.53252 × 277 = 147.51)" in note for note in doubtful.notes)
    columns = ("lr", "seed", "acc", "n")
    by_cell = simple(small((1, 1, 0.5, 10), (2, 1, 0.5, 20), columns=columns), examples="n", majority="0.5")
    assert list(by_cell.runs["correct"]) == [5, 10]


def test_scores_that_are_none_are_missing_or_diverged_by_choice():
    rows = [(1, 1, 0.5), (1, 2, "nan"), (1, 3, ""), (1, 4, "inf"), (1, 5, "-Infinity"), (1, 6, "NA"), (1, 7, 0.6)]
    line = refusal(small(*rows))
    assert "5 rows of 7" in line
    assert "small.csv:3" in line
    assert "--nan missing" in line
    assert "--nan diverged" in line
    lost = simple(small(*rows), nan="diverged", majority="0.55")
    assert list(lost.runs["outcome"]) == ["failed"] * 6 + ["ok"]
    assert list(lost.runs["reason"]) == [None, *["diverged"] * 5, None]
    assert list(lost.runs["status"]) == ["finished"] * 7
    assert list(lost.runs["final_score"].notna()) == [True, *[False] * 5, True]
    unknown = simple(small(*rows), nan="missing", majority="0.55")
    assert list(unknown.runs["status"]) == ["finished", *["missing"] * 5, "finished"]
    assert unknown.runs["reason"].isna().all()
    assert any("count as missing: 5." in note for note in unknown.notes)
    unjudged = simple(small(*rows), nan="diverged")
    assert unjudged.runs["outcome"].isna().all()
    assert (unjudged.runs["reason"] == "diverged").sum() == 5


def test_other_scores_and_losses_come_along():
    columns = ("lr", "seed", "acc", "t", "b", "l")
    found = simple(
        small((1, 1, 0.5, 0.4, 0.6, 0.3), (1, 2, 0.5, "", "nan", "inf"), columns=columns), test="t", best="b", loss="l"
    )
    assert found.runs["test_score"][0] == 0.4
    assert found.runs["best_score"][0] == 0.6
    assert found.runs["final_train_loss"][0] == 0.3
    for name in ("test_score", "best_score", "final_train_loss"):
        assert math.isnan(found.runs[name][1])
    bad = small((1, 1, 0.5, "x", 0.6, 0.3), columns=columns, name="bad.csv")
    assert "--test 't' must hold numbers, such as 0.53 or 1e-5 (got 'x' in bad.csv:2)" in refusal(bad, test="t")


@pytest.mark.parametrize(
    ("how", "score"), [("mean", 0.5), ("median", 0.4), ("min", 0.3), ("max", 0.8), ("first", 0.4), ("last", 0.3)]
)
def test_repeated_rows_of_a_seed_become_one_run_by_the_named_aggregation(how, score):
    rows = [(1, 1, 0.4), (2, 1, 0.9), (1, 1, 0.8), (1, 1, 0.3)]
    line = refusal(small(*rows))
    assert "small.csv:2 and small.csv:4, seed '1' of 'lr 1'" in line
    assert "--aggregate mean|median|min|max|first|last" in line
    found = simple(small(*rows), aggregate=how)
    assert list(found.runs["final_score"]) == pytest.approx([score, 0.9])
    assert list(found.runs["trial"]) == ["small.csv:2+small.csv:4+small.csv:5", "small.csv:3"]
    assert f"Several rows of one seed are one run, by {how}: 2 rows merged into others." in found.notes


def test_of_repeated_rows_one_that_diverged_decides_and_no_score_is_left_aside():
    rows = [(1, 1, 0.4), (1, 1, "nan"), (2, 1, "nan"), (2, 1, "nan")]
    lost = simple(small(*rows), aggregate="mean", nan="diverged")
    assert list(lost.runs["reason"]) == ["diverged", "diverged"]
    kept = simple(small(*rows), aggregate="mean", nan="missing")
    assert list(kept.runs["status"]) == ["finished", "missing"]
    assert kept.runs["final_score"][0] == 0.4
    many = simple(small(*((1, 1, 0.5) for _ in range(9))), aggregate="max")
    assert list(many.runs["trial"]) == ["small.csv:2+small.csv:3+small.csv:4…"]


# ------------------------------------------------------------------------------------------------- W&B and MLflow


def test_a_wandb_export_tells_crashed_runs_from_finished_ones():
    rows = [{"lr": 1, "seed": seed, "acc": "0.5"} for seed in range(7)]
    for row, state in zip(
        rows, ("finished", "crashed", "failed", "killed", "running", "preempted", "finished"), strict=True
    ):
        row["State"] = state
    rows[1]["acc"] = rows[4]["acc"] = ""
    found = simple(wandb("w.csv", rows), majority="0.4")
    assert list(found.runs["status"]) == ["finished", *["crashed"] * 3, *["missing"] * 2, "finished"]
    assert list(found.runs["outcome"]) == ["ok", *[None] * 5, "ok"]
    assert list(found.runs["error"])[1:4] == ["State: crashed", "State: failed", "State: killed"]
    assert found.runs["final_score"].notna().sum() == 2
    assert (
        "States of runs are read from the column 'State' (2 finished; crashed: crashed 1, failed 1, "
        "killed 1; missing: running 1, preempted 1); a crash is missing data, not a failed run."
    ) in found.notes
    assert "Scores of crashed runs are not used: 2." in found.notes
    rows[6]["acc"] = "NaN"
    assert "1 row of 7" in refusal(wandb("w.csv", rows))


def test_a_table_with_a_name_and_a_state_is_no_wandb_export_by_that_alone():
    rows = [{"Name": "a", "State": state, "ID": 1, "seed": 1, "acc": 0.5, "lr": 1} for state in ("Texas", "Ohio")]
    assert list(of(table("a.csv", rows), cell=("State",)).runs["status"]) == ["finished", "finished"]


def test_an_mlflow_store_gives_last_steps_states_and_nested_names():
    store = mlruns()
    history = "1700000000000 0.9 1\n1700000000900 0.7 10\n1700000000300 0.8 2\n"
    mlrun(
        "mlruns/0", "a" * 32, {"lr": "1e-05", "seed": "1", "model/name": "b"}, {"eval/acc": history, "seed": "1 5 0\n"}
    )
    mlrun("mlruns/0", "b" * 32, {"lr": "1e-05", "seed": "2", "model/name": "b"}, {"eval/acc": "1 nan 3\n"}, status=4)
    mlrun("mlruns/0", "c" * 32, {"lr": "1e-05", "seed": "3", "model/name": "b"}, {}, status=1)
    mlrun("mlruns/0", "d" * 32, {"lr": "1e-05", "seed": "4"}, {}, lifecycle_stage="deleted")
    mlrun("mlruns/.trash/1/", "e" * 32, {"lr": "1e-05", "seed": "5"}, {})
    Path("mlruns/0/models/m-1").mkdir(parents=True)
    Path("mlruns/0/models/m-1/meta.yaml").write_text("model_id: m-1\nrun_id: x\nstatus: 2\n")
    ask_for = {"seed": "params.seed", "metric": "eval/acc", "cell": ("lr,model/name",)}
    found = of(store, **ask_for, best="eval/acc:best")
    assert list(found.runs["status"]) == ["finished", "crashed", "missing"]
    assert list(found.runs["trial"]) == [f"mlruns:{letter * 32}" for letter in "abc"]
    assert found.runs["final_score"][0] == 0.7
    assert found.runs["best_score"][0] == 0.9
    assert list(found.runs["error"])[1] == "status: FAILED"
    assert found.cells[0].axes == (("lr", 1e-5), ("model/name", "b"))
    assert "Runs that were deleted in MLflow are left out: 1." in found.notes
    assert any("column 'status' of MLflow" in note and "missing: running 1" in note for note in found.notes)
    assert content(of("mlruns/0", **ask_for)) == content(found)
    assert of(store, **(ask_for | {"cell": ("run_name",)})).values("run_name") == [f"run {c * 32}" for c in "abc"]
    assert "did you mean 'params.seed', 'metrics.seed'?" in refusal(
        store, **(ask_for | {"seed": "seed"})
    )  # a param and a metric


def test_bad_mlflow_folders_are_one_line():
    Path("empty").mkdir()
    Path("no.csv").mkdir()
    for name in ("empty", "no.csv"):
        assert f"cannot read {name}: it holds no runs of a known tool" in refusal(name)
    store = mlruns()
    run = mlrun("mlruns/0", "a" * 32, {"lr": "1", "seed": "1"}, {"acc": "1 abc 3\n"})
    assert "line 1 is not 'time value step'" in refusal(store)
    (run / "metrics" / "acc").write_bytes(b"\xff\xfe")
    assert "it is not UTF-8 text" in refusal(store)
    (run / "metrics" / "acc").unlink()
    assert "cannot find" not in refusal(store)
    (run / "meta.yaml").write_text("run_id: a\nlifecycle_stage: deleted\n")
    assert "no rows" in refusal(store)


# -------------------------------------------------------------------------------------------------------- bad input

GOOD = "lr,seed,acc\n1,1,0.5\n"
BAD = {
    "no file": (None, {}, "cannot read missing.csv: no such file or folder"),
    "empty": ("", {}, "cannot read bad.csv: it is empty"),
    "blank": (" \n\n", {}, "cannot read bad.csv: it is empty"),
    "no rows": ("lr,seed,acc\n", {}, "cannot read bad.csv: no rows"),
    "no column": ("lr,sed,acc\n1,1,1\n", {}, "bad.csv has no column 'seed' for --seed"),
    "a near column": ("lr,seeds,acc\n1,1,1\n", {}, "did you mean 'seeds'?"),
    "twice a column": ("lr,seed,acc,acc\n1,1,1,1\n", {}, "its header has 'acc' 2 times"),
    "text": ("lr,seed,acc\n1,1,0.5\n1,2,53 %\n", {}, "or 1e-5 (got '53 %' in bad.csv:3)"),
    "a truth": ("lr,seed,acc\n1,1,True\n", {}, "got 'True' in bad.csv:2"),
    "an underscore": ("lr,seed,acc\n1,1,1_0\n", {}, "got '1_0' in bad.csv:2"),
    "two rows": ("lr,seed,acc\n1,1,0.5\n1,1,0.5\n", {}, "bad.csv:2 and bad.csv:3, seed '1' of"),
    "NaN": ("lr,seed,acc\n1,1,NaN\n", {}, "1 row of 1 has an empty, NaN or infinite score, first bad.csv:2 ('NaN')"),
    "no seed": ("lr,seed,acc\n1,,1\n", {}, "a seed must be a number or one line of text (got '' in bad.csv:2)"),
    "an infinite seed": ("lr,seed,acc\n1,inf,1\n", {}, "got 'inf' in bad.csv:2"),
    "a truth as seed": ("lr,seed,acc\n1,true,1\n", {}, "got 'true' in bad.csv:2"),
    "a seed of two lines": ('lr,seed,acc\n1,"a\rb",1\n', {}, "got 'a\\rb' in bad.csv:2"),
    "too few fields": ("lr,seed,acc\n1,1,1\n1,2\n", {}, "line 3 has 2 fields, the header 3"),
    "too many fields": ("lr,seed,acc\n1,1,0,5\n", {}, "line 2 has 4 fields, the header 3"),
    "an open quote": ('lr,seed,acc\n1,1,"0.5\n', {}, "line 2: unexpected end of data"),
    "another encoding": ("lr,seed,acc\ncaf\xe9,1,1\n".encode("latin-1"), {}, "it is not UTF-8 text"),
    "UTF-16": (GOOD.encode("utf-16"), {}, "it is not UTF-8 text"),
    "aggregate": (GOOD, {"aggregate": "mode"}, "--aggregate must be one of "),
    "nan": (GOOD, {"nan": "zero"}, "--nan must be one of "),
    "majority": (GOOD, {"majority": "half"}, "no column 'half' for --majority"),
    "majority NaN": (GOOD, {"majority": "nan"}, "no column 'nan' for --majority"),
    "a majority of text": (GOOD.replace("1,1", "x,1"), {"majority": "lr"}, "such as 0.53 or 1e-5 (got 'x'"),
    "where": (GOOD, {"where": ("lr",)}, "--where 'lr' is not of the form COLUMN=VALUE"),
    "where column": (GOOD, {"where": ("x=1",)}, "no column 'x' for --where"),
    "where none": (GOOD, {"where": ("lr=2",)}, "--where lr=2 leaves none of 1 row. Allowed: 'lr': '1'"),
    "cell twice": (GOOD, {"cell": ("lr,lr",)}, "--cell names 'lr' twice"),
    "cell empty": (GOOD, {"cell": ("",)}, "no column '' for --cell"),
    "cell seed": (GOOD, {"cell": ("seed",)}, "--cell cannot name 'seed', which is the seed or the score"),
    "cell score": (GOOD, {"cell": ("acc",)}, "--cell cannot name 'acc', which is the seed or the score"),
    "seeds": (GOOD, {"seeds": "5..1"}, "--seeds must be seeds and ranges, such as 1..20 or 1,2,5..9 (got '5..1')"),
    "seeds of nothing": (GOOD, {"seeds": ""}, "--seeds must be seeds and ranges, such as 1..20 or 1,2,5..9 (got '')"),
    "seeds twice": (GOOD, {"seeds": "1..3,2"}, "names a seed twice"),
    "very many seeds": (GOOD, {"seeds": "1..999999999999"}, "plans more than"),
    "unplanned": (GOOD, {"seeds": "2..3"}, "seed '1' in bad.csv:2 is not in --seeds 2..3"),
    "examples 0": (GOOD, {"examples": "0"}, "--examples must be the number of dev examples, 1 or more (got 0)"),
    "examples 2.5": (GOOD, {"examples": "2.5"}, "--examples must be the number of dev examples, 1 or more (got 2.5)"),
    "percent": (GOOD.replace("0.5", "53.1"), {"examples": "277"}, "shares of right answers (got 53.1 in bad.csv:2)"),
    "a majority of 527": (GOOD, {"examples": "277", "majority": "527"}, "a majority of 527, but scores up to 0.5"),
    "a loss": (GOOD, {"examples": "277", "higher_is_better": False}, "cannot be used with --lower-is-better"),
    "name": (GOOD, {"name": "../x"}, "and not end as a YAML file (got '../x')"),
    "no name": (GOOD, {"name": ""}, "and not end as a YAML file (got '')"),
    "a name of YAML": (GOOD, {"name": "x.yaml"}, "and not end as a YAML file (got 'x.yaml')"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_clear_line(kind):
    given_text, fields, wanted = BAD[kind]
    path = "missing.csv" if given_text is None else text("bad.csv", given_text)
    assert wanted in refusal(path, **fields)


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.jsonl", '{"lr": 1}\n{"lr": \n', "line 2 is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("a.jsonl", '{"lr": ' + "9" * 5000 + "}", "line 1 is no JSON"),
        (
            "a.jsonl",
            '{"lr": "\\ud800", "seed": 1, "acc": 1}',
            "'lr' holds text that UTF-8 cannot encode (got '\\ud800' in a.jsonl:1)",
        ),
        ("a.jsonl", '{"lr": 1, "seed": "\\ud800", "acc": 1}', "a seed must be a number or one line of text"),
        ("a.jsonl", '{"lr": 1, "seed": 1, "acc": [1]}', "got '[1]' in a.jsonl:1"),
        ("a.jsonl", '{"lr": 1, "seed": 1}', "for --metric"),
        ("a.parquet", "PAR1 no PAR1", "no Parquet, or damaged"),
        ("a.csv.gz", "no gzip", "it is not gzip, or cut short"),
        ("a.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "it is not gzip, or cut short"),
        ("a.xlsx", "x", "its ending is '.xlsx'"),
        ("runs", "x", "its ending is ''"),
        ("a.csv", "a;b\n1;2\n", "Allowed: 'a;b'"),
        ("a.csv", "lr,seed,acc\n1,1," + "9" * 200_000, "field larger than field limit"),
        ("a.csv", "lr,seed,acc\n1,1,\x1b[31mred\x00\n", "got '\\x1b[31mred\\x00' in a.csv:2"),
    ],
)
def test_bad_files_of_each_format_are_one_clear_line(name, content, wanted):
    assert wanted in refusal(text(name, content))


def test_a_file_is_read_once_and_one_without_a_column_is_named():
    path = text("a.csv", GOOD)
    assert "a.csv is named twice" in refusal(path, "./a.csv")
    assert "b.csv has no column 'acc' for --metric" in refusal(path, text("b.csv", "lr,seed\n1,2\n"))
    assert "no files to import" in refusal()


def test_a_folder_is_replaced_by_the_same_command_or_overwrite_alone():
    path = text("a.csv", GOOD)
    results = Path("results")
    import_runs(ask(path, cell=("lr",)), results)
    text("a.csv", GOOD + "1,2,0.6\n")
    import_runs(ask(path, cell=("lr",)), results)  # the file has grown
    assert len(imported.of_import(results / "x").runs) == 2
    with pytest.raises(HarnessError, match="is another import"):
        import_runs(ask(path, cell=("lr",), majority="0.5"), results)
    assert imported.of_import(results / "x").runs["outcome"].isna().all()
    import_runs(ask(path, cell=("lr",), majority="0.5"), results, overwrite=True)
    assert imported.of_import(results / "x").runs["outcome"].notna().all()
    (results / "rte").mkdir()
    (results / "rte" / "plan.json").write_text("{}")
    with pytest.raises(HarnessError, match="is not an import"):
        import_runs(ask(path, cell=("lr",), name="rte"), results, overwrite=True)
    (results / "rte" / "plan.json").rename(results / "rte" / "runs.csv")  # as an import that was killed leaves it
    import_runs(ask(path, cell=("lr",), name="rte"), results)


# --------------------------------------------------------------------------------------------------------------- laws

score = st.one_of(st.floats(0, 1), st.sampled_from(["", "nan", "inf", "0.5"]))
row = st.tuples(
    st.sampled_from(["a", "b", "1", ""]), st.integers(1, 4), score, st.sampled_from(["finished", "failed", "running"]),
    st.sampled_from(["dev", "test"]),
)  # fmt: skip


@given(
    st.lists(row, min_size=1, max_size=30),
    st.sampled_from(AGGREGATIONS),
    st.sampled_from(NAN_CHOICES),
    st.booleans(),
    st.booleans(),
)
def test_no_row_is_lost_or_doubled(rows, how, nan, planned, filtered):
    columns = ("method", "seed", "acc", "State", "split")
    path = wandb("p.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    kept = [row for row in rows if row[4] == "test" or not filtered]
    fields = {
        "cell": ("method",),
        "nan": nan,
        "aggregate": how,
        "seeds": "1..4" if planned else None,
        "majority": "0.5",
    }
    asked = ask(path, **fields, where=("split=test",) if filtered else ())
    if not kept:
        with pytest.raises(HarnessError, match="leaves none"):
            read_runs(asked)
        return
    found = read_runs(asked)
    counts = found.counts
    assert counts["finished"] + counts["crashed"] + counts["missing"] == counts["runs"] == len(found.runs)
    assert found.rows == len(rows)
    assert found.left_out == len(rows) - len(kept)
    assert counts["runs"] - found.unseen + found.merged + found.left_out == len(rows)
    pairs = {row[:2] for row in kept}
    cells = {row[0] for row in kept}
    assert counts["cells"] == len(cells)
    assert counts["runs"] == (4 * len(cells) if planned else len(pairs))
    runs = found.runs
    assert not runs.duplicated(["cell", "seed"]).any()
    assert runs["trial"].is_unique
    done = runs["status"] == "finished"
    assert (runs["outcome"].notna() == done).all()
    assert (runs["final_score"].notna() | (runs["reason"] == "diverged"))[done].all()
    assert runs["final_score"][~done].isna().all()


@given(st.permutations(ROWS), st.sampled_from([None, "mean", "median", "max"]))
def test_the_order_of_the_rows_decides_nothing_where_all_axes_are_numbers(rows, how):
    if how:
        rows = [*rows, *({**row, "acc": row["acc"] * 0.7} for row in rows)]
    found = read_runs(ask(table("o.csv", rows), cell=("lr", "bc"), aggregate=how))
    straight = ROWS + ([{**row, "acc": row["acc"] * 0.7} for row in ROWS] if how else [])
    again = read_runs(ask(table("o.csv", straight), cell=("lr", "bc"), aggregate=how))
    assert found.imported.cells == again.imported.cells
    pd.testing.assert_frame_equal(found.runs.drop(columns="trial"), again.runs.drop(columns="trial"))


SUFFIXES = [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".csv.gz"]
fragments = st.lists(
    st.sampled_from([
        b"lr,seed,acc\n", b"1,1,0.5\n", b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"nan", b"\xef\xbb\xbf", b"1e999",
        b'{"lr":1,"seed":2,"acc":0.5}\n', b"{", b"}", b'"seed":', b"[", b"\t", b"PAR1", b"\\ud800",
    ]),
    max_size=12,
).map(b"".join)  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(SUFFIXES), st.binary(max_size=200) | fragments, st.booleans())
def test_any_bytes_are_a_study_or_one_line(suffix, raw, packed):
    path = text(f"fuzz{suffix}", gzip.compress(raw) if packed and suffix.endswith(".gz") else raw)
    said = ""
    try:
        folder, _ = import_runs(
            ask(path, cell=("lr",), nan="diverged", aggregate="last"), Path("results"), overwrite=True
        )
    except HarnessError as error:
        said = str(error)
    assert "\n" not in said
    assert "cannot" in said or "must" in said or "Allowed: " in said if said else len(imported.of_import(folder).runs)


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_parquet_is_a_study_or_one_line(changes):
    damaged = bytearray(parquet("whole.parquet", ROWS).read_bytes())
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    said = ""
    try:
        read_runs(ask(text("damaged.parquet", bytes(damaged)), nan="missing", aggregate="last"))
    except HarnessError as error:
        said = str(error)
    assert not said or "cannot" in said or "must" in said or "Allowed: " in said


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6))


@given(st.lists(anything, min_size=1, max_size=8), st.sampled_from(["jsonl", "csv"]))
def test_any_settings_survive_the_round_trip(values, kind):
    rows = [{"lr": value, "seed": number, "acc": 0.5} for number, value in enumerate(values)]
    path = FORMATS[kind](rows)
    folder, found = import_runs(ask(path, cell=("lr",)), Path("results"), overwrite=True)
    back = imported.of_import(folder)
    assert back.imports == (found.imported,)
    assert len(back.runs) == len(values)
    kinds = Counter(type(value) for value in back.values("lr") if value not in (None, "inf", "-inf"))
    assert len(kinds) <= 2
    assert not ({bool, str} & kinds.keys() and len(kinds) > 1)


def test_a_hundred_thousand_rows_of_ten_thousand_cells_are_read_in_little_memory():
    stream = io.StringIO()
    stream.write("dataset,method,lr,seed,note,acc,test\n")
    for number in range(100_000):
        cell, seed = number % 10_000, number // 10_000
        stream.write(f"d{cell % 10},m{cell // 10 % 10},{cell // 100}e-5,{seed},some words,0.{number % 997:03d},0.5\n")
    path = text("big.csv", stream.getvalue())
    found = of(
        path, cell=("dataset,method,lr",), majority="0.5", seeds="0..10", test="test", where=("note=some words",)
    )
    assert len(found.cells) == 10_000
    assert len(found.runs) == 110_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20  # KiB


# ------------------------------------------------------------------------------------------------------- the command

COMMAND = ["import", "a.csv", "--cell", "lr", "--seed", "seed", "--metric", "acc"]


def test_the_command_prints_counts_and_notes():
    table("a.csv", [{"lr": "[red]x", "seed": 1, "acc": 0.5}, {"lr": 2, "seed": 1, "acc": "nan"}])
    result = CliRunner().invoke(
        app, [*COMMAND, "--as", "mine", "--nan", "diverged", "--majority", "0.527", "--seeds", "1..2"]
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "2 cells, 4 runs: 2 finished (1 diverged), 0 crashed, 2 missing."
    assert lines[1] == "Read from a.csv: 2 rows."
    assert lines[-1].startswith("Report it: ")
    assert lines[-1].endswith(" report mine")
    result = CliRunner().invoke(app, [*COMMAND, "--as", "mine", "--nan", "missing", "--results", "r", "--json"])
    assert json.loads(result.stdout) == {
        "name": "mine", "folder": "r/mine", "cells": 2, "runs": 2, "finished": 1, "crashed": 0, "missing": 1,
        "diverged": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        [*COMMAND, "--as", "x", "--nan", "none"],
        [*COMMAND, "--as", "x/y"],
        [*COMMAND, "--as", "taken"],
        [*COMMAND],
        ["import", "--as", "x", "--seed", "seed", "--metric", "acc"],
        ["import", ".", "--as", "x", "--seed", "seed", "--metric", "acc"],
        ["import", "", "--as", "x", "--seed", "seed", "--metric", "acc"],
        ["import", "a\x00b.csv", "--as", "x", "--seed", "seed", "--metric", "acc"],
        [*COMMAND, "--as", "x", "--results", "a.csv"],
        [*COMMAND, "--as", "x", "--where", "lr=<script>🙂\u202e"],
    ],
)
def test_bad_commands_are_one_line_and_exit_2(words):
    text("a.csv", GOOD)
    Path("sweeps").mkdir()
    Path("sweeps/taken.yaml").write_text("task: rte\n")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("harness: ")
    assert result.stderr.count("\n") == 1
    assert "\u202e" not in result.stderr
    assert not Path("results").exists()


def test_what_one_report_writes_an_import_reads_with_the_same_numbers(tmp_path, no_figures):
    sweep = sweep_of(tmp_path, MOSBACH)
    own = page.write(study.of_sweep(sweep, store_of(tmp_path, sweep, MOSBACH_RUNS)), tmp_path / "report")
    foreign = of(
        own.folder / "tables" / "runs.csv",
        cell=("lr,bias_correction,epochs",),
        metric="final_score",
        where=("status=finished",),
        majority="majority_score",
        examples="dev_examples",
        loss="final_train_loss",
        nan="diverged",
    )
    ours, theirs = own.analysis.cells, cells_module.cells(foreign)
    by_axes = {cell.axes: index for index, cell in enumerate(foreign.cells)}
    order = [by_axes[cell.axes] for cell in sweep.cells]
    for name in ("finished", "judged", "scored", "failed", "failed_low", "diverged", "mean", "sd", "median", "loss"):
        expected, found = ours[name].tolist(), theirs[name].iloc[order].tolist()
        assert found == pytest.approx(expected, rel=1e-9, nan_ok=True), name
