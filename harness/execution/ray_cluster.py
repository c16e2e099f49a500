"""The Ray that a sweep joins or starts: reaching it, counting its devices, shipping files to it."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.common import watchdog
from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.config.recipe import Spec
from harness.config.trials import Trial
from harness.execution import held_signals, machine, ray_start, shipping
from harness.execution.ray_worker import Shipped
from harness.execution.start_up import HeldThread, StartUp
from harness.scripts.runner import RunFolders

# What a worker's process takes beside its lanes (torch, transformers, Ray): about a gigabyte was measured.
_WORKER_BYTES = 3 * 2**29
# How often the start is looked at, in seconds: each look takes back the signals that Ray's C++ takes while it starts.
_LOOK_SECONDS = 0.01

_DIED = "A worker died or was killed"  # so begins what its raylet says of each

_thread: HeldThread | None = None  # that started Ray, or joined it


def answers(host: str, port: int, seconds: float) -> str | None:
    """Why nothing listens at host:port, asked for so many seconds; None where something does."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return None


def _refuse_silent(address: str | None) -> None:
    """Raise within seconds where nothing listens at host:port; Ray alone tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit() and (why := answers(host.strip("[]"), int(port), 5)) is not None:
        raise _unreachable(address, why)


def _unreachable(address: str | None, why: str) -> HarnessError:
    return HarnessError(
        f"cannot reach the Ray cluster at {address}: {why}",
        allowed="auto or host:port of a running cluster",
        fix="Start it with `ray start --head`",
    )


def connect(address: str | None, runs: RunFolders | None = None, start: StartUp | None = None) -> Any:
    """Start a Ray of this machine, which listens there alone, or join one by its address; gives the module.

    To a cluster the folder is shipped that scripts run in, without the results in it, for nodes that don't see it.
    `start` waits for it.

    Raises:
        HarnessError: Ray can't be started here, or the cluster can't be reached, or not in time.
    """
    if address is None:
        ray_start.check_machine()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # Ray's own default of 15 halves a worker's speed beside any other work on the machine.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Named after other systems, it makes 127.0.0.1 the node's address on each: all of Ray listens there alone.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if address is None:
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False  # it was read too early where something imported Ray before

    _refuse_silent(address)
    wait_in_slices()
    quiet_about_dead_workers()
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": True, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": machine.detect_hardware().cores, "include_dashboard": False}
    else:
        environment: dict[str, Any] = {"py_modules": [str(Path(__file__).parents[1])], "excludes": ["**/__pycache__"]}
        if runs is not None and runs.cwd is not None and runs.parent is not None:
            environment["working_dir"] = runs.cwd
            results = os.path.relpath(runs.parent.parents[1], runs.cwd)
            environment["excludes"] += [".git", ".venv", f"/{results}/"] if not results.startswith(".") else [".git"]
        options["runtime_env"] = environment
    initialise(ray, address, options, start or StartUp())
    return ray


def wait_in_slices() -> None:
    """Have Ray look for its server's port file a tenth of a second at a time, with Python running in between.

    While it starts, its C++ waits for that file for up to half a minute and lets no Python run: where a stop had just
    ended the server, the command stayed that long.
    """
    from ray._private import node

    def wait(usual: Callable[..., Any], folder: str, node_id: str, port: str, timeout_ms: int = 30_000) -> int:
        end = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                return int(usual(folder, node_id, port, timeout_ms=100))
            except RuntimeError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.01)

    _put_around(node, "wait_for_persisted_port", wait)


def quiet_about_dead_workers() -> None:
    """Have Ray say nothing of workers that died, and what else it has to say on standard error.

    A thread of its driver prints what its raylet reports in among our output, which may be JSON. Of a worker that died
    we tell ourselves, with its pack; those that are ended with Ray, when all is done, are no news at all.
    """
    from ray._private import worker

    def told(usual: Callable[..., Any], data: dict[str, Any], *arguments: Any, **options: Any) -> None:
        lines = [line for line in data["lines"] if not line.startswith(_DIED)]
        if lines:
            usual(data | {"lines": lines, "is_err": True}, *arguments, **options)

    _put_around(worker, "print_to_stdstream", told)


def _put_around(module: ModuleType, name: str, ours: Callable[..., Any]) -> None:
    """Have a module of Ray's call ours, with what it called before as the first argument; once, and where it has it."""
    usual = getattr(module, name, None)
    if usual is not None and not isinstance(usual, functools.partial):
        setattr(module, name, functools.partial(ours, usual))


