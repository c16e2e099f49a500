"""Run a notebook's cells and take up their outputs, without Jupyter: for the tests and for the committed outputs.

`python docs/notebook.py docs/tutorial/notebook.ipynb` runs the cells in an empty folder and writes the outputs into the
file. What a cell shows is what Jupyter would show: what is printed, and the value of the last line by its
`_repr_html_`, as a picture for a figure, else as text.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells, run in their order in the current folder.

    Args:
        notebook: its JSON, in the format of version 4.

    Raises:
        Exception: what a cell raises, with the cell's number.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            try:
                outputs = run_cell("".join(cell["source"]), namespace)
            except Exception as error:
                error.add_note(f"in code cell {number} of the notebook")
                raise
            cell = cell | {"outputs": outputs, "execution_count": number}
        cells.append(cell)
    return notebook | {"cells": cells}


def run_cell(source: str, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the lines of one cell and give its outputs."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) and not source.rstrip().endswith(";") else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), namespace)
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    outputs = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        outputs.append({"output_type": "display_data", "data": shown(value), "metadata": {}})
    return outputs


def shown(value: Any) -> dict[str, Any]:
    """A value by its media types."""
    from matplotlib.figure import Figure

    if isinstance(value, Figure):
        picture = io.BytesIO()
        value.savefig(picture, format="png", dpi=72, metadata={"Software": None})
        return {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": lines(repr(value))}
    html = getattr(value, "_repr_html_", lambda: None)()
    return ({} if html is None else {"text/html": lines(html)}) | {"text/plain": lines(repr(value))}


def lines(text: str) -> list[str]:
    """A text as notebooks keep it, without the addresses of objects, which differ every time."""
    return re.sub(r" at 0x[0-9a-f]+", "", text).splitlines(keepends=True)


def main(path: Path) -> None:
    """Run a notebook in an empty folder and write its outputs into the file."""
    before, path = Path.cwd(), path.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            done = run(json.loads(path.read_text()))
        finally:
            os.chdir(before)
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
