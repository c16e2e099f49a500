"""Runs as other tools leave them on disk, each on files that the real tool wrote where it is installed."""

import json
import math
import os
import pickle
import sqlite3
import struct
import threading
from pathlib import Path

import pytest
from made_runs import HEAD, Run, store_of, sweep_of

from harness.common.errors import HarnessError
from harness.common.extras import install_command
from harness.records import export, imported, study
from harness.records.importing.options import ImportOptions
from harness.records.importing.runs import import_runs
from harness.report import page
from harness.report.figures.curves import curves

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
SCORES = {1: [0.5, 0.6, 0.7], 2: [0.5, 0.75, 0.55], 3: [0.4]}  # by seed; the third was cut


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(*sources: str, **fields) -> study.Study:
    given = {"seed": "seed", "metric": "acc", "name": "x", "cell": ("lr",)} | fields
    folder, _ = import_runs(ImportOptions(sources=sources, **given), Path("results"), overwrite=True)
    return imported.of_import(folder)


def refusal(*sources: str, **fields) -> str:
    with pytest.raises(HarnessError) as caught:
        of(*sources, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def column(found: study.Study, name: str) -> list:
    return [None if isinstance(value, float) and math.isnan(value) else value for value in found.runs[name]]


def notes(found: study.Study) -> str:
    return " ".join(found.notes)


# ------------------------------------------------------------------------------------------------------------- MLflow


def mlflow_store(uri: str) -> None:
    """Three runs by MLflow's own client: the last FAILED; one that is deleted."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("exp", artifact_location=Path("art").absolute().as_uri())
    for seed, scores in (*SCORES.items(), (4, [0.9])):
        run = client.create_run(experiment, run_name=f"run seed={seed}").info.run_id
        client.log_param(run, "seed", str(seed))
        client.log_param(run, "lr", "1e-05")
        for step, score in enumerate(scores):
            client.log_metric(run, "acc", score, step=step * 10)
        client.set_terminated(run, "FAILED" if seed == 3 else "FINISHED")
        if seed == 4:
            client.delete_run(run)


def check_mlflow(found: study.Study) -> None:
    assert column(found, "status") == ["finished", "finished", "crashed"]
    assert column(found, "final_score") == [0.7, 0.55, None]
    assert column(found, "best_score") == [0.7, 0.75, None]
    assert found.cells[0].axes == (("lr", 1e-5),)
    assert list(found.curves(1).eval_step) == [0, 10, 20]
    assert list(found.curves(1).dev_score) == SCORES[2]
    assert column(found, "outcome") == ["ok", "failed", None]


@pytest.mark.filterwarnings("ignore")  # of what MLflow imports
def test_mlflows_sqlite_store_and_its_server(monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    mlflow_store("sqlite:///mlflow.db")
    fields = {"best": "acc:best", "majority": "0.6"}
    for source in ("mlflow.db", "sqlite:///mlflow.db"):
        found = of(source, **fields)
        check_mlflow(found)
        assert "deleted in MLflow are left out: 1." in notes(found)
    assert column(of("mlflow.db", seed=None, seed_from=r"seed=(\d+)"), "seed") == [1, 2, 3]
    pytest.importorskip("flask")
    from mlflow.server import (
        app,  # the server itself; MLflow's own command starts it in a process of its own
        handlers,
    )
    from werkzeug.serving import make_server

    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "sqlite:///mlflow.db")
    monkeypatch.setattr(handlers, "_tracking_store", None)
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        served = of(f"http://127.0.0.1:{server.port}", **fields)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    check_mlflow(served)


def made_mlflow_db(path: str) -> None:
    """The tables of MLflow 3's SQLite store that an import reads, as its migrations make them."""
    with sqlite3.connect(path) as store:
        store.executescript("""
            CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT);
            CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, start_time BIGINT, lifecycle_stage TEXT,
                               experiment_id INTEGER);
            CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
            CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
            CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN);
            INSERT INTO experiments VALUES (1, 'exp', 'active'), (2, 'gone', 'deleted');
            INSERT INTO runs VALUES ('d', 'd', 'FINISHED', 9, 'active', 2), ('e', 'e', 'FINISHED', 9, 'deleted', 1);
        """)
        for seed, scores in SCORES.items():
            state = "FAILED" if seed == 3 else "FINISHED"
            store.execute("INSERT INTO runs VALUES (?, ?, ?, ?, 'active', 1)", (f"r{seed}", f"n{seed}", state, seed))
            store.executemany(
                "INSERT INTO params VALUES (?, ?, ?)", [("seed", str(seed), f"r{seed}"), ("lr", "1e-05", f"r{seed}")]
            )
            rows = [("acc", score, step, f"r{seed}", step * 10, 0) for step, score in enumerate(scores)]
            store.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
        store.execute("INSERT INTO metrics VALUES ('bad', 0, 1, 'r1', 0, 1)")
    store.close()


def test_an_sqlite_store_of_mlflows_is_read_without_mlflow():
    made_mlflow_db("mlflow.db")
    before = Path("mlflow.db").read_bytes()
    check_mlflow(of("mlflow.db", best="acc:best", majority="0.6"))
    found = of("mlflow.db", metric="bad", nan="missing")
    assert column(found, "status") == ["missing", "missing", "crashed"]
    assert of("mlflow.db", cell=("experiment",)).values("experiment") == ["exp"]
    assert Path("mlflow.db").read_bytes() == before


def test_addresses_are_kept_without_passwords_and_say_what_they_need(monkeypatch):
    import sys

    options = ImportOptions(("http://me:secret@host:5000",), "seed", "acc", "x")
    assert options.command == "harness import http://host:5000 --seed seed --metric acc --as x"
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    assert install_command("mlflow") in refusal("http://me:secret@127.0.0.1:9")


@pytest.mark.filterwarnings("ignore")
def test_the_store_that_an_export_writes_is_read_back(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    sweep = sweep_of(tmp_path, HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..2\n")
    store = store_of(tmp_path / "made", sweep, {0: [Run(310), Run(diverged=True)], 1: [Run(crashed="E: x\n"), None]})
    export.export(sweep, store, "mlflow", uri=f"sqlite:///{tmp_path / 'out.db'}")
    found = of("out.db", metric="final_score", cell=("params.lr",), nan="diverged", majority="0.5")
    assert column(found, "status") == ["finished", "finished", "crashed", "missing"]
    assert column(found, "outcome") == ["ok", "failed", None, None]


# ------------------------------------------------------------------------------------------------------------- Optuna


def test_optunas_sqlite_and_journal_with_every_state():
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rdb = RDBStorage("sqlite:///study.db")
    for name, storage in (("study.db", rdb), ("journal.log", JournalStorage(JournalFileBackend("journal.log")))):
        made = optuna.create_study(study_name="s", storage=storage, direction="maximize")
        distributions = {"lr": optuna.distributions.FloatDistribution(1e-6, 1e-3),
                         "opt": optuna.distributions.CategoricalDistribution(["adam", "sgd"])}  # fmt: skip
        for seed, state in enumerate(("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")):
            made.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState[state], value=0.7 if state == "COMPLETE" else None,
                    params={"lr": 1e-5, "opt": "sgd"} if state != "WAITING" else {},
                    distributions=distributions if state != "WAITING" else {},
                    user_attrs={"seed": seed}, intermediate_values={1: 0.5, 2: 0.7} if state == "COMPLETE" else {},
                )
            )  # fmt: skip
        if storage is rdb:
            rdb.remove_session()
            rdb.engine.dispose()
        found = of(name, metric="value", cell=("opt",), where=("state!=WAITING",), majority="0.8")
        assert column(found, "status") == ["finished", "missing", "crashed", "missing"]
        assert column(found, "outcome") == ["failed", None, None, None]
        assert found.values("opt") == ["sgd"]
        assert list(found.curves(0).dev_score) == [0.5, 0.7]
        assert "stopped early, so missing: pruned 1" in notes(found)
        assert column(of(name, metric="value", cell=()), "status")[-1] == "missing"
        said = refusal(name, metric="value", higher_is_better=False)
        assert f"Optuna maximizes value in {name}, but --lower-is-better is set" in said
    assert sorted(path.name for path in Path().iterdir()) == ["journal.log", "results", "study.db"]


# ------------------------------------------------------------------------------------------------- TensorBoard


def writers() -> list:
    from tensorboardX import SummaryWriter as OfTensorboardX

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return [OfTensorboardX]
    return [OfTensorboardX, SummaryWriter]


@pytest.mark.filterwarnings("ignore")  # of what TensorBoard imports
def test_tensorboards_folders():
    for number, writer in enumerate(writers()):
        root = f"tb{number}"
        for seed, scores in SCORES.items():
            with writer(f"{root}/lr1e-5_seed{seed}") as made:
                for step, score in enumerate(scores):
                    made.add_scalar("acc", score, step * 10)
                    made.add_scalar("loss", 1 - score, step * 10)
                if number:
                    made.add_hparams({"lr": 1e-5, "seed": seed, "bc": True, "opt": "sgd"}, {"hparam/acc": scores[-1]})
        found = of(root, seed=None, seed_from=r"lr(?P<lr>[^_]+)_seed(\d+)", loss="loss", best="acc:best")
        assert column(found, "seed") == [1, 2, 3]
        assert found.cells[0].axes == (("lr", 1e-5),)
        assert column(found, "final_score") == pytest.approx([0.7, 0.55, 0.4])
        assert column(found, "best_score") == pytest.approx([0.7, 0.75, 0.4])
        assert list(found.curves(1).eval_step) == [0, 10, 20]
        assert len(found.curves(1).train_loss) == 20
        assert "keeps no states, and its runs end between step 0 and step 20" in notes(found)
        assert len(of(root, seed=None, seed_from=r"seed(\d+)", cell=(), where=("last_step!=0",)).runs) == 2
        if number:  # torch writes hyperparameters in a folder of their own
            found = of(root, cell=("lr", "bc", "opt"))
            assert found.cells[0].axes == (("lr", 1e-5), ("bc", True), ("opt", "sgd"))
            assert column(found, "seed") == [1, 2, 3]
    event = next(Path("tb0").rglob("events*3"), None) or next(Path("tb0/lr1e-5_seed2").iterdir())
    event.write_bytes(event.read_bytes()[:-5])
    assert "1 event file cut in the middle of a record" in notes(of("tb0", seed=None, seed_from=r"seed(\d+)", cell=()))


# --------------------------------------------------------------------------------------------------- Lightning


def check_lightning(found: study.Study) -> None:
    assert column(found, "status") == ["finished", "finished", "finished"]
    assert column(found, "final_score") == [0.7, 0.55, 0.4]
    assert [cell.axes for cell in found.cells] == [(("lr", 1e-5), ("model.name", "b"))]
    assert list(found.curves(0).eval_step) == [9, 19, 29]
    assert found.curves(0).train_loss.tolist() == pytest.approx([0.8] * 10 + [0.7] * 10)  # since the step before


def test_lightnings_folders():
    logger = pytest.importorskip("lightning.pytorch.loggers")
    for seed, scores in SCORES.items():
        made = logger.CSVLogger("logs", name="exp")
        made.log_hyperparams({"lr": 1e-5, "seed": seed, "model": {"name": "b"}})
        for epoch, score in enumerate(scores):
            made.log_metrics({"train_loss": 0.9 - epoch / 10}, step=epoch * 10)
            made.log_metrics({"val_acc": score, "epoch": epoch}, step=epoch * 10 + 9)
        made.save()
    check_lightning(of("logs", metric="val_acc", cell=("lr", "model.name"), loss="train_loss"))


def test_lightnings_sparse_metrics_with_tags_of_python_in_the_settings():
    for seed, scores in SCORES.items():
        folder = Path(f"logs/exp/version_{seed}")
        folder.mkdir(parents=True)
        kind = "!!python/object/apply:pathlib.PosixPath\n- tmp\n"
        (folder / "hparams.yaml").write_text(f"lr: 1.0e-05\nseed: {seed}\nmodel:\n  name: b\nout: {kind}how: !Kind x\n")
        lines = ["epoch,step,train_loss,val_acc"]
        for epoch, score in enumerate(scores):
            lines += [f",{epoch * 10},{0.9 - epoch / 10},", f"{epoch},{epoch * 10 + 9},,{score}", ",,,"]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    found = of("logs", metric="val_acc", cell=("lr", "model.name"), loss="train_loss", best="val_acc:best")
    check_lightning(found)
    assert column(found, "best_score") == [0.7, 0.75, 0.4]
    empty = Path("logs/exp/version_9")
    empty.mkdir()
    (empty / "hparams.yaml").write_text("lr: 1.0e-05\nseed: 9\n")
    again = of("logs", metric="val_acc", cell=("lr",))
    assert column(again, "status") == ["finished"] * 3 + ["missing"]
    assert "1 run logged nothing" in notes(again)
    (empty / "metrics.csv").write_text("a,step\nx,1\n")
    assert "not as Lightning's CSVLogger writes it" in refusal("logs")
    (empty / "hparams.yaml").write_text("a: [\n")
    assert "not YAML" in refusal("logs")


# ---------------------------------------------------------------------------------------------------- Ray Tune


@pytest.mark.filterwarnings("ignore")  # of Ray's loggers
def test_ray_tunes_folders(monkeypatch, tmp_path):
    from ray.train._internal import storage
    from ray.tune.experiment import Trial
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

    monkeypatch.setattr(storage, "_get_ray_train_session_dir", lambda: str(tmp_path / "session"))
    context = storage.StorageContext(storage_path=str(tmp_path / "out"), experiment_dir_name="e")
    states = []
    for seed, status in ((1, "TERMINATED"), (2, "TERMINATED"), (3, "ERROR"), (4, "PENDING")):
        config = {"lr": 1e-5, "seed": seed, "model": {"name": "b"}}
        trial = Trial("f", stub=True, config=config, storage=context, experiment_tag=f"seed={seed}")
        trial.init_local_path()
        for callback in (JsonLoggerCallback(), CSVLoggerCallback()) if seed < 4 else ():
            callback.log_trial_start(trial)
            for step, score in enumerate(SCORES[seed], start=1):
                result = {"acc": score, "nested": {"f1": score}, "training_iteration": step, "config": config,
                          "done": step == len(SCORES[seed])}  # fmt: skip
                callback.log_trial_result(step, trial, result)
            callback.log_trial_end(trial)
        trial.set_status(status)
        states.append(trial.get_json_state())
    experiment = Path(trial.local_path).parent
    if Path(trial.local_path).is_dir():
        Path(trial.local_path).rmdir()
    fields = {"cell": ("lr", "model.name"), "best": "acc:best"}
    unsaid = of(str(experiment), **fields)  # without the experiment's state the last result tells
    assert column(unsaid, "status") == ["finished"] * 3
    (experiment / "experiment_state-2026.json").write_text(json.dumps({"trial_data": states}))
    for attempt in range(2):
        found = of(str(experiment), **fields)
        assert column(found, "status") == ["finished", "finished", "crashed", "missing"]
        assert column(found, "final_score") == [0.7, 0.55, None, None]
        assert column(found, "best_score") == [0.7, 0.75, None, None]
        assert found.cells[0].axes == (("lr", 1e-5), ("model.name", "b"))
        assert list(found.curves(1).eval_step) == [1, 2, 3]
        assert column(of(str(experiment), metric="nested/f1"), "final_score") == [0.7, 0.55, None, None]
        for path in experiment.rglob("result.json") if not attempt else ():
            path.unlink()  # progress.csv says the same


# ------------------------------------------------------------------------------------------------ transformers


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Three runs of the Trainer's: one whole, one without results, one cut after its first epoch."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            ids = torch.tensor([1, 2 + index % 8, 3])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(index % 2)}

    root = tmp_path_factory.mktemp("trainer")
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    for seed in (1, 2, 3):
        arguments = TrainingArguments(
            str(root / f"lr1e-3-seed{seed}"), seed=seed, learning_rate=1e-3, num_train_epochs=2, logging_steps=2,
            per_device_train_batch_size=4, eval_strategy="epoch", save_strategy="epoch", report_to=[], use_cpu=True,
            disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            BertForSequenceClassification(config), arguments, train_dataset=Data(), eval_dataset=Data(),
            compute_metrics=lambda told: {"accuracy": float((told.predictions.argmax(-1) == told.label_ids).mean())},
        )  # fmt: skip
        done = trainer.train()
        if seed == 1:
            trainer.save_metrics("train", done.metrics)
            trainer.save_metrics("eval", trainer.evaluate())
            trainer.save_state()
            trainer.create_model_card()
    last = root / "lr1e-3-seed3" / "checkpoint-8"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    (root / "lr1e-3-seed4").mkdir()
    return root


@pytest.mark.filterwarnings("ignore")  # of the Trainer
def test_transformers_output_folders(trained):
    pytest.importorskip("accelerate")
    fields = {"metric": "eval_accuracy", "cell": ("learning_rate", "optim"), "loss": "loss", "majority": "0.5"}
    found = of(str(trained), **fields)
    assert column(found, "status") == ["finished", "finished", "missing"]
    assert column(found, "seed") == [1, 2, 3]
    assert dict(found.cells[0].axes)["learning_rate"] == 1e-3
    assert str(dict(found.cells[0].axes)["optim"]).startswith("adamw")
    results = json.loads((trained / "lr1e-3-seed1" / "all_results.json").read_text())
    assert column(found, "final_score")[0] == results["eval_accuracy"]
    state = json.loads((trained / "lr1e-3-seed2" / "checkpoint-8" / "trainer_state.json").read_text())
    logged = [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
    assert column(found, "final_score")[1] == logged[-1]
    assert list(found.curves(1).eval_step) == [4, 8]
    assert list(found.curves(1).dev_score) == logged
    assert len(found.curves(1).train_loss) == 8
    assert "1 run with checkpoints alone, none of the last step" in notes(found)
    assert "1 folder beside the runs hold no output and are left out: lr1e-3-seed4" in notes(found)
    named = of(str(trained), metric="eval_accuracy", seed=None, seed_from=r"lr(?P<lr>[^-]+-\d)-seed(\d+)")
    assert (named.axes, column(named, "seed")) == (("lr",), [1, 2, 3])
    assert "finds no seed in 'lr1e-3-seed1'" in refusal(
        str(trained), metric="eval_accuracy", cell=(), seed=None, seed_from=r"run(\d+)"
    )
    for pattern, wanted in (("seed", "has no parentheses around the seed"), ("(", "is not a regular expression")):
        assert wanted in refusal(str(trained), metric="eval_accuracy", cell=(), seed=None, seed_from=pattern)
    assert "--seed and --seed-from are both missing" in refusal(str(trained), seed=None)
    # Without the arguments' pickle the model card tells the settings.
    for path in (trained / "lr1e-3-seed1").rglob("training_args.bin"):
        path.unlink()
    carded = of(str(trained / "lr1e-3-seed1"), metric="eval_accuracy", cell=("learning_rate", "lr_scheduler_type"))
    assert carded.cells[0].axes == (("learning_rate", 0.001), ("lr_scheduler_type", "linear"))
    assert column(carded, "seed") == [1]


def test_a_pickle_of_arguments_runs_nothing(tmp_path):
    import zipfile

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    folder = tmp_path / "out" / "seed1"
    folder.mkdir(parents=True)
    (folder / "all_results.json").write_text('{"eval_accuracy": 0.5}')
    with zipfile.ZipFile(folder / "training_args.bin", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil()))
    found = of(str(tmp_path / "out"), metric="eval_accuracy", cell=(), seed=None, seed_from=r"seed(\d+)")
    assert column(found, "final_score") == [0.5]
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------- Weights & Biases


def check_wandb(found: study.Study) -> None:
    assert column(found, "status") == ["finished", "finished", "crashed"]
    assert column(found, "final_score") == [0.7, 0.55, None]
    assert column(found, "best_score") == [0.7, 0.75, None]
    assert [cell.axes for cell in found.cells] == [(("lr", 1e-5), ("model.name", "b"))]
    assert list(found.curves(1).dev_score) == SCORES[2]


@pytest.mark.filterwarnings("ignore")  # of what W&B imports
def test_wandbs_offline_folders():
    wandb = pytest.importorskip("wandb")
    settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
    for seed, scores in SCORES.items():
        run = wandb.init(mode="offline", dir=".", project="p", id=f"r{seed}", name=f"seed {seed}", settings=settings,
                         config={"lr": 1e-5, "seed": seed, "model": {"name": "b"}})  # fmt: skip
        for score in scores:
            run.log({"acc": score, "loss": 1 - score})
        run.finish(exit_code=1 if seed == 3 else 0)
    wandb.teardown()  # waits until all is written
    check_wandb(of("wandb", cell=("lr", "model.name"), loss="loss", best="acc:best"))


def varint(number: int) -> bytes:
    parts = b""
    while number > 127:
        parts, number = parts + bytes([number & 127 | 128]), number >> 7
    return parts + bytes([number])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    made = b""
    for number, value in fields:
        if isinstance(value, int):
            made += varint(number << 3) + varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            made += varint(number << 3 | 2) + varint(len(content)) + content
    return made


def items(values: dict) -> list[tuple[int, bytes]]:
    return [(1, message((1, name), (16, json.dumps(value)))) for name, value in values.items()]


def wandb_log(records: list[bytes]) -> bytes:
    """Records in LevelDB's framing: cut at blocks of 32 KiB, after W&B's header of 7 bytes."""
    log = b":W&B\xbe\xe1\x00"
    for record in records:
        first = True
        while True:
            left = 32768 - len(log) % 32768
            if left < 7:
                log += bytes(left)
                continue
            part, record = record[: left - 7], record[left - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            log += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not record:
                break
    return log


def test_wandbs_logs_are_read_without_wandb_across_their_blocks():
    for seed, scores in SCORES.items():
        config = {"lr": 1e-5, "seed": seed, "model": {"name": "b"}, "long": "x" * 70_000, "_wandb": {}}
        run = message((1, f"r{seed}"), (3, "p"), (4, message(*items(config))), (8, f"seed {seed}"))
        records = [message((17, run))]
        records += [
            message((2, message(*items({"acc": score, "_step": step}), (2, message((1, step))))))
            for step, score in enumerate(scores)
        ]
        records += [message((3, message(*items({"acc": scores[-1], "_step": len(scores)}))))]
        records += [message((18, message((1, 1 if seed == 3 else 0))))]
        folder = Path(f"wandb/offline-run-2026-r{seed}")
        folder.mkdir(parents=True)
        (folder / f"run-r{seed}.wandb").write_bytes(wandb_log(records))
    check_wandb(of("wandb", cell=("lr", "model.name"), best="acc:best"))
    cut = folder / "run-r3.wandb"
    cut.write_bytes(cut.read_bytes()[:-4])
    found = of("wandb", cell=("lr",))
    assert column(found, "status") == ["finished", "finished", "missing"]
    assert "1 log cut in the middle of a record" in notes(found)
    cut.write_bytes(cut.read_bytes()[:10])
    found = of("wandb", cell=("lr",))
    assert column(found, "seed") == [1, 2]
    assert "1 log without a run, so without a seed, left out" in notes(found)
    assert column(of("wandb", cell=(), seed=None, seed_from=r"seed (\d+)"), "seed") == [1, 2]


# ------------------------------------------------------------------------------------------ what can't be read


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a.xlsx", "save the sheet as CSV"), ("a.pkl", "pandas.read_pickle"), ("a.log", "a CSV"), ("a.zip", "unpack"),
     (".aim/x", "Aim"), (".neptune/x", "Neptune"), ("out/run.json", "Sacred"), ("d/a.csv", "Name the files"),
     ("d/mlflow.db", "the store itself: d/mlflow.db"), (".dvc/config", "dvc exp show --csv")],
)  # fmt: skip
def test_what_cant_be_read_says_how_to_get_a_table_out_of_it(name, wanted):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    if name == "out/run.json":
        for other in ("config.json", "metrics.json"):
            (path.parent / other).write_text("{}")
    assert wanted in refusal(name if "/" not in name else str(path.parent))


