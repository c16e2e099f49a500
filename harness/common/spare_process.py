"""A second process that has imported what it needs by the time it is asked for an answer.

A report after a sweep is the case: this process waits while others train, and can't be forked afterwards (`forked`),
as Ray is in it; a fresh one can, and its imports take their seconds while the last packs train.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

_SERVE = "import sys; from harness.common.spare_process import serve; serve(sys.argv[1])"


class SpareProcess:
    """A context that ends the process; used without `start`, it computes here."""

    def __init__(self, module: str) -> None:
        """Name the module that the process imports when it is started."""
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, which imports its module and waits; a second call does nothing."""
        if self._process is not None:
            return
        here = str(Path(__file__).parents[2])  # this code, whatever lies in the working directory
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        with suppress(OSError):  # no memory, no more processes
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE, self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is this process's to handle
            )

    def call(self, function: str, *arguments: object) -> Any:
        """What a function of the module gives for these arguments, which can be pickled as its result can.

        It is computed here where that process can't, so that what it raises is raised here.
        """
        process = self._process
        if process is not None and process.stdin is not None and process.stdout is not None:
            with suppress(OSError, EOFError, pickle.UnpicklingError):
                process.stdin.write(pickle.dumps((function, arguments)))
                process.stdin.close()
                return pickle.load(process.stdout)
        return getattr(importlib.import_module(self._module), function)(*arguments)

    def __enter__(self) -> SpareProcess:
        """Nothing is started yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process, whatever it does."""
        if self._process is None:
            return
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._process.wait()


def serve(module: str) -> None:
    """Import a module, then answer one call that comes over standard input; without an answer where it raises."""
    imported = importlib.import_module(module)
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what is printed must not stand in the answer
        with suppress(Exception):  # it is raised where the process that asks computes it
            function, arguments = pickle.load(sys.stdin.buffer)
            answers.write(pickle.dumps(getattr(imported, function)(*arguments)))
