"""Records mirrored into a tracking store, after the fact: the records stay what counts, and a mirror is made anew."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.common.errors import HarnessError
from harness.common.extras import install_command
from harness.common.text import Scalar
from harness.config.parameters import Parameters, exact, parameters
from harness.config.trials import Sweep, Trial, expand
from harness.records.reading import Unreadable
from harness.records.record import Curves, Record, Status, started_seconds
from harness.records.store import Store

To = Literal["mlflow", "tensorboard", "wandb"]
_MARK = "harness.json"  # in a run's folder: what it was made of
# What MLflow takes at once, and what its interface is installed by: the package of the extra `mlflow` has none.
_MOST, _MOST_PARAMS = 1000, 100
_MLFLOW_UI = "mlflow-ui"
_GROUP = 128  # characters of a group's name in W&B


@dataclass(frozen=True)
class MetricCurve:
    """A quantity over training; what was not finite is left out."""

    name: str
    steps: tuple[int, ...]  # updates done
    values: tuple[float, ...]


@dataclass(frozen=True)
class ExportedRun:
    """A planned trial as tracking stores know runs: named by its id, a crashed or missing one among them."""

    id: str
    status: Status
    params: Parameters
    tags: tuple[tuple[str, str], ...]
    metrics: tuple[tuple[str, float], ...]
    curves: tuple[MetricCurve, ...]
    started: float  # seconds since 1970; 0 where it was never
    seconds: float

    @property
    def sha256(self) -> str:
        """A hash of all of it, by which a second export knows what it need not write."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Exported:
    """How many runs were written, replaced since they had changed, and left since they were there already."""

    written: int
    replaced: int
    left: int
    place: str  # where
    look: str  # what to type, or the page to open, to look at it
    needs: str | None = None  # what has to be installed before that


def runs(sweep: Sweep, store: Store) -> Iterator[ExportedRun]:
    """The plan's trials as runs, in its order, each made of its record as it lies there now."""
    for trial, record in store.read_each(expand(sweep)):
        if isinstance(record, Unreadable):
            yield _run(sweep, trial, None, None, "unreadable")
            continue
        curves = store.read_arrays(record, recording=False) if record else None
        yield _run(sweep, trial, record, None if isinstance(curves, Unreadable) else curves)


def _run(
    sweep: Sweep, trial: Trial, record: Record | None, curves: Curves | None, without: Status = "missing"
) -> ExportedRun:
    status: Status = record.status if record else without
    tags = {"status": status, "cell": sweep.cells[trial.cell].label, "sweep": sweep.name, "profile": sweep.profile}
    metrics: dict[str, float | None] = {}
    measured = record.measured if record else None
    if measured is not None:
        texts = {name: getattr(measured, name) for name in ("outcome", "metric", "weights_sha256", "reason")}
        tags |= {name: text for name, text in texts.items() if text}
        names = ("final_score", "best_score", "majority_score", "final_train_loss", "final_dev_loss")
        metrics = {name: getattr(measured, name) for name in names}
        steps = None if measured.steps is None else float(measured.steps)
        metrics |= {"steps": steps, "lane_seconds": measured.lane_seconds}
        metrics |= dict(record.script.further) if record is not None and record.script is not None else {}
    if record is not None and record.error:
        lines = [line.strip() for line in record.error.splitlines() if line.strip()]
        tags["error"] = lines[-1][:500] if lines else "no text"
    return ExportedRun(
        id=trial.id,
        status=status,
        params=parameters(sweep, trial),
        tags=tuple(tags.items()),
        metrics=tuple((name, value) for name, value in metrics.items() if value is not None),
        curves=() if curves is None else _curves(curves),
        started=(started_seconds(record) or 0.0) if record else 0.0,
        seconds=measured.wall_seconds if measured else 0.0,
    )


def _curves(curves: Curves) -> tuple[MetricCurve, ...]:
    steps = np.arange(1, len(curves.train_loss) + 1)
    series = (
        ("train_loss", steps, curves.train_loss),
        ("lr", steps, curves.lr),
        ("grad_norm", steps, curves.grad_norm),
        ("dev_loss", curves.eval_step, curves.dev_loss),
        ("dev_score", curves.eval_step, curves.dev_score),
    )
    return tuple(
        MetricCurve(name, tuple(at[known].tolist()), tuple(values[known].astype(np.float64).tolist()))
        for name, at, values in series
        if (known := np.isfinite(values)).any()
    )


