"""Shared by the tests of saved models: the code of a documentation page that loads one, run on a model at hand."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import harness

HOW_TO = Path(harness.__file__).parents[1] / "docs" / "how-to"


def shown(page: str, folder: Path, **changes: str) -> str:
    """What the page's only block of ```py prints with `folder` for its own, and other parts changed: old -> new."""
    (text,) = re.findall(r"```py\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL)
    text, count = re.subn(r'"results/[^"]+/models/ID"', repr(str(folder)), text)
    assert count == 1
    for number in range(0, len(changes), 2):
        old, new = (changes[f"{kind}{number // 2}"] for kind in ("old", "new"))
        assert old in text
        text = text.replace(old, new)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, page, "exec"), {})
    return out.getvalue().strip()
