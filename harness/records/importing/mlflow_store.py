"""MLflow's SQLite store, read as it lies, and its servers, asked by MLflow's own client."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.common.errors import HarnessError
from harness.common.extras import install_command
from harness.common.text import Scalar
from harness.records.importing.table import Key, LoggedRun, Series, SourceTable, table_of, unreadable
from harness.records.importing.text import printable

TABLES = {"experiments", "runs", "params", "metrics", "tags"}
_URI = re.compile(r"(?:https?|databricks|databricks-uc|uc|postgresql|mysql|mssql)(?:\+\w+)?:/|databricks$")
_PAGE = 1000  # runs that a server hands on at once


def is_wanted(key: Key, wanted: set[str]) -> bool:
    """Whether a param, tag or metric is asked for by name, as `kind.name`, or as a metric's best."""
    kind, name = key
    return bool({name, f"{kind}.{name}", f"{name}:best", f"{kind}.{name}:best"} & wanted)


def curve_of(points: Iterable[tuple[int, int, float]]) -> Series:
    """The curve of (step, time, value) points; of one step the value that was logged last."""
    last: dict[int, tuple[int, int, float]] = {}
    for number, (step, time, value) in enumerate(points):
        if step not in last or last[step][:2] <= (time, number):
            last[step] = (time, number, value)
    steps = sorted(last)
    return Series(steps, [last[step][2] for step in steps])


def table_of_mlflow(
    label: str,
    runs: Sequence[LoggedRun],
    sha256: str,
    *,
    known: Iterable[Key],
    deleted: int,
    higher_is_better: bool,
) -> SourceTable:
    """Runs of MLflow's, in whatever store they lie, as a table."""
    notes = [f"Runs that were deleted in MLflow are left out: {deleted}."] if deleted else []
    return table_of(
        label,
        "MLflow",
        runs,
        sha256,
        higher_is_better=higher_is_better,
        state_column="status",
        known=known,
        notes=notes,
    )


# ------------------------------------------------------------------------------------------------------- SQLite


def load_sqlite(path: Path, connection: sqlite3.Connection, label: str, wanted: set[str], higher: bool) -> SourceTable:
    """The runs of an SQLite store, oldest first; of params, tags and metrics only those that are wanted are read."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
    name = "r.name" if "name" in columns else "NULL"
    rows = connection.execute(
        f"SELECT r.run_uuid, {name}, r.status, r.lifecycle_stage, e.experiment_id, e.name, e.lifecycle_stage "
        "FROM runs r JOIN experiments e USING (experiment_id) ORDER BY r.start_time, r.run_uuid"
    ).fetchall()
    live = [row for row in rows if row[3] != "deleted" and row[6] != "deleted"]
    if not live:
        unreadable(path, "no rows", allowed="runs that are not deleted")
    ids = {row[0] for row in live}
    known = [
        (kind, name)
        for kind in ("params", "metrics", "tags")
        for (name,) in connection.execute(f"SELECT DISTINCT key FROM {kind} ORDER BY key")
        if kind != "tags" or not name.startswith("mlflow.")
    ]
    values: dict[str, dict[Key, Scalar]] = defaultdict(dict)
    history: dict[str, dict[str, Series]] = defaultdict(dict)
    for kind, key in known:
        if not is_wanted((kind, key), wanted):
            continue
        if kind == "metrics":
            points: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
            for run, step, time, value, is_nan in connection.execute(
                "SELECT run_uuid, step, timestamp, value, is_nan FROM metrics WHERE key = ? ORDER BY step, timestamp",
                (key,),
            ):
                points[run].append((step or 0, time or 0, math.nan if is_nan else _unbounded(value)))
            for run, logged in points.items():
                history[run][key] = curve_of(logged)
        else:
            for run, value in connection.execute(f"SELECT run_uuid, value FROM {kind} WHERE key = ?", (key,)):
                values[run][kind, key] = value
    names = dict(connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.runName'"))
    runs = [
        LoggedRun(
            place=run,
            path=names.get(run) or own or "",
            about={"run_id": run, "run_name": names.get(run) or own or "", "experiment_id": str(number),
                   "experiment": experiment, "status": status},
            values=values[run],
            history=history[run],
        )
        for run, own, status, _, number, experiment, _ in live
    ]  # fmt: skip
    assert len(ids) == len(runs)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return table_of_mlflow(label, runs, digest, known=known, deleted=len(rows) - len(live), higher_is_better=higher)


def _unbounded(value: Any) -> float:
    """A value as it was logged: MLflow keeps an infinite one as the largest float."""
    number = float(value)
    return math.copysign(math.inf, number) if abs(number) >= 1.7976931348623157e308 else number


# ------------------------------------------------------------------------------------------------------- servers


def is_uri(source: str) -> bool:
    """Whether a source is the address of a tracking server or of a database on one."""
    return _URI.match(source) is not None


def without_credentials(uri: str) -> str:
    """An address that may be kept and shown: without user and password."""
    return re.sub(r"(?<=//)[^/@]*@", "", uri)


def load_server(uri: str, label: str, wanted: set[str], higher: bool) -> SourceTable:
    """The runs of a tracking server, by MLflow's own client; raises HarnessError where it isn't installed."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise HarnessError(
            "cannot read an MLflow server without MLflow's client",
            got=" ".join(str(error).split())[:200],
            fix=f"Run {install_command('mlflow')}, or name a file",
        ) from None
    try:
        return _of_client(MlflowClient(tracking_uri=uri), uri, label, wanted, higher)
    except HarnessError:
        raise
    except Exception as error:  # of many libraries; all mean that the server can't be read
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        unreadable(
            without_credentials(uri), without_credentials(printable(reason))[:200],
            allowed="the address of an MLflow server that answers", fix="Check the address, and that the server runs",
        )  # fmt: skip