def export(
    sweep: Sweep,
    store: Store,
    to: To,
    out: Path | None = None,
    uri: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Mirror a sweep's trials into the store of a tracking tool.

    A run is known by its trial's id: one that is there as it would be written is left, one whose record has changed is
    replaced, so that exporting twice makes no run twice.

    Args:
        sweep: The sweep.
        store: Its results folder.
        to: The tool.
        out: The folder to write; None: one beside the records.
        uri: Of MLflow, the tracking server; None: an SQLite database in the folder.
        progress: Called with (done, all) trials.

    Raises:
        HarnessError: The tool's package is not installed, or its store can't be written.
    """
    if uri is not None and (to != "mlflow" or out is not None):
        raise HarnessError(
            "--uri cannot be used with --out"
            if to == "mlflow"
            else f"--uri names an MLflow server or database: it cannot be used with --to {to}",
            fix="Name a folder with --out",
        )
    folder = (out or store.folder / to).resolve()
    count, total = {"written": 0, "replaced": 0, "left": 0}, len(expand(sweep))
    target_place = uri or (_database(folder) if to == "mlflow" else str(folder))
    with _said(to, target_place):
        if to == "mlflow":
            target: _MLflow | _TensorBoard | _WandB = _MLflow(target_place, None if uri else folder, sweep.folder_name)
        else:
            target = _TensorBoard(folder) if to == "tensorboard" else _WandB(folder, sweep.folder_name)
        for number, run in enumerate(runs(sweep, store), 1):
            known = target.known(run)
            count["left" if known == run.sha256 else "replaced" if known is not None else "written"] += 1
            if known != run.sha256:
                target.write(run)
            if progress is not None:
                progress(number, total)
    return Exported(**count, place=target_place, look=target.look, needs=target.needs)


def _database(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def _command(program: str, *words: str) -> str:
    """What to type; under make the virtual environment's programs are not on the PATH."""
    beside = Path(sys.executable).with_name(program)
    if not shutil.which(program) and beside.is_file():
        program = os.path.relpath(beside)
    return shlex.join([program, *words])


@contextmanager
def _said(to: To, place: str) -> Iterator[None]:
    """Turn what the stores' packages raise into one line."""
    try:
        yield
    except HarnessError:
        raise
    except ImportError as error:
        raise HarnessError(
            f"cannot export to {to}: its package is not installed",
            got=" ".join(str(error).split())[:200],
            fix=f"Run {install_command(to)}",
        ) from None
    except Exception as error:  # of many libraries, and all mean that the store can't be written
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise HarnessError(
            f"cannot write the runs to {to} at {place}: {reason[:200].rstrip('.')}",
            fix="Correct it and re-run the same command to resume: what was exported stays",
        ) from error


# ---------------------------------------------------------------------------------------------------- the stores


class _MLflow:
    """An experiment a sweep and profile, a run a trial; its tag `harness.sha256` is written last."""

    def __init__(self, uri: str, folder: Path | None, experiment: str) -> None:
        """Open the store at `uri`; one in a `folder` of one's own has its artifacts there too."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for each run
        files = uri.startswith("file:") or "://" not in uri
        if files:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it asks for a database since 3.7
        from mlflow import entities
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # it tells of the tables it makes
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self.entities, self.client = entities, MlflowClient(tracking_uri=uri)
        known = self.client.get_experiment_by_name(experiment)
        artifacts = None if folder is None else (folder / "artifacts").as_uri()
        self.experiment = known.experiment_id if known else self.client.create_experiment(experiment, artifacts)
        self.look, self.needs = uri, None
        if not uri.startswith(("http:", "https:")):
            self.look = _command("mlflow", "ui", "--backend-store-uri", uri)
            self.look = f"MLFLOW_ALLOW_FILE_STORE=true {self.look}" if files else self.look
            self.needs = None if _installed("mlflow") else install_command(_MLFLOW_UI)
        self.there: dict[str, list[tuple[str, str]]] = defaultdict(list)  # trial -> (run, hash)
        token = None
        while token != "":
            page = self.client.search_runs([self.experiment], max_results=_MOST, page_token=token)
            for run in page:
                tags = run.data.tags
                if "harness.trial" in tags:
                    self.there[tags["harness.trial"]].append((run.info.run_id, tags.get("harness.sha256", "")))
            token = page.token or ""

    def known(self, run: ExportedRun) -> str | None:
        """The hash of the run that is there; an empty one of a run that was cut."""
        known_run = self.there.get(run.id)
        return None if not known_run else known_run[0][1] if len(known_run) == 1 else ""

    def write(self, run: ExportedRun) -> None:
        """Write a run, and delete those of the trial that were there."""
        for old, _ in self.there.pop(run.id, []):
            self.client.delete_run(old)
        start, end = int(run.started * 1000), int((run.started + run.seconds) * 1000)
        tags = {"harness.trial": run.id, **dict(run.tags)}
        made = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=run.id).info.run_id
        params = [self.entities.Param(name, exact(value)) for name, value in run.params]
        for first in range(0, len(params), _MOST_PARAMS):
            self.client.log_batch(made, params=params[first : first + _MOST_PARAMS])
        points = [self.entities.Metric(name, value, end, 0) for name, value in run.metrics]
        for curve in run.curves:
            values = zip(curve.values, curve.steps, strict=True)
            points += [self.entities.Metric(curve.name, value, start, step) for value, step in values]
        for first in range(0, len(points), _MOST):
            self.client.log_batch(made, metrics=points[first : first + _MOST])
        ends = {"finished": "FINISHED", "crashed": "FAILED"}
        if run.status in ends:
            self.client.set_terminated(made, ends[run.status], end)
        else:
            self.client.update_run(made, status="SCHEDULED")
        self.client.set_tag(made, "harness.sha256", run.sha256)


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


class _Folders(ABC):
    """Runs that lie in a folder each, with a mark that is written last."""

    needs = None

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    @abstractmethod
    def places(self, run: ExportedRun) -> list[Path]:
        """The folders of a run, which may have been cut or doubled."""

    def known(self, run: ExportedRun) -> str | None:
        """The hash of the run that is there; an empty one of a run that was cut."""
        folders = self.places(run)
        if len(folders) != 1:
            return "" if folders else None
        try:
            return str(json.loads((folders[0] / _MARK).read_bytes())["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def clear(self, run: ExportedRun) -> None:
        """Remove what there is of a run."""
        for folder in self.places(run):
            shutil.rmtree(folder)

    @staticmethod
    def mark(folder: Path, run: ExportedRun) -> None:
        """Say what a run was made of."""
        (folder / _MARK).write_text(json.dumps({"trial": run.id, "sha256": run.sha256}) + "\n", encoding="utf-8")


class _TensorBoard(_Folders):
    """A folder a trial, with its curves and its row among the hyperparameters."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(folder)
        self.writer: Any = SummaryWriter
        self.look = _command("tensorboard", "--logdir", str(folder))

    def places(self, run: ExportedRun) -> list[Path]:
        """Named by the trial."""
        folder = self.folder / run.id
        return [folder] if folder.is_dir() else []

    def write(self, run: ExportedRun) -> None:
        """Write a run anew."""
        self.clear(run)
        with self.writer(log_dir=str(self.folder / run.id)) as writer:
            for curve in run.curves:
                for step, value in zip(curve.steps, curve.values, strict=True):
                    writer.add_scalar(curve.name, value, step, walltime=run.started)
            words = [(name, value) for name, value in run.tags if name != "weights_sha256"]
            writer.add_text("about", "\n".join(f"- {name}: {value}" for name, value in words), walltime=run.started)
            settings = {name: _axis(value) for name, value in (*run.params, *words) if name != "error"}
            # Its own place; another would be a run more, named by the time.
            writer.add_hparams(settings, {f"hparam/{name}": value for name, value in run.metrics}, run_name=".")
        self.mark(self.folder / run.id, run)


class _WandB(_Folders):
    """Offline runs with the trial's id, which `wandb sync` puts on a server under that id, once."""

    def __init__(self, folder: Path, project: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        super().__init__(folder)
        self.wandb: Any = wandb
        self.project = project
        self.look = f"{_command('wandb', 'sync', str(folder / 'wandb'))}/offline-run-*"

    def places(self, run: ExportedRun) -> list[Path]:
        """Named by the time and the trial."""
        return sorted((self.folder / "wandb").glob(f"offline-run-*-{run.id}"))

    def write(self, run: ExportedRun) -> None:
        """Write a run anew."""
        self.clear(run)
        tags = dict(run.tags)
        settings = self.wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
        made = self.wandb.init(
            mode="offline",
            dir=str(self.folder),
            project=self.project,
            id=run.id,
            name=run.id,
            group=_group(tags["cell"]),
            tags=[tags[name] for name in ("status", "outcome", "reason") if name in tags],
            config=dict(run.params) | {"harness": tags},
            settings=settings,
        )
        at: dict[int, dict[str, float]] = defaultdict(dict)
        for curve in run.curves:
            for step, value in zip(curve.steps, curve.values, strict=True):
                at[step][curve.name] = value
        for step in sorted(at):
            made.log(at[step], step=step)
        made.summary.update(dict(run.metrics))
        made.finish(exit_code=0 if run.status == "finished" else 1)
        self.mark(self.places(run)[-1], run)


def _group(cell: str) -> str:
    """A cell's name as W&B takes it; two long ones that begin alike stay two."""
    if len(cell) <= _GROUP:
        return cell
    return f"{cell[: _GROUP - 9]} {hashlib.sha256(cell.encode()).hexdigest()[:8]}"


def _axis(value: Scalar) -> str | float:
    """A setting as TensorBoard takes it: on and off as words, and as numbers what a double holds exactly."""
    if isinstance(value, float):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53
    return float(str(value)) if whole else exact(value)
