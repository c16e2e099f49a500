"""How an optional part of the package is installed, in words that work from where the package came from."""

from __future__ import annotations

import json
import os
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "stability-harness"


def install_command(extra: str) -> str:
    """The command that installs an extra: of a checkout by its folder, else by the address that it came from.

    `pip install 'stability-harness[serve]'` where it came from a package index.
    """
    origin = _origin()
    if origin is None:
        return f"pip install '{NAME}[{extra}]'"
    if isinstance(origin, Path):
        folder = "." if origin == Path.cwd() else str(origin)
        return f"pip install -e {shlex.quote(f'{folder}[{extra}]')}"
    return f"pip install {shlex.quote(f'{NAME}[{extra}] @ {origin}')}"


def _origin() -> Path | str | None:
    """The checkout's folder, the address of what was installed, or None of an index."""
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return root
    try:
        text = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    if text is None:
        return None
    told = json.loads(text)
    address = str(told["url"])
    if told.get("dir_info", {}).get("editable"):
        return Path(unquote(urlsplit(address).path))
    kind, commit = (told.get("vcs_info", {}).get(name) for name in ("vcs", "commit_id"))
    return f"{kind}+{address}@{commit}" if kind and commit else os.fspath(address)