def initialise(ray: Any, address: str | None, options: Mapping[str, Any], start: StartUp) -> None:
    """Call `ray.init` in a thread of its own; what it started is ended where it fails or is not waited for."""
    global _thread
    logging.getLogger("ray").setLevel(logging.ERROR)  # that the thread is not the main one is meant
    before = watchdog.children_of(os.getpid())
    _thread = HeldThread(lambda: ray.init(address=address or "local", **options))
    what = "Ray to start" if address is None else f"the Ray cluster at {address}"
    hint = ", --in-process trains without it" if address is None else ""

    def late() -> HarnessError:
        why = f"it was not there within {ray_start.SECONDS:g} s"
        return ray_start.failed(why) if address is None else _unreachable(address, why)

    try:
        with start.waiting_for(what, hint):
            with held_signals.held(start.check):
                _thread.start()
                start.until(lambda: _returned() or held_signals.waits(), ray_start.SECONDS, late, _LOOK_SECONDS)
            start.check()  # a SIGTERM that was held back has come
            start.until(_returned, ray_start.SECONDS, late, _LOOK_SECONDS)  # nobody follows it
        if _thread.error is not None:
            raise _thread.error
    except BaseException as error:
        _silence_threads_of_ray()
        watchdog.end_children(watchdog.children_of(os.getpid()) - before)
        _thread.release()
        if isinstance(error, HarnessError) or not isinstance(error, Exception):
            raise
        if address is None:
            raise ray_start.failed(ray_start.reason(error)) from None
        raise _unreachable(address, ray_start.reason(error)) from None


def _silence_threads_of_ray() -> None:
    """Have Ray's own threads end without a word: each prints a traceback when its processes are ended."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or not failed.thread.name.startswith("ray_"):
            before(failed)

    threading.excepthook = hook


def _returned() -> bool:
    return _thread is None or _thread.returned()


def disconnect(ray: Any) -> None:
    """Leave Ray; one that `connect` started stops."""
    ray.shutdown()
    if _thread is not None:
        _thread.release()


def places(nodes: Iterable[Mapping[str, Any]], kind: str, threads: int, workers_per_gpu: int) -> int:
    """For how many workers these nodes have devices of a kind: none is spread over two."""
    has = [node["Resources"].get(kind, 0) for node in nodes]
    return sum(int(amount) * workers_per_gpu if kind == "GPU" else int(amount // threads) for amount in has)


def refuse_too_many(workers: int | None, devices: int, number: float, kind: str, threads: int) -> None:
    """Raise HarnessError where so many workers are asked for of a machine whose `number` of a kind has places for fewer
    (`places`), or for none.
    """
    if devices < 1 or (workers or 1) > devices:
        what = "GPUs" if kind == "GPU" else f"cores at {count_noun(threads, 'thread')} a worker"
        raise HarnessError(
            f"cannot run {count_noun(workers or 1, 'worker')} on {int(number)} {what}"
            + (f": at most {devices}" if devices > 0 else ""),
            fix="Lower --workers or --threads",
        )


def refuse_before_start(workers: int | None, threads: int) -> None:
    """Raise HarnessError for more workers than this machine's cores have places for, before Ray takes seconds to start.

    Where there are GPUs Ray counts those that it may use, once it has started.
    """
    from ray._private.accelerators import get_accelerator_manager_for_resource

    gpus = get_accelerator_manager_for_resource("GPU")
    if gpus is None or not gpus.get_current_node_num_accelerators():
        cores = machine.detect_hardware().cores
        refuse_too_many(workers, places([{"Resources": {"CPU": cores}}], "CPU", threads, 1), cores, "CPU", threads)


def target_worker_count(devices: int, wanted: int | None, kind: str, address: str | None) -> int:
    """How many workers are to be there: as asked, else one a device, of this machine's cores as many as its memory
    holds beside what they train, one at least.
    """
    if wanted is None and address is None and kind == "CPU":
        devices = max(1, min(devices, machine.detect_hardware().memory // _WORKER_BYTES))
    return min(devices, wanted or devices)


class Shipping:
    """What trials need of the driver's disk, put into Ray's object store once a sweep; nothing on one machine."""

    def __init__(self, address: str | None) -> None:
        """Ship to the cluster at an address; None: this machine's own."""
        self.address = address
        self.shipped: dict[Spec, tuple[str, Any] | None] = {}  # hash and object; None: nothing to ship

    def of(self, trials: Sequence[Trial]) -> Shipped:
        """What these trials need."""
        if self.address is None:
            return {}
        import ray

        specs = dict.fromkeys(spec for trial in trials if trial.script is None for spec in trial.recipe.specs)
        for spec in specs:
            if spec not in self.shipped:
                files = shipping.files(spec)
                self.shipped[spec] = None if files is None else (shipping.sha256(files), ray.put(files))
        return {spec: held for spec in specs if (held := self.shipped[spec]) is not None}