def test_other_sqlite_files_and_folders_of_two_tools_are_one_line():
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE results (a)")
    other.close()
    line = refusal("other.db")
    assert "an SQLite file with the tables 'results'" in line
    assert "sqlite3 -header -csv other.db" in line
    Path("bad.db").write_bytes(b"SQLite format 3\0 and nothing else")
    assert "SQLite: " in refusal("bad.db")
    for folder, files in (("both/a", ("hparams.yaml",)), ("both/b", ("params.json", "result.json"))):
        Path(folder).mkdir(parents=True)
        for file in files:
            (Path(folder) / file).write_text("{}")
    line = refusal("both")
    assert "both holds runs of several tools: Lightning (1 run), Ray Tune (1 run)" in line


def test_imported_curves_are_drawn_in_the_report(monkeypatch):
    made_mlflow_db("mlflow.db")
    found = of("mlflow.db", majority="0.6")
    monkeypatch.setattr("harness.report.figures.all_figures.MAKERS", (curves,))
    written = page.write(found, Path("page"))
    assert any("curves" in path.name for path in written.folder.rglob("*"))
    Path("results/x/curves.npz").write_bytes(b"no curves")
    with pytest.raises(HarnessError, match="cannot read the imported runs in"):
        imported.of_import(Path("results/x"))
