"""Calls a Python function for one run: `python -m harness.scripts.function module:function folder`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARGUMENTS, REPORTS = "arguments.json", "reports.jsonl"


class Report:
    """What a function calls to say how it stands: `report(step, loss=…, score=…)`."""

    def __init__(self, path: Path) -> None:
        """Write lines of JSON into `path`."""
        self._path = path

    def __call__(self, step: float, **metrics: float) -> None:
        """Note some metrics at a step."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **{name: float(value) for name, value in metrics.items()}}) + "\n")


def call(function: Callable[..., Any], folder: Path) -> None:
    """Call the function with what stands in the folder, and write its score there."""
    given = json.loads((folder / ARGUMENTS).read_text(encoding="utf-8"))
    offered = {**given["arguments"], "seed": given["seed"], "out": str(folder), "report": Report(folder / REPORTS)}
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        arguments = offered
    else:
        unknown = [name for name in given["arguments"] if name not in parameters]
        if unknown:
            raise TypeError(f"the function takes no {', '.join(unknown)}")
        arguments = {name: value for name, value in offered.items() if name in parameters}
    score = function(**arguments)
    if score is None and (folder / given["file"]).exists():
        return  # it wrote its score itself
    content = score if isinstance(score, dict) else {given["key"]: None if score is None else float(score)}
    (folder / given["file"]).write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """The command."""
    name, folder = sys.argv[1:3]
    sys.path.insert(0, os.getcwd())
    module, _, function = name.partition(":")
    if module.endswith(".pkl"):  # that `harness.study` wrote of a function in no module
        with open(module, "rb") as stream:
            called = pickle.load(stream)
    else:
        called = getattr(importlib.import_module(module), function)
    call(called, Path(folder))


if __name__ == "__main__":
    main()
