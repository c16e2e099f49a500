"""What a script's result was made by: its repository's commit and changes, and the packages of its Python."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

from harness.config.script import Script

_PACKAGES = (
    "import importlib.metadata as m, sys; print(sys.version.split()[0]); "
    "print('\\n'.join(sorted({f'{d.name}=={d.version}' for d in m.distributions() if d.name})))"
)


class Provenance(TypedDict):
    """The fields of a `ScriptRun` that say what it was made by; None where not known."""

    commit: str | None
    dirty_diff_sha256: str | None
    python: str | None
    packages_sha256: str | None


def of(script: Script, words: list[str]) -> Provenance:
    """What a script's results are made by, as it is now."""
    commit, dirty = _repository(script.cwd or ".", script.inputs)
    python, packages = _packages(words[0])
    return Provenance(commit=commit, dirty_diff_sha256=dirty, python=python, packages_sha256=packages)


@lru_cache(maxsize=8)
def _repository(folder: str, inputs: object) -> tuple[str | None, str | None]:
    """The commit of the folder's repository and a hash of its uncommitted changes; None where there is none."""

    def git(*words: str) -> bytes | None:
        try:
            output = subprocess.run(["git", "-C", folder, *words], capture_output=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return output.stdout if output.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return None, None
    changed = git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-color", "--", ".") or b""
    return head.decode().strip(), hashlib.sha256(changed).hexdigest() if changed else None


@lru_cache(maxsize=8)
def _packages(program: str) -> tuple[str | None, str | None]:
    """The version of a Python and a hash of its installed packages; None where the program is no Python."""
    path = shutil.which(program)
    if path is None or not Path(program).name.startswith("python"):
        return None, None
    try:
        output = subprocess.run([path, "-c", _PACKAGES], capture_output=True, check=False, timeout=60, env=_plain())
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    if output.returncode != 0:
        return None, None
    version, _, listed = output.stdout.partition(b"\n")
    return version.decode(errors="replace").strip(), hashlib.sha256(listed).hexdigest()


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONSTARTUP"}
