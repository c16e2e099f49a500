"""What a sweep waits for before it trains: it is said, has an end, and a stop ends it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common import watchdog
from harness.common.errors import HarnessError
from harness.execution import held_signals, ray_cluster, ray_start, start_up
from harness.execution.interrupts import Stop, Terminated, TimeUp
from harness.execution.start_up import HeldThread, StartUp


def test_a_line_says_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up, "_FIRST_LINE", 0.05)
    lines: list[str] = []
    with StartUp(lines.append).waiting_for("Ray to start", ", --in-process trains without it"):
        time.sleep(0.3)
    assert 2 <= len(lines) <= 3  # after 0.05 s and 0.15 s, and not again so soon
    assert lines[0] == "waiting for Ray to start (less than 1 s so far, --in-process trains without it)"
    with StartUp(lines.clear).waiting_for("nothing"):  # type: ignore[arg-type]
        pass
    assert lines


def test_what_is_not_there_in_time_is_given_up() -> None:
    with pytest.raises(HarnessError, match="late"):
        StartUp().until(lambda: False, 0.1, lambda: HarnessError("late"))
    StartUp().until(lambda: True, 0, lambda: HarnessError("late"))


def test_the_time_limit_and_a_stop_end_a_wait() -> None:
    def over() -> None:
        raise TimeUp

    with pytest.raises(TimeUp):
        StartUp(check=over).until(lambda: False, 60, lambda: HarnessError("late"))


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "Ctrl-C"]
)
def test_before_anything_trains_a_signal_leaves_at_once(number: int, kind: type[BaseException]) -> None:
    def told(stop: Stop) -> None:
        with stop.listening():
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(kind):
        told(stop := Stop(20))
    with stop.listening(), stop.training():
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.asked


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "Ctrl-C"]
)
def test_nothing_is_raised_in_a_model_that_loads_here_under_a_watchdog(
    number: int, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler's exception in torch's C++ code aborts the process; the watchdog ends it, or the end of loading."""
    loaded: list[bool] = []

    def told(stop: Stop, in_process: bool) -> None:
        with stop.listening(), stop.loading(in_process):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            loaded.append(in_process)

    for watches, in_process in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(watchdog.current(), "watches", watches)
        with pytest.raises(kind):
            told(Stop(20), in_process)
    assert loaded == [True]


def test_the_time_limit_raises_nothing_in_a_model_that_loads_here_under_a_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[bool] = []

    def told(stop: Stop, in_process: bool) -> None:
        with stop.listening(0.05), stop.loading(in_process, 0.05, "the time limit leaves 2 trials missing"):
            time.sleep(0.1)
            loaded.append(in_process)

    for watches, in_process in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(watchdog.current(), "watches", watches)
        with pytest.raises(TimeUp):
            told(Stop(20), in_process)
    assert loaded == [True]


def test_a_second_ctrl_c_raises_nothing_in_a_step_that_this_process_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor while records are written together; the look between two steps raises."""
    monkeypatch.setattr(watchdog.current(), "watches", True)
    steps: list[str] = []

    def told(stop: Stop) -> None:
        with stop.listening(), stop.training(in_process=True):
            for _ in range(2):
                stop.check()
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
                steps.append("made")
            stop.check()

    with pytest.raises(KeyboardInterrupt):
        told(Stop(20))
    assert steps == ["made", "made"]


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "Ctrl-C"]
)
@pytest.mark.parametrize("when", ["starting", "loading", "ending"])
def test_on_ray_a_signal_raises_nothing_and_the_next_look_does(
    number: int, kind: type[BaseException], when: str
) -> None:
    """Where it raised in Ray's C code, or in a callback whose exceptions Python only prints, it was lost or misread."""
    steps: list[str] = []

    def told(stop: Stop) -> None:
        def step(name: str) -> None:
            stop.check_start()
            if name == when:
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            steps.append(name)

        with stop.listening(polled=True):
            step("starting")
            with stop.loading(in_process=False):
                step("loading")
            with stop.training():
                steps.append("training")
            step("ending")

    with pytest.raises(kind) as raised:
        told(Stop(20))
    assert type(raised.value) is kind
    assert steps[-1] == when


