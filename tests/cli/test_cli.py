"""The commands: what they print, their exit codes and contracts, and who may import whom."""

import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diagnosed_runs import FINE, GONE
from diagnosed_runs import RUNS as DIAGNOSED
from diagnosed_runs import TEXT as DIAGNOSED_TEXT
from made_runs import Run, import_of, imported_runs, store_of, sweep_of
from typer.testing import CliRunner

from harness.cli import arguments
from harness.cli.app import app
from harness.config.sweep_file import load
from harness.config.trials import expand
from harness.data import tasks
from harness.execution import driver, in_process, machine
from harness.execution.machine import Machine
from harness.models import pretrained
from harness.records.store import Store
from harness.report import of_sweep
from harness.training import prepare

GOLDEN = Path(__file__).parents[1] / "golden"
HEAD = "task: embedded\nmodel: embedded\nmax_length: 16\n"
TWO = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..2\n"
PROFILES = TWO + (
    "title: A [bold] title\nprofiles:\n  paper: {min_gpu_gib: 24, task: rte, model: bert-large-uncased, seeds: 1..25}\n"
    "  embedded: {stand_in: the embedded stand-in}\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with sweeps/, on a machine of two cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "detect_hardware", lambda: Machine(2, 2**34, ()))
    (tmp_path / "sweeps").mkdir()
    return tmp_path


def run(*words: object, code: int = 0):
    """Run a command and hold its exit code; an error is one line, on standard error."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*words: object) -> str:
    """What the one line of an error says."""
    result = run(*words, code=2)
    assert result.stderr.startswith("harness: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    return result.stderr


def golden(name: str, text: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


# ------------------------------------------------------------------------------------------------------------- plan


@pytest.fixture
def made_data(monkeypatch):
    """Made runs say that their data hash to this; what an earlier test loaded has its true hash still in memory."""
    loading = tasks.load
    monkeypatch.setattr(tasks, "load", lambda spec, **how: replace(loading(spec, **how), sha256="b" * 64))


@pytest.mark.usefixtures("made_data")
def test_plan_prints_cells_counts_and_an_estimate(here):
    (here / "sweeps" / "small.yaml").write_text(PROFILES)
    golden("plan_fresh.txt", run("plan", "small").stdout)
    assert not (here / "results").exists()
    store_of(here / "results", load(here / "sweeps" / "small.yaml", "embedded"), {
        0: [Run(300), Run(200)], 1: [Run(crashed="no"), None], 2: [Run(310), Run(diverged=True)], 3: [None, Run(320)],
    })  # fmt: skip
    golden("plan_begun.txt", run("plan", "small").stdout)
    golden("plan_paper.txt", run("plan", "small", "--profile", "paper").stdout)
    (here / "one.yaml").write_text(TWO)
    golden(
        "plan_one.txt",
        run("plan", "one.yaml", "--set", "lr=1", "--set", "bias_correction=on", "--set", "seeds=1").stdout,
    )


@pytest.mark.usefixtures("made_data")
def test_plan_as_json_keeps_its_contract(here):
    (here / "sweeps" / "small.yaml").write_text(PROFILES)
    fresh = json.loads(run("plan", "small", "--json").stdout)
    low, high = fresh.pop("seconds_between")
    assert 0 < low < high
    assert fresh.pop("lane_bytes") > 0
    assert fresh.pop("notes") == []
    assert fresh == {
        "sweep": "small", "profile": "embedded", "reason": "paper needs a GPU of 24 GiB and this machine has none",
        "trials": 8, "cells": 4, "finished": 0, "crashed": 0, "missing": 8, "unreadable": 0,
        "seconds_left": None,
        "seconds_from": "a rough guess from the sizes of model and data; "
        "the sweep gives a closer estimate once it trains",
    }  # fmt: skip
    sweep = load(here / "sweeps" / "small.yaml", "embedded")
    store_of(here / "results", sweep, {0: [Run(300), Run(200)], 1: [Run(crashed="no")]})
    begun = json.loads(run("plan", "small", "--json").stdout)
    assert (begun["finished"], begun["crashed"], begun["missing"]) == (2, 1, 5)
    paper = json.loads(run("plan", "small", "--json", "--profile", "paper").stdout)
    assert (paper["profile"], paper["reason"], paper["trials"], paper["missing"]) == ("paper", "asked for", 100, 100)
    assert json.loads(run("plan", "small", "--json", "--set", "seeds=1..9").stdout)["trials"] == 36


def test_names_with_brackets_are_no_markup(here):
    (here / "odd.yaml").write_text(TWO.replace("epochs: 3\n", "title: '[/x]'\nrecipes: {'[/red]': {epochs: 3}}\n"))
    shown = run("plan", "odd.yaml").stdout
    assert "[/x]" in shown
    assert "[/red]" in shown


def test_twenty_thousand_trials_are_planned(here):
    (here / "big.yaml").write_text(TWO.replace("1..2", "1..10000").replace("[off, on]", "on"))
    assert "20000 missing" in run("plan", "big.yaml").stdout


def test_keys_are_listed_for_people_and_programs():
    shown = run("keys").stdout
    assert re.search(r"^lr +\(required\) +a number > 0 +Peak learning rate", shown, re.MULTILINE)
    listed = json.loads(run("keys", "--json").stdout)["keys"]
    size = next(key for key in listed if key["name"] == "batch_size")
    assert size["takes"] == "a whole number >= 1"
    assert size["default"] == "16"
    assert size["description"] == "Training examples per update."
    assert len(shown.splitlines()) > len(listed)


# ----------------------------------------------------------------------------------------------------------- errors


def test_bad_input_is_one_line_and_exit_2(here):
    (here / "sweeps" / "small.yaml").write_text(PROFILES)
    (here / "folder").mkdir()
    (here / "folder.yaml").mkdir()
    (here / "file").write_text("")
    assert "unknown sweep 'smal' (did you mean 'small'?)" in refused("plan", "smal")
    for words in (
        ("plan", "folder"), ("plan", "folder.yaml"), ("plan", "absent.yaml"), ("plan", ""), ("plan", "."),
        ("plan", "small", "--profile", "large"), ("plan", "small", "--set", "lr"), ("plan", "small", "--set", "rate=3"),
        ("plan", "small", "--set", "task.files=/nonexistent", "--set", "task.name=mine"),
        ("sweep", "small", "--in-process", "--set", "task.files=/nonexistent", "--set", "task.name=mine"),
        ("sweep", "small", "--in-process", "--set", "model.folder=/nonexistent"),
        ("sweep", "small", "--in-process", "--profile", "paper"),
        ("sweep", "small", "--in-process", "--set", "batch_size=100000"),
        ("sweep", "small", "--in-process", "--results", "file"),
        ("sweep", "small", "--in-process", "--results", "/proc/nowhere"),
        ("report", "small", "--results", "/proc/nowhere"),
        ("report", "folder"), ("report", "."), ("rerun", "folder", "--seed", "1"),
        ("rerun", "small"), ("rerun", "small", "--trial", "nothing"), ("rerun", "small", "--seed", "77"),
        ("rerun", "small", "--seed", "1", "--where", "lr"), ("rerun", "small", "--seed", "1", "--where", "rate=1"),
        ("rerun", "small", "--seed", "1", "--where", "lr=1e-5", "--where", "bias_correction=on"),  # missing
    ):  # fmt: skip
        refused(*words)
    assert "number of training examples" in refused("sweep", "small", "--in-process", "--set", "batch_size=100000")


def test_what_the_options_do_not_take_is_exit_2(here):
    (here / "t.yaml").write_text(TWO)
    for words in (("--pack", "0"), ("--workers", "0"), ("--threads", "0"), ("--pack", "x"), ("--nonsense",)):
        said = refused("sweep", "t.yaml", *words)
        assert words[0] in said
        assert "`harness sweep --help`" in said
    for words in (("nonsense",), ("plan",), ("rerun", "t.yaml", "--seed", "x"), ("plan", "t.yaml", "t.yaml")):
        refused(*words)


def test_a_cluster_that_is_not_there_is_refused_before_ray_tries_for_minutes(here, monkeypatch):
    monkeypatch.setattr("ray.init", None)  # would raise if called
    (here / "t.yaml").write_text(TWO)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = refused("sweep", "t.yaml", "--address", f"127.0.0.1:{port}")
    assert "cannot reach the Ray cluster at" in said
    assert "Connection refused" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("max_steps=5000", "max_steps must be at most 189, the steps of 3 epochs (got 5000)"),
        ("batch_size=2000", "batch_size must be at most the number of training examples, 1000 (got 2000)"),
    ],
)
def test_a_plan_refuses_what_its_data_can_not_give_as_training_does(here, setting, said):
    (here / "t.yaml").write_text(TWO)
    assert said in refused("plan", "t.yaml", "--set", setting)
    assert said in refused("sweep", "t.yaml", "--in-process", "--set", setting)
    sized = ("plan", "t.yaml", "--set", "task=rte", "--set", setting.replace("2000", "9000"))  # of GLUE sizes are known
    assert said.partition(" must be")[0] in refused(*sized)
    run("plan", "t.yaml", "--set", "max_steps=189")


def test_a_plan_that_is_garbage_is_refused(here):
    (here / "t.yaml").write_text(TWO)
    folder = here / "results" / "t@default"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    for words in (
        ("report", "t.yaml"),
        ("report", folder),
        ("rerun", "t.yaml", "--seed", 1),
        ("sweep", "t.yaml", "--in-process"),
    ):
        assert "plan.json" in refused(*words)


def test_ctrl_c_is_exit_130(here, monkeypatch):
    (here / "t.yaml").write_text(TWO)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "run", stopped)
    assert "Stopped: 0 of 8 trials are kept" in run("sweep", "t.yaml", code=130).stdout


# ------------------------------------------------------------------------------------------------- which sweep is meant


def test_a_rerun_that_is_ambiguous_lists_the_matching_trials(here):
    (here / "t.yaml").write_text(TWO)
    trials = [trial.id for trial in expand(load(here / "t.yaml"))]
    said = refused("rerun", "t.yaml", "--seed", 2, "--where", "lr=1e-5")
    assert "2 trials match, one is needed" in said
    assert [one for one in trials if one in said] == [trials[1], trials[3]]
    said = refused("rerun", "t.yaml", "--trial", "lr1e-5-bc")
    assert [one for one in trials if one in said] == trials[2:4]
    assert "no trial has seed 5. Allowed: seeds 1 to 2." in refused("rerun", "t.yaml", "--seed", 5)
    assert "no trial has lr=3e-5. Allowed: 1e-5, 2e-5." in refused("rerun", "t.yaml", "--where", "lr=3e-5")
    said = refused("rerun", "t.yaml", "--trial", trials[0].replace("seed1", "sed1"))
    assert f"is called '{trials[0].replace('seed1', 'sed1')}' (did you mean '{trials[0]}'?)" in said
    both = ("--where", "lr=1e-5", "--where", "seed=1", "--trial", trials[1])
    assert "no trial fulfils all of these conditions together" in refused("rerun", "t.yaml", *both)
    assert f"--trial {trials[0]}" in refused("rerun", "t.yaml")
    for words in (("--trial", trials[1]), ("--seed", 2, "--where", "lr=0.00001", "--where", "bias_correction=off")):
        said = refused("rerun", "t.yaml", *words)  # one matches, and has no record
        assert f"cannot rerun {trials[1]}, which is missing" in said


def test_the_profile_that_was_run_is_meant(here, monkeypatch, no_figures):
    path = here / "sweeps" / "small.yaml"
    path.write_text(PROFILES)
    made = store_of(here / "results", load(path, "embedded", ["seeds=1..1", "lr=1e-5"]), {0: [Run(300)], 1: [Run(200)]})
    monkeypatch.setattr(
        machine, "detect_hardware", lambda: Machine(2, 2**34, (("a GPU", 2**36),))
    )  # would choose paper
    monkeypatch.setattr(machine.hub, "check_model", lambda spec: None)
    monkeypatch.setattr(machine.tasks, "check", lambda spec: None)

    def meant(*words: object) -> tuple[str, int]:
        """The profile and the count of trials, as `rerun` would list them and `report` tells them."""
        said = refused("rerun", *words, "--where", "epochs=3")
        profile = next(name for name in ("paper", "embedded") if ("nobc-ep3-seed25" in said) == (name == "paper"))
        return profile, int(said.split(" trials match")[0].split()[-1])

    assert json.loads(run("plan", "small", "--json").stdout)["profile"] == "paper"
    assert meant("small") == ("embedded", 2)  # with what was set when it was run
    assert meant("small", "--set", "seeds=1..2") == ("embedded", 8)
    assert meant("small", "--profile", "paper") == ("paper", 100)
    for where in (made.folder, f"{made.folder}/", "results/small@embedded", "sweeps/small.yaml"):
        assert meant(where) == ("embedded", 2)
    (here / "small").mkdir()  # a folder of that name that is no results folder
    assert meant("small") == ("embedded", 2)
    shown = json.loads(run("report", "small", "--json").stdout)
    assert (shown["profile"], [cell["planned"] for cell in shown["cells"]]) == ("embedded", [1, 1])
    store_of(here / "results", load(path, "paper"), {})
    for command in ("report", "rerun"):
        said = refused(command, "small", *(["--seed", 1] if command == "rerun" else []))
        assert "Name one with --profile" in said
    assert meant("small", "--profile", "paper") == ("paper", 100)
    assert meant(made.folder) == ("embedded", 2)


def test_report_writes_the_page_of_what_there_is(here, no_figures):
    sweep = sweep_of(here / "sweeps", TWO, "made")
    store = store_of(here / "elsewhere" / "of mine", sweep, {0: [Run(300), Run(200)], 1: [Run(310), None]})
    shown = json.loads(run("report", "made", "--results", "elsewhere/of mine", "--json").stdout)
    assert {"sweep", "profile", "majority", "cells"} <= set(shown)
    counts = ["planned", "finished", "crashed", "missing", "failed", "failed_low", "failed_high"]
    keys = ["axes", *counts, "mean", "sd", "min", "median", "max"]
    assert all(set(keys) <= set(cell) for cell in shown["cells"])
    page = (store.folder / "report" / "report.md").read_text()
    assert "harness rerun made --profile default --results 'elsewhere/of mine'" in page
    said = run("report", store.folder).stdout
    assert said.startswith("Report: ")
    assert Path(said.removeprefix("Report: ").strip()).is_file()
    page = (store.folder / "report" / "report.md").read_text()
    assert "harness rerun 'elsewhere/of mine/made@default'" in page or f"harness rerun '{store.folder}'" in page


def test_diagnose_says_why_and_writes_the_report(here, no_figures):
    sweep = sweep_of(here / "sweeps", DIAGNOSED_TEXT)
    store_of(here / "results", sweep, DIAGNOSED)
    said = run("diagnose", "made").stdout
    assert "6 of 14 finished runs failed" in said
    assert "Vanishing gradients: in 4 of 6 recorded failed runs" in said
    assert "Next: " in said
    assert "recipes:\n  as it is: " in said
    assert said.rstrip().endswith("index.html")
    shown = json.loads(run("diagnose", "made", "--json").stdout)
    assert {"sweep", "profile", "words", "rule", "next_sweep", "tables", "report"} == set(shown)
    assert [row["vanished"] for row in shown["tables"]["kinds"]] == [2, 0, 2, 0]
    assert " ".join(shown["words"]).count("Vanishing") == 1


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({0: [Run(300), Run(200)]}, "nothing to diagnose: 2 finished runs of made@default, none recorded"),
        ({0: [FINE, FINE]}, "2 finished runs of made@default, none of them failed"),
        ({0: [GONE, GONE]}, "2 finished runs of made@default, all of them failed"),
        ({}, "made@default has no finished runs"),
    ],
)
def test_diagnose_refuses_what_tells_nothing(here, runs, said):
    store_of(here / "results", sweep_of(here / "sweeps", DIAGNOSED_TEXT), runs)
    assert said in refused("diagnose", "made")


def test_diagnose_refuses_what_nothing_is_recorded_of(here):
    """No other training would help: a task of tokens, and runs of other code."""
    text = DIAGNOSED_TEXT.replace("task: embedded", "task: {name: x, kind: tokens, files: x}")
    assert "kind: tokens" in text
    store_of(here / "results", sweep_of(here / "sweeps", text), {0: [Run(300), Run(200)]})
    assert "made@default is a token task, of which nothing is recorded" in refused("diagnose", "made")
    script = (
        "command: python t.py --a {a} --seed {seed} --out {out}\na: 1\nseeds: 1\nscore: {file: r.json, key: score}\n"
    )
    (here / "script").mkdir()
    sweep = sweep_of(here / "script", script)
    Store(here / "script" / sweep.folder_name).save_plan(sweep)
    assert "is of a script, whose training is not recorded" in refused(
        "diagnose", str(here / "script" / sweep.folder_name)
    )
    import_of(here / "results", [(("method", "x"),)], imported_runs([0.5, 0.6]))
    said = refused("diagnose", "theirs")
    assert "nothing to diagnose: theirs was imported. " in said
    assert "train them again" not in said


def test_report_of_two_and_of_an_import(here, no_figures):
    runs = {0: [Run(300), Run(200)], 1: [Run(310), None], 2: [Run(320), Run(330)], 3: [Run(200), Run(diverged=True)]}
    one, two = sweep_of(here / "sweeps", TWO, "one"), sweep_of(here / "sweeps", TWO.replace("1..2", "1"), "two")
    store_of(here / "results", one, runs)
    store_of(here / "results", two, {cell: runs[:1] for cell, runs in runs.items()})
    import_of(
        here / "results", [(("method", "x"),)], [row | {"metric": "accuracy"} for row in imported_runs([0.5, 0.6])]
    )
    both = json.loads(run("report", "one", "two", "--json", "--threshold", "0.6").stdout)
    assert both["sweep"] == "one@default--two@default"
    assert len(both["cells"]) == 8
    assert both["tables"]["definitions"][0]["threshold_of"] == 2
    assert (here / "results" / "one@default--two@default" / "report" / "index.html").is_file()
    run("report", "one", "one")
    assert (here / "results" / "one@default-first--one@default-second" / "report" / "index.html").is_file()
    for words in (("theirs",), ("results/theirs",)):
        theirs = json.loads(run("report", *words, "--json").stdout)
        assert (theirs["sweep"], theirs["profile"], len(theirs["cells"])) == ("theirs", None, 1)
        assert (here / "results" / "theirs" / "report" / "index.html").is_file()
    assert len(json.loads(run("report", "one", "theirs", "--json").stdout)["cells"]) == 5
    assert "cannot report 3 studies together" in refused("report", "one", "two", "theirs")
    (here / "results" / "theirs" / "imported.json").write_text("{}")
    assert "cannot read the imported runs in" in refused("report", "theirs")


# --------------------------------------------------------------------------------------------------------- training


@pytest.fixture
def tiny(here, data, bert):
    """A sweep of one cell of a very small model and data."""
    path = here / "sweeps" / "tiny.yaml"
    task = json.dumps(data.model_dump(exclude_none=True))
    rest = "lr: [1e-3, 1e-2]\nepochs: 1\nbatch_size: 8\nseeds: [1]\n"
    path.write_text(f"task: {task}\nmodel: {json.dumps(bert.model_dump())}\n{rest}")
    return path


def test_sweep_resume_rerun_and_what_a_changed_record_says(here, tiny, no_figures):
    said = run("sweep", "tiny", "--in-process").stdout
    assert "2 of 2 trials finished (2 trained now)" in said
    folder = here / "results" / "tiny@default"
    assert (folder / "report" / "report.md").is_file()
    records = {path: path.read_bytes() for path in (folder / "trials").iterdir()}
    assert sorted(path.suffix for path in records) == [".json", ".json", ".npz", ".npz"]

    said = run("sweep", "tiny", "--in-process").stdout
    assert "2 of 2 trials finished (nothing was missing)" in said
    chosen = expand(load(tiny))[1]
    record, arrays = folder / "trials" / f"{chosen.id}.json", folder / "trials" / f"{chosen.id}.npz"

    result = run("rerun", "tiny", "--seed", 1, "--where", "lr=1e-2", "--json")
    assert json.loads(result.stdout) == {
        "trial": chosen.id, "verdict": "identical", "max_difference": 0.0, "first_differing_step": None, "reasons": [],
    }  # fmt: skip
    assert "bit for bit" in run("rerun", folder, "--trial", chosen.id).stdout
    assert {path: path.read_bytes() for path in (folder / "trials").iterdir()} == records

    record.write_text(record.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    found = json.loads(run("rerun", "tiny", "--trial", chosen.id, "--json", code=1).stdout)
    assert (found["trial"], found["verdict"], found["first_differing_step"]) == (chosen.id, "different", None)
    record.write_bytes(records[record])

    with np.load(arrays) as kept:
        changed = dict(kept)
    changed["train_loss"] = changed["train_loss"].copy()
    changed["train_loss"][4] += 1
    np.savez_compressed(arrays, **changed)
    found = json.loads(run("rerun", "tiny", "--trial", chosen.id, "--json", code=1).stdout)
    assert (found["verdict"], found["first_differing_step"]) == ("different", 5)
    assert found["max_difference"] == pytest.approx(1, abs=1e-6)
    close = json.loads(run("rerun", "tiny", "--trial", chosen.id, "--json", "--tolerance", 2, code=1).stdout)
    assert close["verdict"] == "different"  # on the same machine no difference is rounding
    changed_name = json.loads(records[record])
    changed_name["environment"]["device_name"] = "another machine"
    record.write_text(json.dumps(changed_name))
    close = json.loads(run("rerun", "tiny", "--trial", chosen.id, "--json", "--tolerance", 2, code=1).stdout)
    assert close["verdict"] == "within_tolerance"
    assert close["reasons"][0].startswith("device name: another machine then, ")
    record.write_bytes(records[record])
    said = run("rerun", "tiny", "--trial", chosen.id, code=1).stdout
    assert "different: largest difference 1, first at step 5" in said

    record.unlink()  # killed before its record: that one alone is trained again
    assert "which is missing" in refused("rerun", "tiny", "--trial", chosen.id)
    assert "2 of 2 trials finished (1 trained now)" in run("sweep", "tiny", "--in-process").stdout
    assert json.loads(record.read_text())["measured"]["weights_sha256"] in records[record].decode()

    tiny.write_text(tiny.read_text().replace("[1e-3, 1e-2]", "[1e-3, 3e-2]"))
    assert "the edited sweep has no lr 0.01, which trained trials" in refused("sweep", "tiny", "--in-process")
    assert "the edited sweep has no lr 0.01, which trained trials" in refused("plan", "tiny")
    assert "has no batch_size 8" in refused(
        "sweep", "tiny", "--in-process", "--set", "lr=[1e-3,1e-2]", "--set", "batch_size=4"
    )
    result = run("sweep", "tiny", "--in-process", "--set", "lr=[1e-3,1e-2]", "--set", "seeds=[1,2]")
    assert "4 of 4 trials finished (2 trained now)" in result.stdout


def test_a_token_task_from_its_data_to_its_report(here, tagged, bert, no_figures):
    task = json.dumps(tagged.model_dump(exclude_none=True))
    text = f"task: {task}\nmodel: {json.dumps(bert.model_dump())}\nlr: [1e-2, 1e-9]\nepochs: 12\nseeds: 1..2\n"
    (here / "sweeps" / "colours.yaml").write_text(text + "baselines: [majority]\n")
    said = run("data", "colours").stdout
    assert "colours  5 tags, sentences, F1 entity" in said
    assert "Always answering O scores 0.0000." in said
    assert "4 of 4 trials finished (4 trained now)" in run("sweep", "colours", "--in-process").stdout
    found = json.loads(run("report", "colours", "--json").stdout)
    trained, untrained = found["cells"]
    assert trained["mean"] > 0.9
    assert trained["test_mean"] > 0.8
    assert untrained["failed"] + untrained["near_chance"] == 2  # what a fresh head finds by luck is not called trained
    assert found["majority"] == 0
    by_other_scores = found["tables"]["scores"][0]
    assert by_other_scores["f1_entity"] == pytest.approx(trained["mean"])
    assert by_other_scores["accuracy"] > 0.9
    assert not {"calibration", "confusion", "flips"} & {name for name, rows in found["tables"].items() if rows}
    page = (here / "results" / "colours@default" / "report" / "report.md").read_text()
    assert "| runs | accuracy of words ± sd | entity F1 ± sd | precision ± sd | recall ± sd |" in page
    assert "Analyses that need one answer per example are not shown for token" in page
    assert "Calibration on the dev set" not in page
    run("verify", "colours")
    assert "identical" in run("rerun", "colours", "--seed", 2, "--where", "lr=1e-2").stdout
    path = next((here / "results" / "colours@default" / "trials").glob("*.npz"))
    with np.load(path) as kept:
        changed = dict(kept) | {"sentences": kept["sentences"][:-1]}
    np.savez_compressed(path, **changed)
    assert "sentences are int64 (19,) for 20 dev examples" in run("verify", "colours", code=1).stdout


def test_weights_are_kept_asked_and_mirrored(here, tiny, monkeypatch, no_figures):
    said = run("sweep", "tiny", "--in-process", "--set", "seeds=[1,2]", "--keep", "best").stdout
    assert "Models: 2 trials saved in results/tiny@default/models" in said
    folder = here / "results" / "tiny@default"
    plan = [trial.id for trial in expand(Store(folder).load_plan())]
    kept = sorted(path.name for path in (folder / "models").iterdir())
    lacking = next(one for one in plan if one not in kept)
    said = run("sweep", "tiny", "--in-process", "--set", "seeds=[1,2]", "--keep", "all").stdout
    wanted = f"harness rerun tiny --profile default --trial {lacking} --keep"
    assert f"Trained without --keep: {lacking} (and 1 more); to save its weights: {wanted}" in said
    again = json.loads(run(*wanted.split()[1:], "--json").stdout)
    assert (again["verdict"], again["kept"]) == ("identical", f"results/tiny@default/models/{lacking}")

    (here / "texts.csv").write_text("text,label\ngood a,yes\nbad b,no\n")
    asked = run("predict", "tiny", "texts.csv", "--trial", lacking, "--threads", 1)
    rows = [line.split("\t") for line in asked.stdout.splitlines()]
    assert rows[0] == ["label", "confidence"]
    assert [row[0] in ("yes", "no") and 0.5 <= float(row[1]) <= 1 for row in rows[1:]] == [True, True]
    assert "2 rows in " in asked.stderr
    assert "accuracy against the file's labels: " in asked.stderr
    assert run("predict", folder / "models" / lacking, "texts.csv", "--threads", 1).stdout == asked.stdout
    lr = "1e-3" if lacking.startswith("lr1e-3") else "1e-2"
    asked = run("predict", "tiny", "texts.csv", "--ensemble", f"lr={lr}", "--out", "out.jsonl", "--threads", 1)
    assert asked.stdout == ""
    assert "2 rows by 2 models" in asked.stderr
    assert "gain " in asked.stderr
    assert [set(json.loads(line)) for line in Path("out.jsonl").read_text().splitlines()] == [
        {"label", "confidence", "agreement"}
    ] * 2

    assert f"saved are: {kept[0]}" in refused("predict", "tiny", "texts.csv")
    assert "it matches 2" in refused("predict", "tiny", "texts.csv", "--ensemble", "epochs=1")
    assert "it matches none" in refused("predict", "tiny", "texts.csv", "--ensemble", "lr=7")
    other = "1e-2" if lr == "1e-3" else "1e-3"
    assert f"lr {'0.01' if lr == '1e-3' else '1e-3'} has 1" in refused(
        "predict", "tiny", "texts.csv", "--ensemble", f"lr={other}"
    )
    left = next(one for one in plan if one not in (*kept, lacking))
    assert f"--trial {left} --keep" in refused("predict", "tiny", "texts.csv", "--trial", left)
    assert "cannot be used with a model's folder" in refused(
        "predict", folder / "models" / lacking, "texts.csv", "--trial", lacking
    )
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "[wandb]'" in refused("export", "tiny", "--to", "wandb")


def test_a_sweep_with_crashed_trials_ends_in_1(here, tiny, monkeypatch, no_figures):
    def crash(*_):
        raise RuntimeError("no such kernel")

    with monkeypatch.context() as patch:
        patch.setattr(in_process, "train_pack", crash)
        said = run("sweep", "tiny", "--in-process", code=1).stdout
    assert "0 of 2 trials finished" in said
    assert "2 crashed: see the report; train them again with --retry-crashed." in said
    assert "crashed: RuntimeError: no such kernel" in said
    assert "which is crashed" in refused("rerun", "tiny", "--seed", 1, "--where", "lr=1e-2")
    assert "0 of 2" in run("sweep", "tiny", "--in-process", code=1).stdout  # not tried again by itself
    said = run("sweep", "tiny", "--in-process", "--retry-crashed").stdout
    assert "2 of 2 trials finished" in said


def unwritten(sweep: object, folder: Path, rerun: str) -> of_sweep.Answer:
    """In place of a report, which takes seconds."""
    return of_sweep.Answer(folder, "Not written.", "")


def test_a_part_of_a_sweep_is_done_when_what_was_asked_for_is(here, tiny, monkeypatch):
    monkeypatch.setattr(of_sweep, "write", unwritten)
    said = run("sweep", "tiny", "--in-process", "--only", "lr=1e-2").stdout
    assert "1 of 2 trials finished (1 trained now)" in said
    assert "1 planned trial is missing: re-run without --only and --max-trials to train them." in said
    assert [cell["missing"] for cell in json.loads(run("status", "tiny", "--json").stdout)["cells"]] == [1, 0]
    said = run("sweep", "tiny", "--in-process", "--only", "lr=1e-2").stdout
    assert "1 of 2 trials finished (none trained now)" in said
    assert "--only lr=3 matches no trial of the plan. Allowed: lr 1e-3, 0.01; seed 1 to 1" in refused(
        "sweep", "tiny", "--in-process", "--only", "lr=3"
    )
    more = ("--set", "seeds=1..3", "--in-process", "--max-trials", 2)
    assert "3 of 6 trials finished (2 trained now)" in run("sweep", "tiny", *more).stdout
    refused("sweep", "tiny", "--max-trials", 0)
    for time_limit in ("0", "0s", "2", "-1h", "90", "1:30", "1:60:00", "", "h", "2h 5", "1e3s", "nan", "9" * 400 + "h"):
        assert "--time-limit must be a time" in refused("sweep", "tiny", f"--time-limit={time_limit}")
    known = {"2h": 7200, "90m": 5400, "30s": 30, "1h30m": 5400, "1:30:00": 5400, "0.5h": 1800, "1H": 3600}
    assert {text: arguments.seconds_of(text) for text in known} == known
    said = run("sweep", "tiny", "--set", "seeds=1..3", "--in-process", "--time-limit", "0.001s", code=1).stdout
    assert "the time limit leaves 3 trials missing" in said
    assert "3 are missing: re-run the same command to train them." in said
    run("sweep", "tiny", "--set", "seeds=1..3", "--in-process", "--time-limit", "1h")


def test_a_models_own_code_is_refused_unless_trusted(here, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(of_sweep, "write", unwritten)
    text = tiny.read_text()
    folder = Path(re.search(r'"folder": "([^"]*)"', text)[1])
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    tiny.write_text(text.replace(str(folder), str(own)))
    run("sweep", "tiny", "--in-process", "--only", "lr=1e-2")
    config = json.loads((own / "config.json").read_text()) | {"auto_map": {"AutoModel": "mine.Mine"}}
    (own / "config.json").write_text(json.dumps(config))
    for words in (
        ("sweep", "tiny", "--in-process"),
        ("rerun", "tiny", "--seed", 1, "--where", "lr=1e-2"),
        ("verify", "tiny", "--retrain", 1),
    ):
        assert "brings Python code of its own (auto_map), which is not trusted" in refused(*words)
        pretrained._networks.cache_clear()  # it was loaded by the sweep
        prepare.tokenized_task.cache_clear()
    # What the code is for is not asked for here, so that none runs; the flag ends with its command.
    run("rerun", "tiny", "--seed", 1, "--where", "lr=1e-2", "--trust-remote-code")
    refused("sweep", "tiny", "--in-process")
    for key in ("trust_remote_code: true\n", "trust-remote-code: true\n"):
        tiny.write_text(key + text)
        assert "unknown key 'trust" in refused("sweep", "tiny", "--in-process")


def test_pickles_among_the_results_are_never_run(here, tiny, tmp_path, monkeypatch, no_figures):
    class Boom:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    with monkeypatch.context() as patch:
        patch.setattr(of_sweep, "write", unwritten)
        run("sweep", "tiny", "--in-process")
    chosen = expand(load(tiny))[1]
    arrays = here / "results" / "tiny@default" / "trials" / f"{chosen.id}.npz"
    with np.load(arrays) as kept:
        changed = dict(kept) | {"train_loss": np.array([Boom()], dtype=object)}
    np.savez_compressed(arrays, **changed)
    with pytest.raises(ValueError, match="allow_pickle"), np.load(arrays) as kept:
        kept["train_loss"]
    assert "it holds Python objects (pickles), which are not read" in run("verify", "tiny", code=1).stdout
    assert "Unreadable" in run("report", "tiny", code=1).stdout
    said = run("rerun", "tiny", "--trial", chosen.id).stdout
    assert "identical: the final weights" in said
    assert not (tmp_path / "ran").exists()
    arrays.write_bytes(pickle.dumps(Boom()))  # no archive at all
    run("verify", "tiny", code=1)
    run("rerun", "tiny", "--trial", chosen.id)
    assert not (tmp_path / "ran").exists()
    pickle.loads(arrays.read_bytes())
    assert (tmp_path / "ran").exists()


def test_a_second_sweep_on_the_same_folder_is_refused(here, tiny):
    with Store(here / "results" / "tiny@default").locked():
        said = refused("sweep", "tiny", "--in-process")
    assert " is in use by " in said
    assert f"process {os.getpid()}" in said
    assert json.loads(run("plan", "tiny", "--json").stdout)["missing"] == 2


# ---------------------------------------------------------------------------------------------------------- imports


def python(code: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder, check=False)


def test_the_commands_start_without_what_they_may_not_need(here):
    code = "import sys, harness.cli.app; print([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = (
        *("ray", "torch", "mlflow", "wandb", "transformers", "tokenizers", "peft", "datasets", "matplotlib", "seaborn"),
        *("scipy", "statsmodels", "sklearn", "lightgbm", "fugashi", "jinja2", "optuna"),
        "harness.analysis.analyze",
        "harness.stats.anova",
        "harness.report.figures.style",
        "harness.report.page",
        "harness.records.importing",
    )
    ran = python(code, here, *(name for name in heavy if name not in ("typer", "rich", "yaml", "pyarrow")))  # pandas
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr + ran.stdout


def test_plan_and_report_import_no_torch_and_no_ray(here):
    store_of(here / "results", sweep_of(here / "sweeps", TWO, "made"), {0: [Run(300), Run(200)], 1: [Run(310), None]})
    code = (
        "import sys\nfrom harness.cli.app import app\n"
        "for words in (['plan', 'made'], ['report', 'made']):\n"
        "    if words[0] == 'report':\n"
        "        from harness.report.figures import all_figures\n"
        "        all_figures.MAKERS = all_figures.MAKERS[:1]\n"
        "    app(words, standalone_mode=False)\n"
        "    print([name for name in ('torch', 'ray', 'transformers', 'datasets') if name in sys.modules])\n"
        "    print('matplotlib' in sys.modules or 'scipy' in sys.modules or 'optuna' in sys.modules)\n"
    )
    ran = python(code, here)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[]", "[]"]
    assert [line for line in lines if line in ("True", "False")] == ["False", "True"]


def test_an_error_of_the_real_command_is_one_line_without_traceback(here):
    ran = python("from harness.cli.app import main; main()", here, "plan", "absent.yaml")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr == ("harness: cannot read the sweep file absent.yaml: no such file or folder. Check the path.\n")


def test_pretrain_writes_a_model_of_ones_own_texts_and_goes_on_after_ctrl_c(here):
    (here / "texts.txt").write_text("".join(f"all dog runs {n}\nno bird naps {n}\n\n" for n in range(40)))
    words = ["pretrain", "mine", "--texts", "texts.txt", "--train-tokenizer", "BPE", "--vocab-size", "270",
             "--layers", "1", "--hidden", "16", "--heads", "2", "--steps", "20", "--next-sentence"]  # fmt: skip
    code = (
        "import os, signal\nfrom harness.cli import app\nfrom harness.pretraining import pretrain\n"
        "real = pretrain.schedule\n"
        "def interrupted(step, *rest):\n"
        "    if step == 8: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(step, *rest)\n"
        "pretrain.schedule = interrupted\napp.main()\n"
    )
    stopped = python(code, here, *words)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert stopped.stdout.splitlines()[-1] == "Stopped after step 9 of 20; re-run the same command to resume."
    lines = run(*words).stdout.splitlines()
    assert lines[0].startswith("10/20 steps, loss ")
    assert lines[0].endswith(" left")
    assert re.fullmatch(r"20/20 steps, loss [\d.]+", lines[5])
    assert re.fullmatch(
        r"mine: loss [\d.]+ over the last 20 steps, [\d.]+ on held-out texts \(perplexity [\d.]+\), "
        r"(less than )?\d+ s\.",
        lines[6],
    )
    assert lines[7] == "Report: mine/pretrain.md"
    assert (here / "mine" / "model.safetensors").is_file()
    assert refused(*words).startswith("harness: cannot write the model to mine: the folder is not empty")


def test_checkpoints_that_differ_in_their_pretraining_seed_are_an_axis(here, no_figures):
    (here / "texts.txt").write_text("".join(f"all dog runs {n}\nno bird naps {n}\n\n" for n in range(40)))
    size = ("--layers", 1, "--hidden", 16, "--heads", 2, "--max-length", 32, "--steps", 2)
    for seed in (0, 1):
        texts = ("--texts", "texts.txt", "--train-tokenizer", "BPE", "--vocab-size", 270)
        run("pretrain", f"runs/seed{seed}/last", "--seed", seed, *size, *texts)
    sweep = here / "sweeps" / "checkpoints.yaml"
    sweep.write_text("task: embedded\nmodel: [runs]\nlr: 1e-3\nepochs: 1\nmax_steps: 2\nmax_length: 20\nseeds: 1..2\n")
    folders = (
        "[./runs/seed0/last, ./runs/seed1/last]",
        "[{name: p0, folder: runs/seed0/last}, {name: p1, folder: runs/seed1/last}]",
    )
    sweep.write_text(sweep.read_text().replace("[runs]", folders[0]))
    assert "model lists the value last twice. Remove one, or name them: {name: …" in refused("plan", sweep)
    sweep.write_text(sweep.read_text().replace(*folders))
    said = run("plan", "checkpoints").stdout
    assert [line.split()[0] for line in said.splitlines()[2:5]] == ["model", "p0", "p1"]
    said = run("sweep", "checkpoints", "--in-process").stdout
    assert "4 of 4 trials finished (4 trained now)" in said
    found = json.loads(run("report", "checkpoints", "--json").stdout)
    assert [(cell["axes"], cell["finished"]) for cell in found["cells"]] == [({"model": "p0"}, 2), ({"model": "p1"}, 2)]
    page = (here / "results" / "checkpoints@default" / "report" / "report.md").read_text()
    assert "| model p1 vs. p0 |" in page
    hashes = {Store(here / "results" / "checkpoints@default").load(trial.id).measured.model_sha256
              for trial in expand(load(sweep, "default"))}  # fmt: skip
    assert len(hashes) == 2  # other weights, so that the comparison is of something


@pytest.mark.parametrize(("option", "value"), [("--objective", "both"), ("--train-tokenizer", "Unigram")])
def test_pretrain_refuses_what_it_does_not_know(here, option, value):
    assert refused("pretrain", "mine", option, value).startswith(f"harness: {option} must be one of ")