def _of_client(client: Any, uri: str, label: str, wanted: set[str], higher: bool) -> SourceTable:
    experiments: dict[str, str] = {}
    token = None
    while token != "":
        page = client.search_experiments(page_token=token)
        experiments |= {experiment.experiment_id: experiment.name for experiment in page}
        token = page.token or ""
    found_runs: list[Any] = []
    token = None
    while experiments and token != "":
        page = client.search_runs(list(experiments), max_results=_PAGE, page_token=token)
        found_runs += page
        token = page.token or ""
    if not found_runs:
        unreadable(without_credentials(uri), "no rows", allowed="a server with runs")
    found_runs.sort(key=lambda run: (run.info.start_time or 0, run.info.run_id))
    known: dict[Key, None] = {}
    runs = []
    for run in found_runs:
        kinds = {"params": run.data.params, "metrics": run.data.metrics, "tags": run.data.tags}
        keys = [(kind, name) for kind, held in kinds.items() for name in held]
        keys = [key for key in keys if key[0] != "tags" or not key[1].startswith("mlflow.")]
        known |= dict.fromkeys(keys)
        chosen = [key for key in keys if is_wanted(key, wanted)]
        history = {
            name: curve_of((point.step, point.timestamp, point.value)
                           for point in client.get_metric_history(run.info.run_id, name))
            for kind, name in chosen if kind == "metrics"
        }  # fmt: skip
        about: dict[str, Scalar] = {
            "run_id": run.info.run_id,
            "run_name": run.info.run_name or "",
            "experiment_id": run.info.experiment_id,
            "experiment": experiments[run.info.experiment_id],
            "status": run.info.status,
        }
        values = {key: kinds[key[0]][key[1]] for key in chosen if key[0] != "metrics"}
        runs.append(LoggedRun(run.info.run_id, run.info.run_name or "", about, values, history))
    content = json.dumps([(run.about, sorted(run.values.items())) for run in runs], default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return table_of_mlflow(label, runs, digest, known=known, deleted=0, higher_is_better=higher)
