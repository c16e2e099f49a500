"""The command to begin with: write a sweep file to edit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from harness.cli.console import Console
from harness.common.errors import HarnessError
from harness.execution.lookup import SHIPPED, program

_TEMPLATE = Path(__file__).parent / "sweep_template.yaml"


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the new sweep is called.")] = "mine",
) -> None:
    """Write sweeps/NAME.yaml, a commented sweep that trains as it is, to put your own data and model into."""
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith((".yaml", ".yml")):
        raise HarnessError(
            "the name of a sweep must be letters, digits, '_', '-' and '.', such as reviews_lr",
            got=f"'{name}'",
            fix="Leave .yaml out: it is added" if name.endswith((".yaml", ".yml")) else None,
        )
    path = Path("sweeps") / f"{name}.yaml"
    if path.exists() or (SHIPPED / path.name).exists():
        raise HarnessError(
            f"{path} exists" if path.exists() else f"'{name}' is a shipped sweep", fix="Choose another name"
        )
    path.parent.mkdir(exist_ok=True)
    path.write_text(_TEMPLATE.read_text(encoding="utf-8").replace("NAME", name), encoding="utf-8")
    out = Console()
    out.print(Text(f"Wrote {path}: edit it, then"), soft_wrap=True)
    for command in ("plan", "sweep"):
        out.print(Text(f"  {program()} {command} {name}"), soft_wrap=True)