def test_on_ray_a_second_ctrl_c_is_looked_at_between_two_looks_at_the_workers() -> None:
    steps: list[str] = []

    def told(stop: Stop) -> None:
        with stop.listening(polled=True), stop.training():
            for _ in range(3):
                stop.check()
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
                steps.append("looked")

    with pytest.raises(KeyboardInterrupt):
        told(Stop(20))
    assert steps == ["looked", "looked"]


def test_a_sigterm_that_c_code_makes_a_ctrl_c_of_stays_one() -> None:
    def told(stop: Stop) -> None:
        with stop.listening():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except Terminated:
                raise KeyboardInterrupt from None  # as `ray.wait` does

    with pytest.raises(Terminated):
        told(Stop(20))


def test_the_time_limit_leaves_what_loads_and_nothing_later() -> None:
    stop = Stop(20)
    with pytest.raises(TimeUp), stop.listening(0.05):
        time.sleep(5)
    with stop.listening(0.05), stop.training():
        time.sleep(0.1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_signals_that_something_else_took_are_taken_back() -> None:
    def taken(stop: Stop) -> None:
        with stop.listening():
            signal.signal(signal.SIGTERM, lambda number, frame: None)
            stop.take_back()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(Terminated):
        taken(Stop(20))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_thread_that_started_something_stays_until_it_is_released() -> None:
    def fails() -> None:
        raise OSError("no")

    thread = HeldThread(fails)
    thread.start()
    StartUp().until(thread.returned, 5, lambda: HarnessError("late"))
    assert (str(thread.error), thread.is_alive()) == ("no", True)
    thread.release()
    thread.join(5)
    assert not thread.is_alive()
    assert thread not in threading.enumerate()


# ------------------------------------------------------------------------------------------- why Ray does not start


def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


def home_that_is_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "some/where")


def home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))


def full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_start.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**18}))


def no_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))


def long_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (folder := tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))


def few_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3 * 10**9, 3 * 10**9))


def no_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def bind(self: socket.socket, address: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))


def few_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: "60000 60001" if "port_range" in str(path) else real(path))


@pytest.mark.parametrize(
    ("change", "problem", "fix"),
    [
        (no_home, r"user \d+ has no home folder, as HOME is not set", "Set HOME to a folder"),
        (home_that_is_relative, "as HOME is 'some/where', which is no absolute path", "Set HOME to a folder"),
        (home_that_cannot_be_written, r"the home folder .*/gone does not exist", "Set HOME to a folder"),
        (full_disk, r"temporary files \S+ has 0\.2 MiB left", "set RAY_TMPDIR"),
        (no_temporary_folder, r"the folder for temporary files \S+/gone does not exist", "Set RAY_TMPDIR"),
        (long_path, r"is longer than the \d+ bytes", "with a shorter path"),
        (few_addresses, r"2\.8 GiB of addresses here \(`ulimit -v`\)", "`ulimit -v unlimited`"),
        (no_ports, r"cannot connect to each other at 127\.0\.0\.1: address already in use", "see that ports are free"),
        (few_ports, r"gives out 2 ports \(60000 to 60001\)", "Widen the range"),
    ],
    ids=["home", "relative home", "home folder", "disk", "TMPDIR", "path", "ulimit", "ports", "port range"],
)
def test_what_ray_cannot_start_with_is_refused_in_the_users_terms(
    change: Callable[[pytest.MonkeyPatch, Path], None],
    problem: str,
    fix: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    ray_start.check_machine()
    change(monkeypatch, tmp_path)
    with pytest.raises(HarnessError, match=rf"^Ray cannot start: .*{problem}") as caught:
        ray_start.check_machine()
    assert fix in str(caught.value)
    assert str(caught.value).endswith("or train without Ray: --in-process.")


def test_a_start_that_fails_all_the_same_names_what_there_is_little_of(monkeypatch: pytest.MonkeyPatch) -> None:
    real = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (256, 256) if kind == resource.RLIMIT_NOFILE else real(kind)
    )
    error = Exception("The current node timed out during startup. This could happen because some of the raylet failed")
    text = str(ray_start.failed(ray_start.reason(error)))
    assert text.startswith("Ray cannot start: its processes did not come up within 30 s (")
    assert "256 open files a process (`ulimit -n`)" in text
    assert "--in-process" in text
    assert ray_start.reason(RuntimeError("")) == "RuntimeError"
    assert ray_start.reason(ValueError("one thing.\nand another")) == "one thing"


