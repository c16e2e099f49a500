"""What a column says of the runs: states by their words, summaries under the seeds, units, precision and --where."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.records import imported, study
from harness.records.importing import states, units
from harness.records.importing.options import ImportOptions
from harness.records.importing.runs import import_runs, read_runs
from harness.records.importing.summary_rows import is_summary


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def table(rows: list[dict], name: str = "a.csv") -> str:
    with Path(name).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return name


def options(*sources: str, **fields) -> ImportOptions:
    given = {"seed": "seed", "metric": "acc", "name": "x"} | fields
    return ImportOptions(sources=sources, **given)


def of(*sources: str, **fields) -> study.Study:
    folder, _ = import_runs(options(*sources, **fields), Path("results"), overwrite=True)
    return imported.of_import(folder)


def refusal(*sources: str, **fields) -> str:
    with pytest.raises(HarnessError) as caught:
        read_runs(options(*sources, **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_states(words: list[str], column: str = "State", **more: object) -> str:
    return table([{column: word, "seed": seed, "acc": 0.4} | more for seed, word in enumerate(words)])


# ------------------------------------------------------------------------------------------------------------ states


def test_a_wandb_csv_with_state_alone_has_four_crashed_runs_and_none_of_them_failed():
    rows = [
        {"Name": f"run-{lr}-{seed}", "State": "crashed" if seed == 9 and lr < 2e-5 else "finished", "lr": lr,
         "seed": seed, "acc": 0.5 if seed > 7 else 0.7}
        for lr in (1e-5, 1.5e-5, 1.7e-5, 1.9e-5) for seed in range(5, 10)
    ]  # fmt: skip
    found = of(table(rows), cell=("lr",), majority="0.527")
    status = found.runs["status"].value_counts().to_dict()
    assert status == {"finished": 16, "crashed": 4}
    assert (found.runs["outcome"] == "failed").sum() == 4
    assert any("'State' (16 finished; 4 crashed)" in note for note in found.notes)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["finished", "crashed", "failed", "killed", "running"], ["finished", *["crashed"] * 3, "missing"]),
        (["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"], ["finished", "missing", "crashed", *["missing"] * 2]),
        (["TrialState.COMPLETE", "TrialState.PRUNED", "TrialState.FAIL"], ["finished", "missing", "crashed"]),
        (["FINISHED", "FAILED", "KILLED"], ["finished", "crashed", "crashed"]),
        (["TERMINATED", "ERROR", "PENDING"], ["finished", "crashed", "missing"]),
        (["Completed", "CANCELLED", "timeout", "Out of memory"], ["finished", *["crashed"] * 3]),
        (["finished", "", "failed"], ["finished", "missing", "crashed"]),
    ],
)
@pytest.mark.parametrize("column", ["State", "attributes.status", "wie es ausging"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_any_column_of_states_counts_by_its_values_whatever_its_name(words, status, column, kind):
    rows = [{column: word, "seed": seed, "acc": 0.4} for seed, word in enumerate(words)]
    if kind == "csv":
        name = table(rows)
    else:
        name = f"a.{kind}"
        lines = [json.dumps(row) for row in rows]
        Path(name).write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    found = of(name, majority="0.5")
    assert list(found.runs["status"]) == status
    assert [outcome == "failed" for outcome in found.runs["outcome"]] == [one == "finished" for one in status]
    said = [note for note in found.notes if column in note]
    assert len(said) == 1
    assert ("stopped early, so missing: pruned 1" in said[0]) == any("PRUNED" in word for word in words)


def test_the_tables_that_mlflow_and_optuna_write_as_csv_have_states():
    rows = [
        {"run_id": f"r{seed}", "experiment_id": 0, "status": "FAILED" if seed == 2 else "FINISHED", "metrics.acc": 0.4,
         "params.lr": "1e-05", "params.seed": seed} for seed in range(4)
    ]  # fmt: skip
    found = of(table(rows), seed="params.seed", metric="metrics.acc", cell=("params.lr",), majority="0.5")
    assert list(found.runs["status"]) == ["finished", "finished", "crashed", "finished"]
    assert (found.runs["outcome"] == "failed").sum() == 3
    rows = [
        {"number": seed, "value": 0.4, "params_lr": 1e-5, "user_attrs_seed": seed, "state": state}
        for seed, state in enumerate(["COMPLETE", "PRUNED"])
    ]
    found = of(table(rows, "o.csv"), seed="user_attrs_seed", metric="value", cell=("params_lr",), majority="0.5")
    assert list(found.runs["status"]) == ["finished", "missing"]
    assert list(found.runs["outcome"].isna()) == [False, True]


def test_the_command_takes_every_new_option_and_repeats_itself():
    import shlex

    for seed in (1, 2):
        Path(f"seed{seed}.csv").write_text("acc,mood\n71.5,ok\n" if seed == 1 else "acc,mood\n0.9,failed\n")
    words = ["import", "seed1.csv", "seed2.csv", "--seed-from", "seed(\\d+)", "--metric", "acc", "--state", "none",
             "--unit", "percent", "--where", "mood!=bad", "--as", "new"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = imported.of_import(Path("results/new"))
    assert list(found.runs["final_score"]) == [0.715, 0.009]
    assert list(found.runs["seed"]) == [1, 2]
    again = CliRunner().invoke(app, shlex.split(found.imports[0].command)[1:])
    assert again.exit_code == 0, again.output
    assert imported.of_import(Path("results/new")).imports == found.imports


def test_a_parquet_file_has_states_too():
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"how": word, "seed": n, "config": {"lr": 1e-5}, "acc": 0.5} for n, word in enumerate(["done", "killed"])]
    pq.write_table(pa.Table.from_pylist(rows), "a.parquet")
    found = of("a.parquet", cell=("config.lr",))
    assert list(found.runs["status"]) == ["finished", "crashed"]
    assert found.axes == ("config.lr",)


def test_words_that_may_be_verdicts_are_asked_about_and_two_columns_that_differ_too():
    verdicts = with_states(["ok", "failed", "ok"], "how it went")
    line = refusal(verdicts)
    assert "the column 'how it went' (ok 2, failed 1) means: it may be the states of runs" in line
    assert "--state none" in line
    assert list(of(verdicts, state="none").runs["status"]) == ["finished"] * 3
    assert list(of(verdicts, state="how it went").runs["status"]) == ["finished", "crashed", "finished"]
    assert "(--state none)" in " ".join(of(verdicts, state="none").notes)
    # With a column of states beside it, it isn't states: a run that is finished may have failed by its score.
    both = with_states(["finished", "finished", "crashed"], "status")
    rows = [row | {"outcome": "failed"} for row in csv.DictReader(Path(both).read_text().splitlines())]
    found = of(table(rows, "b.csv"))
    assert list(found.runs["status"]) == ["finished", "finished", "crashed"]
    assert any("'outcome' (failed 3) was not read as states" in note for note in found.notes)
    all_done = [row | {"status": "finished"} for row in rows]
    assert list(of(table(all_done, "c.csv")).runs["status"]) == ["finished"] * 3
    two = [row | {"job status": "COMPLETED"} for row in rows]
    two[0]["job status"] = "TIMEOUT"
    assert "two columns give different states of runs" in refusal(table(two, "d.csv"))
    assert list(of("d.csv", state="job status").runs["status"]) == ["crashed", "finished", "finished"]


def test_a_state_of_unknown_meaning_is_asked_about_and_a_setting_is_none():
    strange = with_states(["finished", "crashed", "borked"])
    line = refusal(strange)
    assert "unknown state of a run: 'borked' in 1 row of the column 'State'" in line
    assert list(of(strange, where=("State!=borked",)).runs["status"]) == ["finished", "crashed"]
    assert "--state must name a column of states of runs: 'Ohio'" in refusal(
        with_states(["Texas", "Ohio"][::-1]), state="State"
    )
    assert "--cell names it as a setting" in refusal(with_states(["finished", "crashed"]), cell=("State",))
    pruned = with_states(["complete", "pruned"], "data")
    assert of(pruned, cell=("data",), state="none").axes == ("data",)
    assert "no column 'nope' for --state" in refusal(pruned, state="nope")


# -------------------------------------------------------------------------------------------------- summaries, blanks


@pytest.mark.parametrize(
    "label",
    ["Minimum", "MAX", "Mean", "Standard deviation", "std", "sd", "Avg.", "Median", "total", "Std. dev.", "MÉDIANE",
     "Mittelwert", "Mean (n=4)", "mean ± sd", "25%", "平均", "MİN", "Écart type"],
)  # fmt: skip
def test_summaries_under_the_seeds_are_no_runs(label):
    Path("a.csv").write_text(f"seed,lr,acc\n1,1e-5,0.5\n2,1e-5,0.7\n,,\n{label},,0.6\n", encoding="utf-8")
    found = read_runs(options("a.csv", majority="0.65"))
    assert list(found.runs["seed"]) == [1, 2]
    assert (found.rows, found.blank, found.summaries, found.merged, found.left_out) == (4, 1, 1, 0, 0)
    assert "a.csv: 1 blank row skipped." in found.imported.notes
    assert f"1 summary row is no run and was left out: a.csv:5 ({label})." in found.imported.notes


def test_summaries_may_be_named_in_the_first_column_and_other_words_are_seeds():
    Path("a.csv").write_text("run,seed,acc\na,1,0.5\n\nMean,,0.5\n")
    found = read_runs(options("a.csv"))
    assert (len(found.runs), found.summaries, found.blank) == (1, 1, 1)
    for seed in ("means1", "max_2", "run mean", "s1", "total_run_3", "7", ""):
        assert is_summary(seed) == (seed == "run mean")
    Path("b.csv").write_text("seed,acc\nmin,0.5\nmax,0.6\n")
    assert "all rows are summaries, none is a run (got 'min', 'max')" in refusal("b.csv")
    assert len(of("b.csv", seeds="min,max").runs) == 2  # named as seeds, they are


def test_where_leaves_rows_out_by_value():
    rows = [
        {"split": split, "seed": n, "acc": 0.5, "k!": 1} for n, split in enumerate(["dev", "test", "", "a=b", "dev"])
    ]
    name = table(rows)
    assert list(of(name, where=("split!=dev",)).runs["seed"]) == [1, 2, 3]
    assert list(of(name, where=("split!=dev,test",)).runs["seed"]) == [2, 3]
    assert list(of(name, where=("split!=dev", "split!=test", "seed!=2")).runs["seed"]) == [3]
    assert list(of(name, where=("split!=",)).runs["seed"]) == [0, 1, 3, 4]
    assert list(of(name, where=("split!=a=b",)).runs["seed"]) == [0, 1, 2, 4]
    assert list(of(name, where=("seed!=1.0",)).runs["seed"]) == [0, 2, 3, 4]
    assert list(of(name, where=("k!=1", "split=dev")).runs["seed"]) == [0, 4]  # a column k! that is 1
    assert "a.csv has no column 'x' for --where" in refusal(name, where=("x!=1",))


# ------------------------------------------------------------------------------------------- sparse tables of a run


def test_last_and_first_are_the_last_and_first_score_there_is():
    lines = ["seed,step,train_loss,val_acc"]
    for seed in range(3):
        for epoch in range(3):
            lines += [
                f"{seed},{epoch * 10},0.{9 - epoch},",
                f"{seed},{epoch * 10 + 9},,0.{5 + epoch}{seed}",
                f"{seed},{epoch * 10 + 10},0.1,",
            ]
    Path("m.csv").write_text("\n".join(lines) + "\n")
    last = of("m.csv", metric="val_acc", aggregate="last")
    assert list(last.runs["status"]) == ["finished"] * 3
    assert list(last.runs["final_score"]) == [0.7, 0.71, 0.72]
    assert list(of("m.csv", metric="val_acc", aggregate="first").runs["final_score"]) == [0.5, 0.51, 0.52]
    assert list(of("m.csv", metric="val_acc", aggregate="max").runs["final_score"]) == [0.7, 0.71, 0.72]
    assert any("passed over: 18" in note for note in last.notes)


def test_a_run_that_ends_in_nan_is_not_its_last_finite_score_unless_nan_is_nothing():
    rows = [{"seed": 1, "acc": acc} for acc in (0.5, 0.6, "nan", "")]
    name = table(rows)
    assert "1 run of 1 has an empty, NaN or infinite score" in refusal(name, aggregate="last")
    assert list(of(name, aggregate="last", nan="diverged", majority="0.1").runs["outcome"]) == ["failed"]
    assert list(of(name, aggregate="last", nan="missing").runs["final_score"]) == [0.6]
    assert list(of(name, aggregate="first").runs["final_score"]) == [0.5]


def test_rows_of_a_run_with_rising_steps_are_its_curve():
    rows = [
        {"seed": seed, "step": step, "acc": 0.5 + step / 100, "loss": 1 / step} for seed in (1, 2) for step in (1, 5)
    ]
    found = of(table(rows), aggregate="last", loss="loss")
    curves = found.curves(1)
    assert list(curves.eval_step) == [1, 5]
    assert list(curves.dev_score) == [0.51, 0.55]
    assert curves.train_loss.tolist() == pytest.approx([1, 0.2, 0.2, 0.2, 0.2])
    assert of(table([row | {"step": 3} for row in rows]), aggregate="last").curves(0) is None


# ------------------------------------------------------------------------------------------------- precision and units


def outcomes(*scores: object, **fields) -> list:
    return list(of(table([{"seed": n, "acc": score} for n, score in enumerate(scores)]), **fields).runs["outcome"])


def test_scores_and_majority_are_compared_at_the_precision_of_the_file():
    assert outcomes("0.5950000286102295", "0.595000148", majority="0.595") == ["failed", "ok"]
    assert outcomes("0.595", majority="0.595") == ["failed"]
    assert outcomes("0.53", "0.54", majority="0.527") == ["failed", "ok"]  # two decimals: 0.527 is 0.53 there
    assert outcomes("0.530", "0.53", majority="0.527") == ["ok", "ok"]  # one with three: they are three
    assert outcomes("0.6", "0.5", majority="0.55") == ["ok", "failed"]  # a tenth is no sign of rounding
    assert outcomes("0.6931472", "0.6931471", majority="0.6931471", higher_is_better=False) == ["failed", "failed"]
    found = of(table([{"seed": 1, "acc": "0.5950000286102295"}]), majority="0.595")
    assert any("1 score equals the majority at the precision of the file's numbers" in note for note in found.notes)


def test_float32_in_a_parquet_file_is_at_the_majority_and_counts_are_whole():
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = np.array([0.595, 0.6], dtype=np.float32)
    pq.write_table(pa.table({"seed": [1, 2], "acc": scores}), "a.parquet")
    assert list(of("a.parquet", majority="0.595").runs["outcome"]) == ["failed", "ok"]
    found = of("a.parquet", majority="0.595", examples="200")
    assert list(found.runs["correct"]) == [119, 120]
    assert "Failing is judged in right answers: score × --examples, rounded." in found.notes


def test_percent_and_fractions_are_one_unit_or_refused():
    mixed = table([{"seed": n, "acc": acc} for n, acc in enumerate([71.5, 0.71, 60])])
    line = refusal(mixed)
    assert "percent and fractions seem to be mixed in 'acc': 0.71 in a.csv:3 beside 71.5 in a.csv:2" in line
    assert list(of(mixed, unit="other").runs["final_score"]) == [71.5, 0.71, 60]
    assert list(of(mixed, unit="percent", majority="1").runs["final_score"]) == [0.715, 0.0071, 0.6]
    assert "with --unit fraction scores must be at most 1 (got 71.5" in refusal(mixed, unit="fraction")
    assert "--unit must be one of" in refusal(mixed, unit="percents")
    percent = table([{"seed": n, "acc": acc} for n, acc in enumerate([52.7, 52.3, 71.5, 60])])
    found = of(percent, majority="0.527")
    assert list(found.runs["outcome"]) == ["failed", "failed", "ok", "ok"]
    assert list(found.runs["final_score"]) == [0.527, 0.523, 0.715, 0.6]
    said = "The scores are in percent (52.3 to 71.5) and the majority, 0.527, is a fraction: all are read as fractions."
    assert said in found.notes
    assert list(of(percent, majority="52.7").runs["outcome"]) == ["failed", "failed", "ok", "ok"]
    assert list(of(percent, unit="percent", majority="0.527", examples="277").runs["correct"]) == [146, 145, 198, 166]
    fractions = table([{"seed": n, "acc": acc} for n, acc in enumerate([0.527, 0.7])])
    assert list(of(fractions, majority="52.7").runs["outcome"]) == ["failed", "ok"]
    assert "a majority of 5.27, but scores up to 0.7" in refusal(fractions, majority="5.27")
    both = table([{"seed": 1, "acc": 0.5, "test": 61.2}])
    assert "'acc' in fractions and 'test' in percent" in refusal(both, test="test")
    losses = table([{"seed": n, "acc": acc} for n, acc in enumerate([0.71, 71.5])])
    assert len(of(losses, higher_is_better=False).runs) == 2  # a loss may be any number


def test_units_are_told_by_the_range():
    import numpy as np

    kinds = {"any": [0.0, np.nan], "fraction": [-0.2, 1.0], "percent": [0, 1.5, 99], "mixed": [0.5, 50],
             "other": [120.0, 0.5]}  # fmt: skip
    for unit, values in kinds.items():
        assert units.unit_of(np.array(values)) == unit
    assert units.unit_of(np.array([0.5, 1.7])) == "other"


# ----------------------------------------------------------------------------------------------------- nested settings


def test_nested_settings_are_columns_by_their_path_in_every_kind_of_json_and_in_texts():
    rows = [
        {"config": {"lr": lr, "model": {"name": "b"}}, "seed": seed, "acc": 0.5} for lr in (1, 2) for seed in (1, 2)
    ]
    files = {"a.json": rows, "b.json": {"runs": rows}, "c.json": {f"r{n}": row for n, row in enumerate(rows)},
             "d.json": {"columns": ["config", "seed", "acc"], "data": [list(row.values()) for row in rows]},
             "e.json": {key: [row[key] for row in rows] for key in rows[0]},
             "f.json": {key: {str(n): row[key] for n, row in enumerate(rows)} for key in rows[0]}}  # fmt: skip
    for name, content in files.items():
        Path(name).write_text(json.dumps(content))
    Path("g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("h.json").write_text(Path("g.jsonl").read_text())
    table([row | {"config": json.dumps(row["config"])} for row in rows], "i.csv")
    table([row | {"config": str(row["config"])} for row in rows], "j.csv")  # as W&B's documentation writes it
    for name in (*files, "g.jsonl", "h.json", "i.csv", "j.csv"):
        found = of(name, cell=("config.lr", "config.model.name"))
        assert [cell.axes for cell in found.cells] == [
            (("config.lr", lr), ("config.model.name", "b")) for lr in (1, 2)
        ], name
        assert len(found.runs) == 4
    assert "did you mean 'config.lr'" in refusal("a.json", cell=("lr",))
    for content in ("3", '"x"', "[1, 2]", "{", '{"columns": ["a"], "data": [[1, 2]]}'):
        Path("bad.json").write_text(content)
        assert "cannot read bad.json" in refusal("bad.json"), content


# ---------------------------------------------------------------------------------------------------------------- laws

row = st.tuples(
    st.sampled_from(["1", "2", "3", "mean", "Std", ""]),
    st.sampled_from(["0.5", "0.25", "", "nan"]),
    st.sampled_from(["finished", "CRASHED", "Failed", "pruned", "running", ""]),
    st.sampled_from(["a", "b"]),
)


@given(st.lists(row, min_size=1, max_size=25), st.sampled_from(["missing", "diverged"]), st.booleans())
def test_rows_in_are_runs_and_said_exclusions_and_no_crash_is_a_failed_run(rows, nan, filtered):
    made = [dict(zip(("seed", "acc", "how", "lr"), values, strict=True)) for values in rows]
    made = [row for row in made if row["seed"] or not any((row["acc"], row["how"]))]  # a run has a seed
    made = [row if row["seed"] else dict.fromkeys(row, "") for row in made]
    if not made:
        return
    name = table(made)
    summaries = [row for row in made if row["seed"] in ("mean", "Std")]
    blank = [row for row in made if not row["seed"]]
    rest = [row for row in made if row["seed"] and row not in summaries]
    kept = [row for row in rest if not filtered or row["lr"] != "b"]
    asked = options(name, cell=("lr",), nan=nan, aggregate="last", majority="0.5", state="how",
                    where=("lr!=b",) if filtered else ())  # fmt: skip
    if not kept:
        with pytest.raises(HarnessError):
            read_runs(asked)
        return
    found = read_runs(asked)
    assert found.rows == len(made)
    assert (found.blank, found.summaries, found.left_out) == (len(blank), len(summaries), len(rest) - len(kept))
    assert found.rows == found.blank + found.summaries + found.left_out + found.merged + len(found.runs)
    runs = {
        (row["lr"], row["seed"]): [one for one in kept if (one["lr"], one["seed"]) == (row["lr"], row["seed"])]
        for row in kept
    }
    assert len(found.runs) == len(runs)
    for _, run in found.runs.iterrows():
        lr = dict(found.imported.cells[run["cell"]])["lr"]
        members = runs[lr, str(run["seed"])]
        meanings = {states.WORDS.get(one["how"].casefold(), "missing") for one in members}
        if "finished" not in meanings:
            assert run["status"] == ("crashed" if "crashed" in meanings else "missing")
            assert run["outcome"] not in ("failed", "ok")
        if run["outcome"] == "failed":
            assert run["status"] == "finished"
    counts = found.counts
    assert counts["finished"] + counts["crashed"] + counts["missing"] == counts["runs"]
    said = " ".join(found.imported.notes)
    assert ("blank" in said) == bool(blank)
    assert ("summary row" in said) == bool(summaries)
