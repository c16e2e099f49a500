"""The Hugging Face hub, and what to say when it can't be reached: found out once, in two seconds and not in 46."""

import functools
import json
import os
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from harness.common.errors import HarnessError

Kind = Literal["model", "dataset"]


class Pretrained(Protocol):
    """A pretrained network as a recipe names it: `name` on the hub or `embedded`, and a local folder of its files."""

    @property
    def name(self) -> str:
        """The hub's name, or `embedded`."""

    @property
    def folder(self) -> str | None:
        """Where its files lie on this machine, if not in the hub's cache."""


SHIPPED = {"embedded": "model", "embedded-decoder": "decoder"}  # models by name, and their folders
_DEFAULT_ENDPOINT = "https://huggingface.co"
_TRUE = {"1", "ON", "YES", "TRUE"}  # what huggingface_hub takes for true
_OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # huggingface_hub reads both


def reachable(timeout: float = 2.0) -> bool:
    """Say whether the hub, or the proxy on the way to it, takes a TCP connection within `timeout` seconds.

    False without any try where HF_HUB_OFFLINE says so. The answer is kept for the life of the process; HF_ENDPOINT,
    HTTPS_PROXY and NO_PROXY are heeded.
    """
    if any(os.environ.get(name, "").upper() in _TRUE for name in _OFFLINE_SWITCHES):
        return False
    return _answers(*_first_hop(), timeout)


def prepare() -> bool:
    """Switch transformers and datasets to their caches where the hub can't be reached; give what `reachable` gives.

    To be called before either is imported, since they read the switch then; where they have been, what they read is
    set as well. Processes started afterwards inherit it.
    """
    if reachable():
        return True
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    # transformers asks huggingface_hub (is_offline_mode); datasets copies the constant at its import.
    for module, names in (
        ("huggingface_hub.constants", ("HF_HUB_OFFLINE",)),
        ("datasets.config", ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")),
    ):
        if module in sys.modules:
            for name in names:
                setattr(sys.modules[module], name, True)
    return False


def cached(kind: Kind, name: str) -> bool:
    """Say whether any snapshot of a model or dataset (`name` as on the hub, `org/name`) lies in this machine's cache.

    A dataset counts as well where `datasets` has prepared it, which is what it reads offline. Which files or
    configurations there are is not checked: loading tells.
    """
    # is_file is false for a link whose blob is gone
    if any(path.is_file() for path in (_cache_of(kind, name) / "snapshots").glob("*/**/*")):
        return True
    prepared = _folder("HF_DATASETS_CACHE", default=_home() / "datasets") / name.replace("/", "___")
    return kind == "dataset" and any(path.is_dir() for path in prepared.glob("*/*/*"))


def _home() -> Path:
    return _folder("HF_HOME", default=_folder("XDG_CACHE_HOME", default=Path("~/.cache")) / "huggingface")


def _cache_of(kind: Kind, name: str) -> Path:
    hub_cache = _folder("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", default=_home() / "hub")
    return hub_cache / f"{kind}s--{name.replace('/', '--')}"


def missing(kind: Kind, name: str, key: str | None = None, reason: str = "the hub can't be reached") -> HarnessError:
    """Make the error for a model or dataset that is neither cached nor to be had.

    `name` may end in a configuration's, "org/name part". `key` is what --set points at local files with: model.folder
    or task.files where it is not given.
    """
    key = key or {"model": "model.folder", "dataset": "task.files"}[kind]
    state = "it is incomplete" if cached(kind, name.split(" ")[0]) else "it is not"
    return HarnessError(
        f"cannot find the {kind} '{name}': {state} in this machine's cache, and {reason}",
        fix=f"Use local files with --set {key}=DIR, or a machine that reaches the hub",
    )


def _folder(*variables: str, default: Path) -> Path:
    """The folder that the first of these variables names, with ~ and $VARIABLES filled in as huggingface_hub does."""
    for variable in variables:
        if value := os.environ.get(variable):
            return Path(os.path.expanduser(os.path.expandvars(value)))
    return Path(os.path.expanduser(default))


def _first_hop() -> tuple[str, int]:
    """Host and port of the first machine on the way to the hub: a proxy, or the hub itself."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(endpoint.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(endpoint.hostname or ""):
        endpoint = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    try:
        port = endpoint.port
    except ValueError:  # no number: nothing can listen there
        port = 0
    return endpoint.hostname or "", (443 if endpoint.scheme == "https" else 80) if port is None else port


@functools.cache
def _answers(host: str, port: int, timeout: float) -> bool:
    """Try to connect, in a thread that is left behind when time is up: a name look-up can't be given a limit."""
    answered: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
        except (OSError, ValueError, OverflowError):  # a name that is no name, a port out of range
            return
        answered.append(True)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(answered)


def is_shipped(spec: Pretrained) -> bool:
    """Whether a model is one that the harness brings."""
    return spec.folder is None and spec.name in SHIPPED


def location(spec: Pretrained) -> str:
    """Give what `from_pretrained` is called with: the shipped folder, a local folder or the hub's name."""
    if is_shipped(spec):
        return str(Path(__file__).parents[1] / "data" / "embedded" / SHIPPED[spec.name])
    return str(Path(spec.folder).expanduser()) if spec.folder else spec.name


def folder_of(spec: Pretrained) -> Path | None:
    """Give the folder that a model's files are read from, of the hub's in the cache; None where there is none."""
    folder = Path(location(spec))
    if spec.folder is None and not is_shipped(spec):
        cache = _cache_of("model", spec.name)
        try:
            folder = cache / "snapshots" / (cache / "refs" / "main").read_text().strip()
        except (OSError, ValueError):
            return None
    return folder if folder.is_dir() else None


_trusted = False


def trust_remote_code(trusted: bool) -> None:
    """Let models bring Python code of their own, or not: in this process, until told otherwise.

    A person alone says so, on the command line: a sweep file may come from a stranger.
    """
    global _trusted
    _trusted = trusted


def trusts_remote_code() -> bool:
    """Say whether models may bring Python code of their own."""
    return _trusted


def custom_code(spec: Pretrained) -> HarnessError:
    """Make the error for a model with code of its own where that is not trusted."""
    return HarnessError(
        f"{location(spec)} brings Python code of its own (auto_map), which is not trusted",
        fix="Read its .py files, then add --trust-remote-code, or use another model",
    )


def _brings_code(folder: Path) -> bool:
    """Whether a model folder names classes of its own; what is no JSON is said when it is loaded."""
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():  # a FIFO would be waited for, and transformers reads none
            continue
        try:
            config = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(config, dict) and config.get("auto_map"):
            return True
    return False


def check_model(spec: Pretrained, key: str = "model.folder") -> None:
    """Raise HarnessError within seconds when the model's files can't be had or bring code that is not trusted.

    Of a model on the hub that is told when it is loaded. `key` is what --set points at a folder with.
    """
    if spec.folder is None and not is_shipped(spec):
        if not cached("model", spec.name) and not reachable():
            raise missing("model", spec.name, key)
    elif not (Path(location(spec)) / "config.json").is_file():
        raise HarnessError(
            f"{location(spec)} is not a model folder: it has no config.json",
            fix=f"Name a folder that save_pretrained has written, with --set {key}=DIR",
        )
    elif not _trusted and _brings_code(Path(location(spec))):
        raise custom_code(spec)