def terminate() -> None:
    """To this thread alone: torch's, which are of this process here, would take it else."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def test_a_sigterm_is_held_back_while_ray_starts_and_comes_once_it_is_taken_back() -> None:
    """What has put itself before the handler meanwhile does not get it; a process that is started does."""
    heard: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append("ours"))
    ours = signal.getsignal(signal.SIGTERM)

    def take_back() -> None:
        signal.signal(signal.SIGTERM, ours)

    try:
        with held_signals.held(take_back):
            signal.signal(signal.SIGTERM, lambda number, frame: heard.append("theirs"))
            assert not held_signals.waits()
            terminate()
            time.sleep(0.01)
            assert (held_signals.waits(), heard) == (True, [])
            blocked = subprocess.run(
                ["grep", "SigBlk", "/proc/self/status"], capture_output=True, text=True, check=True,
                preexec_fn=lambda: None,
            )  # fmt: skip
            assert not int(blocked.stdout.split()[1], 16) & 1 << (signal.SIGTERM - 1)
        time.sleep(0.01)
        assert heard == ["ours"]
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sigterm_while_ray_starts_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's threads, whose processes are ended, print no traceback, and others do."""
    ended: list[object] = []
    printed: list[str] = []
    monkeypatch.setattr(
        threading, "excepthook", lambda failed: printed.append(failed.thread.name if failed.thread else "")
    )
    monkeypatch.setattr(watchdog, "end_children", ended.append)

    class Ray:
        def init(self, **options: object) -> None:
            terminate()
            time.sleep(2)

    def told(stop: Stop) -> None:
        def check() -> None:
            stop.take_back()
            stop.check_start()

        with stop.listening(polled=True):
            ray_cluster.initialise(Ray(), None, {}, StartUp(check=check))

    began = time.monotonic()
    with pytest.raises(Terminated):
        told(Stop(20))
    assert time.monotonic() - began < 1.5
    assert ended
    for name in ("ray_listen_error_messages", "another"):
        thread = threading.Thread(target=lambda: 1 // 0, name=name)
        thread.start()
        thread.join()
    assert printed == ["another"]


def test_ray_is_quiet_about_workers_that_died_and_prints_the_rest_where_errors_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import worker

    assert callable(worker.print_to_stdstream)  # if it is gone, Ray prints by another name what belongs nowhere
    printed: list[dict[str, object]] = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: printed.append(data))
    for _ in range(2):
        ray_cluster.quiet_about_dead_workers()
    died = "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot …"
    for lines in ([died], ["No node has a GPU."]):
        worker.print_to_stdstream({"lines": lines, "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert printed == [{"lines": ["No node has a GPU."], "pid": "raylet", "is_err": True}]


def test_ray_waits_for_its_server_in_slices_that_python_runs_between(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import node

    waited: list[int] = []

    def usual(folder: str, node_id: str, port: str, timeout_ms: int = 30_000) -> int:
        waited.append(timeout_ms)
        if len(waited) < 3:
            raise RuntimeError(f"Timed out waiting for file {folder}/{port}")
        return 6379

    assert callable(node.wait_for_persisted_port)  # if it is gone, Ray waits by another name
    monkeypatch.setattr(node, "wait_for_persisted_port", usual)
    for _ in range(2):
        ray_cluster.wait_in_slices()
    assert node.wait_for_persisted_port("folder", "id", "port", timeout_ms=5000) == 6379
    assert waited == [100, 100, 100]
    waited.clear()
    with pytest.raises(RuntimeError, match="Timed out"):
        node.wait_for_persisted_port("folder", "id", "port", timeout_ms=0)
    assert waited == [100]
