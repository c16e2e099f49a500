"""Records mirrored into tracking stores: read back by the stores' own readers, every planned trial once."""

import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import HEAD, Run, save, store_of, sweep_of

from harness.common.errors import HarnessError
from harness.common.extras import install_command
from harness.config.parameters import exact, parameters
from harness.config.trials import Sweep, expand
from harness.records import export
from harness.records.importing.options import ImportOptions
from harness.records.importing.runs import import_runs
from harness.records.store import Store

TEXT = HEAD + "lr: [1e-5, 2e-5]\nmethod: lora\nlora_rank: 4\nepochs: 3\nseeds: 1..3\n"
RUNS: dict[int, list[Run | None]] = {
    0: [Run(310), Run(200), Run(diverged=True)],
    1: [Run(320), Run(crashed="Traceback:\n  File x\nRuntimeError: no room\n"), None],
}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Sweep, Store]:
    """Two cells of three seeds: one run diverged, one crashed, one is missing."""
    sweep = sweep_of(tmp_path, TEXT)
    return sweep, store_of(tmp_path / "results", sweep, RUNS)


def counts(done: export.Exported) -> tuple[int, int, int]:
    return done.written, done.replaced, done.left


def installed(distribution: str) -> bool:
    return any(one.name.lower() == distribution for one in metadata.distributions())


# --------------------------------------------------------------------------------------------------------- the runs


def test_every_planned_trial_is_a_run_with_what_its_record_says(made: tuple[Sweep, Store]) -> None:
    sweep, store = made
    found = list(export.runs(sweep, store))
    assert [run.id for run in found] == [trial.id for trial in expand(sweep)]
    assert [run.status for run in found] == ["finished"] * 4 + ["crashed", "missing"]
    assert dict(found[0].params) == dict(parameters(sweep, expand(sweep)[0]))
    assert dict(found[0].metrics)["final_score"] == 310 / 400
    assert dict(found[0].tags)["cell"] == "lr 1e-5"
    assert dict(found[0].tags)["outcome"] == "ok"
    kept = store.curves(found[0].id)
    assert kept is not None
    curves = {curve.name: curve for curve in found[0].curves}
    assert set(curves) == {"train_loss", "lr", "grad_norm", "dev_loss", "dev_score"}
    assert curves["train_loss"].steps == tuple(range(1, 61))
    assert curves["train_loss"].values == tuple(kept.train_loss.astype(float))
    assert curves["dev_score"].steps == (0, 10, 20, 30, 40, 50, 60)
    lost = found[2]
    assert dict(lost.tags)["reason"] == "diverged"
    assert "final_score" not in dict(lost.metrics)
    assert {curve.name: len(curve.steps) for curve in lost.curves}["train_loss"] == 30  # to where it diverged
    assert dict(found[4].tags)["error"] == "RuntimeError: no room"
    assert (found[5].metrics, found[5].curves, found[5].started) == ((), (), 0.0)


