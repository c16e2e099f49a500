"""The versions that the tests ran with, of what decides a result's bits and stands in every record."""

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping

# `locks/` pins these, and `make newest` tries what came after them.
TESTED: Mapping[str, str] = {"python": "3.11", "torch": "2.13.0", "transformers": "5.24.0"}


def installed() -> dict[str, str]:
    """The versions of this process, as a record names them; nothing is imported for it."""
    packages = {name: importlib.metadata.version(name) for name in TESTED if name != "python"}
    return {"python": platform.python_version(), **packages}


def untested(versions: Mapping[str, str]) -> dict[str, str]:
    """Those of a record's or process's versions that the tests did not run with; a script's record names none."""
    return {
        name: versions[name]
        for name, of in TESTED.items()
        if versions.get("torch") and not _same(name, versions[name], of)
    }


def _same(name: str, version: str, of: str) -> bool:
    """Whether a version is the tested one: of Python whatever its patch, of torch whatever its build (`+cpu`)."""
    public, of = version.partition("+")[0], of.partition("+")[0]
    return public == of or (name == "python" and public.startswith(f"{of}."))


def warning(versions: Mapping[str, str]) -> str | None:
    """What to say once of the versions that train; None where the tests ran with them."""
    others = untested(versions)
    if not others:
        return None
    return (
        f"Not tested with {_listed(others)} (tested with {_listed({name: TESTED[name] for name in others})}): "
        "last bits may differ from other machines' records, and more may be wrong."
    )


def record_note(trained_with: Iterable[Mapping[str, str]]) -> str | None:
    """How many records were trained with other versions than the tested ones, and with which; None where none was."""
    counts: dict[str, int] = {}
    for versions in trained_with:
        if others := untested(versions):
            counts[_listed(others)] = counts.get(_listed(others), 0) + 1
    if not counts:
        return None
    counted = ", ".join(f"{number} with {others}" for others, number in sorted(counts.items()))
    return f"{counted}; tested with {_listed(TESTED)}"


def _listed(versions: Mapping[str, str]) -> str:
    names = {"python": "Python"}
    return ", ".join(f"{names.get(name, name)} {version}" for name, version in versions.items())
