"""A study of a Python function: its sweep file, written for it, and the function itself where nobody can import it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.common.errors import HarnessError
from harness.common.files import write
from harness.config import script_file, sweep_file
from harness.execution.loaded_sweep import LoadedSweep

FOLDER = "harness_studies"  # where sweep files and functions are written, in the working directory
_GIVEN = ("seed", "out", "report")  # what a function may take beside its axes


def study(
    function: Callable[..., Any], *, seeds: Iterable[int] | str | Mapping[str, object], name: str | None = None,
    **settings: object,
) -> LoadedSweep:  # fmt: skip
    """A sweep of a Python function, to be run by `harness.run`; nothing is run yet.

    The function is called in a process of its own for each value of the axes and each seed, with those of `seed`, `out`
    (a folder) and `report` (`report(step, loss=…, score=…)`) that it takes. It returns the score, or a dictionary with
    `score` and further metrics. A sweep file is written to `harness_studies/`, so that all commands know the study.

    Args:
        function: What is run; one that no module has, as a notebook's, is written beside the sweep file.
        seeds: The seeds, as `range(1, 11)`, `"1..10"`, or a rule as a sweep file has it.
        name: What the sweep is called; None: as the function.
        settings: The axes (lists), fixed arguments (single values), and keys of the sweep file of a script, as
            `majority=0.5`, `better="lower"`, `title="…"`, `resources={"gpus": 1}`.

    Raises:
        HarnessError: The function does not take an axis, or the study is no sweep.
    """
    name = name or function.__name__
    keys = (*script_file.KEYS, *sweep_file.OF_SCRIPTS)
    _check_parameters(function, [key for key in settings if key not in keys])
    content = {"title": name, "function": _reference(function), "seeds": _plain(seeds), **_all_plain(settings)}
    path = Path(FOLDER) / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    sweep = sweep_file.load(path)
    return LoadedSweep(sweep, "the only one", str(path))


def _check_parameters(function: Callable[..., Any], axes: list[str]) -> None:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for axis in axes:
        if axis not in parameters:
            raise HarnessError(
                f"{function.__name__} takes no {axis}", allowed=", ".join(parameters), fix="Add it to the function"
            )
    given = (*axes, *_GIVEN)
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in given:
            raise HarnessError(
                f"{function.__name__} needs {parameter.name}, which is neither an axis nor given",
                fix=f"Add {parameter.name}=[values], or give it a default",
            )


def _reference(function: Callable[..., Any]) -> str:
    """`module:function`; of one that can't be imported, the file that it is written to."""
    module, name = function.__module__, function.__qualname__
    if module != "__main__" and "." not in name and importlib.util.find_spec(module) is not None:
        return f"{module}:{name}"
    pickling = importlib.import_module("cloudpickle" if importlib.util.find_spec("cloudpickle") else "ray.cloudpickle")
    try:
        source = inspect.getsource(function).encode()
    except (OSError, TypeError):
        source = function.__code__.co_code
    path = Path(FOLDER) / f"{function.__name__}-{hashlib.sha256(source).hexdigest()[:8]}.pkl"
    path.parent.mkdir(exist_ok=True)
    write(path, pickling.dumps(function))
    return f"{path.as_posix()}:{function.__name__}"


def _all_plain(settings: Mapping[str, object]) -> dict[str, object]:
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: object) -> Any:
    """What JSON has a form for: lists for ranges and arrays, plain numbers for numpy's."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Mapping):
        return _all_plain(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, Iterable) else value
