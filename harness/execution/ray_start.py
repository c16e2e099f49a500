"""Why Ray can't start on this machine, in words that name the folder or the limit to change."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from pathlib import Path

from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import count_noun

SECONDS = 120.0  # that Ray has to start; 3 are usual
# What is known to be too little: for logs and sockets, and of addresses for its processes, which reserve more than they
# use.
_TEMPORARY_BYTES, _ADDRESS_BYTES = 16 * 2**20, 8 * 2**30
_PORTS = 100
_SOCKET_PATH = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
_INSTEAD = "or train without Ray: --in-process"
# What Ray says of itself, and what it is.
_REASONS = {
    "timed out during startup": "its processes did not come up within 30 s",
    "home directory": "this user has no home folder",
    "AF_UNIX path": "the path of the folder for temporary files is too long",
    "Cannot allocate memory": "there is not enough memory",
    "Resource temporarily unavailable": "no more processes can be started",
    "Too many open files": "no more files can be opened",
    "No space left on device": "a disk is full",
}


def temporary_folder() -> Path:
    """Where Ray keeps its sockets and logs."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def check_machine() -> None:
    """Raise HarnessError at once for what Ray takes a minute to fail of: home, temporary files, limits, ports."""
    _check_home()
    _check_temporary()
    _check_addresses()
    _check_loopback()
    _check_ports()


def _refused(problem: str, fix: str) -> HarnessError:
    return HarnessError(f"Ray cannot start: {problem}", fix=f"{fix}, {_INSTEAD}")


def _check_home() -> None:
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        why = "HOME is not set and the system does not know the user"
        if named := os.environ.get("HOME"):
            why = f"HOME is {named!r}, which is no absolute path"
        raise _refused(
            f"user {os.getuid()} has no home folder, as {why}", "Set HOME to a folder that this user can write to"
        )
    folder = home / ".ray" if (home / ".ray").exists() else home
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "can't be written to" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
        raise _refused(f"the home folder {folder} {why}", "Set HOME to a folder that this user can write to")


def _check_temporary() -> None:
    folder = temporary_folder()
    used = folder / "ray" if (folder / "ray").is_dir() else folder
    if not os.access(used, os.W_OK | os.X_OK):
        why = "can't be written to" if used.is_dir() else "does not exist"
        raise _refused(f"the folder for temporary files {used} {why}", "Set RAY_TMPDIR to another folder")
    try:
        free = shutil.disk_usage(used).free
    except OSError as error:
        raise _refused(f"{used}: {describe_os_error(error)}", "Set RAY_TMPDIR to another folder") from None
    if free < _TEMPORARY_BYTES:
        raise _refused(
            f"the disk of the folder for temporary files {used} has {free / 2**20:.1f} MiB left",
            "Make room there, or set RAY_TMPDIR to another folder",
        )
    if len(os.fsencode(folder.resolve())) > _SOCKET_PATH:
        raise _refused(
            f"the path of the folder for temporary files {folder} is longer than the {_SOCKET_PATH} bytes "
            "that sockets in it leave",
            "Set RAY_TMPDIR to a folder with a shorter path",
        )


def _check_addresses() -> None:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and most < _ADDRESS_BYTES:
        raise _refused(
            f"a process may have {most / 2**30:.1f} GiB of addresses here (`ulimit -v`), and Ray's take more",
            "Lift the limit with `ulimit -v unlimited`",
        )


def _check_loopback() -> None:
    """A connection of this process with itself, as Ray's have them with each other; and ports for all of theirs."""
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise _refused(
            f"processes of this machine cannot connect to each other at 127.0.0.1: {describe_os_error(error)}",
            "Bring the loopback interface up (`ip link set lo up`) and see that ports are free "
            "(`sysctl net.ipv4.ip_local_port_range`)",
        ) from None


def _check_ports() -> None:
    """A few dozen ports are taken by Ray's processes and their connections; with fewer it waits for minutes."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return
    if high - low + 1 < _PORTS:
        raise _refused(
            f"this machine gives out {count_noun(high - low + 1, 'port')} ({low} to {high}) for connections, and Ray's "
            f"processes take about {_PORTS}",
            "Widen the range (`sysctl net.ipv4.ip_local_port_range`)",
        )


def reason(error: BaseException) -> str:
    """What Ray's error means, or its first line."""
    text = str(error).strip() or type(error).__name__
    known = next((words for part, words in _REASONS.items() if part in text), None)
    return known or " ".join(text.splitlines()[0].split())[:200].rstrip(".")


def failed(why: str) -> HarnessError:
    """Ray did not start though nothing was seen to be in its way; what there is little of is named."""
    limits = [*_little()]
    listed = f" ({'; '.join(limits)})" if limits else ""
    fix = (
        "Raise what there is little of"
        if limits
        else f"See its logs in {temporary_folder() / 'ray/session_latest/logs'}"
    )
    return _refused(f"{why}{listed}", fix)


def _little() -> list[str]:
    """What this machine has little of, or limits."""
    limits = [
        (resource.RLIMIT_AS, 64 * 2**30, 2**30, "GiB of addresses a process (`ulimit -v`)"),
        (resource.RLIMIT_NPROC, 4096, 1, "processes and threads (`ulimit -u`)"),
        (resource.RLIMIT_NOFILE, 1024, 1, "open files a process (`ulimit -n`)"),
        (resource.RLIMIT_FSIZE, 2**30, 2**20, "MiB a file (`ulimit -f`)"),
    ]
    words = []
    for kind, enough, unit, name in limits:
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY and most < enough:
            words.append(f"{most / unit:.3g} {name}")
    for folder in (temporary_folder(), Path("/dev/shm")):
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        if free < 2**28:
            words.append(f"{free / 2**20:.0f} MiB free in {folder}")
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return [*words, f"{memory / 2**20:.0f} MiB of memory free"] if memory < 2**29 else words