def test_a_package_that_is_not_there_is_one_line(made: tuple[Sweep, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    for to, module in (("mlflow", "mlflow"), ("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(HarnessError, match=re.escape(install_command(to))):
            export.export(*made, to)  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match="--uri names"):
        export.export(*made, "wandb", uri="http://localhost")
    with pytest.raises(HarnessError, match="--uri cannot be used with --out"):
        export.export(*made, "mlflow", Path("x"), "http://localhost")


def exported_twice_and_after_a_change(made: tuple[Sweep, Store], to: export.To) -> None:
    """The laws of every store: nothing twice, and what has changed is replaced."""
    sweep, store = made
    steps: list[tuple[int, int]] = []
    assert counts(export.export(sweep, store, to, progress=lambda *at: steps.append(at))) == (6, 0, 0)
    assert steps == [(number, 6) for number in range(1, 7)]
    assert counts(export.export(sweep, store, to)) == (0, 0, 6)
    save(store, sweep, expand(sweep)[5], Run(333))
    assert counts(export.export(sweep, store, to)) == (0, 1, 5)
    assert counts(export.export(sweep, store, to)) == (0, 0, 6)


# ------------------------------------------------------------------------------------------------------- the stores


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def held_by_mlflow(made: tuple[Sweep, Store], client: Any) -> None:
    """Every planned trial once, with all that its record says."""
    sweep, store = made
    experiment = client.get_experiment_by_name("made@default")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    runs = {run.id: run for run in export.runs(sweep, store)}
    assert set(found) == set(runs)
    assert Counter(run.info.status for run in found.values()) == {"FINISHED": 5, "FAILED": 1}
    for name, run in found.items():
        assert run.data.params == {key: exact(value) for key, value in runs[name].params}
        assert dict(runs[name].tags).items() <= run.data.tags.items()
        assert dict(runs[name].metrics).items() <= run.data.metrics.items()
        for curve in runs[name].curves:
            points = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, curve.name))
            assert points == list(zip(curve.steps, curve.values, strict=True))
    # What stands at its default is there to filter by.
    like_the_default = "params.bias_correction = 'on' and params.weight_decay = '0.01'"
    assert len(client.search_runs([experiment.experiment_id], like_the_default)) == 6


def read_back(source: str, folder: Path) -> None:
    """The harness's own reader of MLflow's stores counts the runs as they were."""
    options = ImportOptions(
        sources=(source,), seed="seed", metric="final_score", name="back", cell=("params.lr",), majority="0.5",
        nan="diverged",
    )  # fmt: skip
    _, back = import_runs(options, folder / "imported", overwrite=False)
    assert {name: back.counts[name] for name in ("cells", "finished", "crashed", "missing")} == {
        "cells": 2, "finished": 5, "crashed": 1, "missing": 0,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of what MLflow imports
def test_mlflow_gives_back_what_the_records_say(made: tuple[Sweep, Store], tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    sweep, store = made
    exported_twice_and_after_a_change(made, "mlflow")
    done = export.export(sweep, store, "mlflow")
    uri = f"sqlite:///{store.folder.resolve() / 'mlflow' / 'mlflow.db'}"
    assert done.place == uri
    assert done.look.endswith(f"mlflow ui --backend-store-uri {uri}")
    assert done.needs == (None if installed("mlflow") else install_command("mlflow-ui"))
    client = client_of(uri)
    held_by_mlflow(made, client)
    read_back(uri, tmp_path)
    # A run that a kill cut short is written anew.
    experiment = client.get_experiment_by_name("made@default")
    assert experiment.artifact_location == (store.folder / "mlflow" / "artifacts").resolve().as_uri()
    client.set_tag(client.search_runs([experiment.experiment_id])[0].info.run_id, "harness.sha256", "")
    assert counts(export.export(sweep, store, "mlflow")) == (0, 1, 5)
    assert len(client.search_runs([experiment.experiment_id])) == 6


@pytest.mark.filterwarnings("ignore")  # of what MLflow imports
def test_mlflows_files_are_written_where_they_are_asked_for(made: tuple[Sweep, Store], tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    sweep, store = made
    save(store, sweep, expand(sweep)[5], Run(333))
    uri = (tmp_path / "files").as_uri()
    done = export.export(sweep, store, "mlflow", uri=uri)
    assert done.look.startswith("MLFLOW_ALLOW_FILE_STORE=true ")
    held_by_mlflow(made, client_of(uri))
    read_back(str(tmp_path / "files"), tmp_path)


@contextmanager
def served(command: str, port: int, *options: str) -> Iterator[None]:
    """What a printed command serves on this machine, until it is ended again."""
    words = [*shlex.split(command), "--host", "127.0.0.1", "--port", str(port), *options]
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    settings = dict(word.split("=", 1) for word in words if re.fullmatch(r"[A-Z_]+=.*", word))
    words = words[len(settings) :]
    with subprocess.Popen(
        words, env=os.environ | settings | {"PATH": paths, "MLFLOW_DISABLE_TELEMETRY": "true"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            for _ in range(600):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
                assert process.poll() is None, process.stdout and process.stdout.read()
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.filterwarnings("ignore")  # of what MLflow imports
def test_mlflows_server_and_interface_show_the_runs(
    made: tuple[Sweep, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed("mlflow"):
        pytest.skip("MLflow's client alone has no server")
    monkeypatch.chdir(tmp_path)
    sweep, store = made
    save(store, sweep, expand(sweep)[5], Run(333))
    port = free_port()
    server = f"mlflow server --backend-store-uri sqlite:///{tmp_path}/server.db --workers 1"
    with served(server, port):
        uri = f"http://127.0.0.1:{port}"
        done = export.export(sweep, store, "mlflow", uri=uri)
        assert (counts(done), done.look, done.needs) == ((6, 0, 0), uri, None)
        held_by_mlflow(made, client_of(uri))
    there = export.export(sweep, store, "mlflow")
    port = free_port()
    with served(there.look, port):  # the command that is printed
        held_by_mlflow(made, client_of(f"http://127.0.0.1:{port}"))


@pytest.mark.filterwarnings("ignore")  # of what TensorBoard imports
def test_tensorboard_gives_back_what_the_records_say(made: tuple[Sweep, Store]) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    sweep, store = made
    exported_twice_and_after_a_change(made, "tensorboard")
    folder = store.folder / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == sorted(trial.id for trial in expand(sweep))
    for run in export.runs(sweep, store):
        read = EventAccumulator(str(folder / run.id), size_guidance={"scalars": 0})
        read.Reload()
        for curve in run.curves:
            points = read.Scalars(curve.name)
            assert [point.step for point in points] == list(curve.steps)
            np.testing.assert_allclose([point.value for point in points], curve.values, rtol=1e-6)
        for name, value in run.metrics:
            assert read.Scalars(f"hparam/{name}")[0].value == pytest.approx(value)
        plugin = read.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        settings = HParamsPluginData.FromString(plugin).session_start_info.hparams
        assert settings["lr"].number_value == dict(run.params)["lr"]
        assert settings["bias_correction"].string_value == "on"
        assert settings["seed"].number_value == dict(run.params)["seed"]
        assert settings["method"].string_value == "lora"
        assert settings["status"].string_value == run.status


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log behind seven bytes, blocks of 32 KiB, records whole or in parts."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (room := 2**15 - at % 2**15) < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


@pytest.mark.filterwarnings("ignore")  # of what W&B imports
def test_wandb_gives_back_what_the_records_say(made: tuple[Sweep, Store]) -> None:
    pytest.importorskip("wandb")
    sweep, store = made
    exported_twice_and_after_a_change(made, "wandb")
    found = {}
    for path in (store.folder / "wandb" / "wandb").glob("offline-run-*/*.wandb"):
        records = list(wandb_records(path))
        begun = next(record.run for record in records if record.WhichOneof("record_type") == "run")
        assert begun.run_id not in found
        found[begun.run_id] = begun, records
    runs = {run.id: run for run in export.runs(sweep, store)}
    assert set(found) == set(runs)
    for name, (begun, records) in found.items():
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        assert begun.project == "made@default"
        assert begun.display_name == name
        assert begun.run_group == dict(runs[name].tags)["cell"]
        assert begun.tags[0] == runs[name].status
        assert {key: config[key] for key, _ in runs[name].params} == dict(runs[name].params)
        assert config["harness"] == dict(runs[name].tags)
        points: dict[str, list[float]] = {}
        summary: dict[str, float] = {}
        for record in records:
            for item in record.history.item if record.WhichOneof("record_type") == "history" else ():
                points.setdefault("/".join(item.nested_key) or item.key, []).append(json.loads(item.value_json))
            for item in record.summary.update if record.WhichOneof("record_type") == "summary" else ():
                summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        for curve in runs[name].curves:
            assert points[curve.name] == list(curve.values)
        assert dict(runs[name].metrics).items() <= summary.items()
        ends = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
        assert ends == [0 if runs[name].status == "finished" else 1]


def test_a_run_is_known_by_all_of_it(made: tuple[Sweep, Store]) -> None:
    run = next(export.runs(*made))
    others = (replace(run, status="crashed"), replace(run, curves=run.curves[1:]), replace(run, started=1.0))
    assert len({run.sha256, *(other.sha256 for other in others)}) == 4
    assert next(export.runs(*made)).sha256 == run.sha256


def test_long_cells_that_begin_alike_are_groups_of_their_own() -> None:
    alike = "lr 1e-5, " * 20
    assert export._group("lr 1e-5") == "lr 1e-5"
    assert len({export._group(f"{alike}epochs {number}") for number in range(9)}) == 9
    assert len(export._group(alike)) == 128
