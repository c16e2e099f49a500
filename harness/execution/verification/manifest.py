"""A seal on a results folder: the hashes of its files in `MANIFEST.json`, and one hash of them all for a paper.

Whoever has the folder and the printed hash can tell that not a byte of plan, records, arrays and models is another than
when it was sealed. What reports, reruns and running sweeps write beside them is left out: it is made from the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import file_sha256, read_regular, write
from harness.common.text import is_unicode
from harness.execution.verification.folder import Finding
from harness.records import reruns
from harness.records.reading import MOST_ARRAY_BYTES, MOST_PLAN_BYTES, explain, one_line
from harness.records.store import HEARTBEAT, Store

NAME = "MANIFEST.json"
SHORTEST = 16  # hex digits of a hash that are taken for it: 64 bits
_SHOWN = 1000  # files that are gone, each by its name
_LEFT_OUT = ("report", "checkpoints", "runs", NAME, HEARTBEAT, reruns.NAME)
_PIECE = 2**22


class Manifest(BaseModel):
    """The hashes of a sealed folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    sweep: str = Field(description="the name of the folder's sweep with its profile")
    plan_sha256: str = Field(description="of plan.json")
    files: dict[str, str] = Field(description="SHA-256 of every file, by its path in the folder")

    @property
    def sha256(self) -> str:
        """The hash of the manifest: of its content in one order, so that the same folder has the same one."""
        content = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Sealed:
    """A manifest as it was written."""

    path: Path
    manifest: Manifest


def seal(store: Store, sweep: str) -> Sealed:
    """Hash a results folder and write its manifest, in place of one that is there.

    Raises HarnessError while a sweep trains there, and for a folder without a plan or with anything but regular files.
    """
    with store.locked():
        manifest = _manifest_of(store, sweep)
        path = store.folder / NAME
        try:
            write(path, (manifest.model_dump_json(indent=1) + "\n").encode())
        except OSError as error:
            raise HarnessError(f"cannot write {path}: {describe_os_error(error)}", fix="Make room") from None
    return Sealed(path, manifest)


def check(store: Store, printed: str | None) -> tuple[list[Finding], list[Finding]]:
    """(problems, notes) of a folder against its manifest; nothing where it has none and none is asked for.

    Args:
        store: The results folder.
        printed: The hash that was printed when it was sealed, or how it begins; None: whatever the manifest says holds.
    """
    try:
        content = read_regular(store.folder / NAME, MOST_PLAN_BYTES)
        manifest = Manifest.model_validate_json(content)
    except FileNotFoundError:
        return ([] if printed is None else [_finding("there is none")]), []
    except OSError as error:
        return [_finding(f"it can't be read: {describe_os_error(error)}")], []
    except ValidationError as error:
        return [_finding(explain(error))], []
    if printed is not None and not manifest.sha256.startswith(printed.lower()):
        return [_finding(f"its hash is {manifest.sha256}, not {printed.lower()}")], []
    problems: list[Finding] = []
    notes: list[Finding] = []
    there = set(_files(store.folder))
    gone = sorted(set(manifest.files) - there)
    problems += (Finding(None, one_line(name), "sealed", "gone since the folder was sealed") for name in gone[:_SHOWN])
    if len(gone) > _SHOWN:
        problems.append(_finding(f"{len(gone) - _SHOWN} more files are gone since the folder was sealed"))
    for name in sorted(there):
        sealed = manifest.files.get(name)
        if sealed is None:
            found = Finding(None, one_line(name), "sealed", "added since the folder was sealed")
            (notes if printed is None else problems).append(found)
            continue
        digest = _sha256(store.folder, name)
        if digest != sealed:
            problems.append(Finding(None, one_line(name), "sealed", "changed since the folder was sealed"))
    return problems, notes


def read_printed(text: str) -> str:
    """A hash as a paper prints it; raises HarnessError for what is none."""
    printed = text.strip().lower().removeprefix("sha256:")
    if not SHORTEST <= len(printed) <= 64 or set(printed) - set("0123456789abcdef"):
        raise HarnessError(
            "--manifest must be the hash that `harness seal` printed", got=f"'{text[:80]}'",
            allowed=f"{SHORTEST} to 64 hexadecimal digits",
        )  # fmt: skip
    return printed


def _finding(words: str) -> Finding:
    return Finding(None, NAME, "manifest", one_line(words))


def _manifest_of(store: Store, sweep: str) -> Manifest:
    files: dict[str, str] = {}
    for name in _files(store.folder):
        if not is_unicode(name):
            raise HarnessError(
                f"cannot seal {store.folder}: the name of {one_line(name)} is no UTF-8", fix="Rename it, or remove it"
            )
        digest = _sha256(store.folder, name)
        if digest is None:
            raise HarnessError(
                f"cannot seal {store.folder}: {one_line(name)} is not a regular file that can be read, or too large",
                fix="Remove it, or put the file there instead of a link",
            )
        files[name] = digest
    if "plan.json" not in files:
        raise HarnessError(f"cannot seal {store.folder}: there is no plan.json", fix="Name a results folder")
    return Manifest(sweep=sweep, plan_sha256=files["plan.json"], files=files)


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files in a folder that a seal covers; hidden ones are a writer's own.

    A folder that can't be listed, such as one too deep for its path, stands for what is in it.
    """
    waiting = [""]
    while waiting:
        before = waiting.pop()
        try:
            with os.scandir(folder / before) as listed:
                entries = list(listed)
        except OSError:
            if not before:
                raise
            yield before.rstrip("/")
            continue
        for entry in entries:
            name = f"{before}{entry.name}"
            if entry.name.startswith(".") or name in _LEFT_OUT:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{name}/")
            else:
                yield name


def _sha256(folder: Path, name: str) -> str | None:
    """The hash of a file of the folder; None where it is gone, is no regular file, or is larger than any trial's."""
    try:
        size = os.lstat(folder / name).st_size
        if size <= _PIECE:
            return hashlib.sha256(read_regular(folder / name, _PIECE)).hexdigest()
        if size > MOST_ARRAY_BYTES and name.startswith("trials/"):
            return None
        return file_sha256(folder / name)
    except (OSError, ValueError):
        return None
