"""Write the pages of the documentation to a folder: those beside this file, and the reference, made from the code.

`python docs/build.py build/docs`, then `mkdocs build -f docs/mkdocs.yml`; `make docs` does both. The reference is never
committed: keys, commands, the API, records, tables and the glossary are what the code says today.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import shutil
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def build(folder: Path) -> None:
    """Write all pages into `folder`, which is replaced.

    Args:
        folder: where mkdocs reads them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for page in sorted(HERE.rglob("*.md")):
        target = folder / page.relative_to(HERE)
        write(target, with_pictures(page.read_text(), folder, depth=len(page.relative_to(HERE).parts) - 1))
    for notebook in sorted(HERE.rglob("*.ipynb")):
        write(folder / notebook.relative_to(HERE).with_suffix(".md"), notebook_page(json.loads(notebook.read_text())))
    for name, page_of in GENERATED.items():
        write(folder / name, page_of())


def write(path: Path, text: str) -> None:
    """Write one page, with the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def with_pictures(text: str, folder: Path, depth: int) -> str:
    """A page whose links to pictures of the repository point at copies under `folder`/pictures.

    Args:
        text: the page as it stands in the repository.
        folder: the root of all pages.
        depth: how many folders below it the page lies.
    """

    def copied(match: re.Match[str]) -> str:
        picture = ROOT / match[1]
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / "pictures" / picture.name)
        return f"]({'../' * depth}pictures/{picture.name})"

    return re.sub(r"\]\((?:\.\./)+(results/[^)]+\.png)\)", copied, text)


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown: cells in their order, with their outputs."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [text for output in cell["outputs"] if (text := _output(output))]
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="output" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:  # no blank line: Markdown would take up again after it
        return re.sub(r"\n\s*\n", "\n", f"<div>{''.join(data['text/html'])}</div>")
    text = "".join(output.get("text", "")) or "".join(data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


# ---------------------------------------------------------------------------------------------------------- Markdown


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells are Markdown, on one line. A bar within a span of code parts no cells."""

    def line(cells: list[str]) -> str:
        parts = [re.sub(r"(`[^`]*`)|\\|", lambda found: found[1] or "\\|", cell) for cell in cells]
        return "| " + " | ".join(" ".join(part.split()) for part in parts) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])


def code(text: str) -> str:
    """A span of code, empty for no text."""
    return f"`{text}`" if text else ""


_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Source|Example):\s*(.*)")


def docstring(text: str | None) -> str:
    """A docstring as Markdown: `Args:` and its like as bold lines with lists."""
    lines: list[str] = []
    inside = False
    for line in inspect.cleandoc(text or "").splitlines():
        section = _SECTION.fullmatch(line)
        item = re.fullmatch(r"    (\*{0,2}\w+)( \(.*?\))?: (.*)", line) if inside else None
        if section:
            inside = section[1] in ("Args", "Attributes", "Raises")
            lines += [f"**{section[1]}:** {section[2]}".rstrip(), ""]
        elif item:
            lines.append(f"- `{item[1]}`{item[2] or ''}: {item[3]}")
        else:
            lines.append(f"    {line.strip()}" if inside and line.strip() else line.strip())
            inside = inside and (not line.strip() or line.startswith("    "))
    return "\n".join(lines).strip()


# --------------------------------------------------------------------------------------------------------- the pages


def sweep_file() -> str:
    """The keys of a sweep file."""
    from harness.config.keys import all_keys

    keys = all_keys()
    described = any(getattr(key, "description", "") for key in keys)
    header = ["key", "default", "takes", *(["what it does"] if described else [])]
    rows = [
        [code(key.name), code(key.default) or "(needed)", key.takes, *([key.description] if described else [])]
        for key in keys
    ]
    return f"""\
# Sweep file

A sweep is one YAML file: `sweeps/NAME.yaml` in the folder you work in, a path, or one of the shipped ones. A list makes
an axis; all lists are crossed, and each combination is a cell. What is left out has the default, which for a recipe is
the value of Mosbach et al. (2021). `--set KEY=VALUE` changes one for a command; `harness keys` prints this table.

Unknown, missing and doubled keys are errors. `1e-5` is a number, `on` and `off` are switches, `1..25` is a range of
seeds.

{table(header, rows)}

## Shipped sweeps

{shipped()}
"""


def shipped() -> str:
    """The sweeps that come with the package, each with the first sentences of its file."""
    parts = []
    for path in sorted((ROOT / "sweeps").glob("*.yaml")):
        comment = re.match(r"(?:#.*\n)*", path.read_text())
        words = " ".join(line.lstrip("# ").strip() for line in (comment[0] if comment else "").splitlines())
        parts.append(f"- `{path.stem}`: {words}")
    return "\n".join(parts)


def commands() -> str:
    """Every command with its arguments and options, as its help has them."""
    import typer

    from harness.cli.app import app

    group: Any = typer.main.get_command(app)
    parts = [
        "# Commands\n\n`harness COMMAND --help` prints the same. Exit codes: 0 done; 1 trials crashed or are "
        "missing, or a rerun differs; 2 bad input; 130 Ctrl-C; 143 SIGTERM.\n"
    ]
    for name, command in sorted(group.commands.items()):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option"]
        usage = " ".join(["harness", name, *(_metavar(one) for one in arguments), *(["[OPTIONS]"] if options else [])])
        rows = [[code(_metavar(one)), getattr(one, "help", "") or ""] for one in arguments]
        rows += [[code(_option(one)), " ".join(filter(None, (one.help or "", _default(one))))] for one in options]
        parts.append(f"## {name}\n\n```text\n{usage}\n```\n\n{docstring(command.help)}\n\n{table(['', ''], rows)}\n")
    return "\n".join(parts)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _option(parameter: Any) -> str:
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    if parameter.is_flag:
        return names
    return f"{names} {parameter.metavar or _value(parameter.type_descriptor.annotation)}"


def _value(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return "|".join(map(str, typing.get_args(annotation)))
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _default(parameter: Any) -> str:
    value = parameter.default
    shown = isinstance(value, str | int | float | Path) and not isinstance(value, bool) and str(value)
    return f"*Default: {value}.*" if shown else ""


def api() -> str:
    """What `import harness` gives: signatures and docstrings."""
    import harness

    parts = [f"# API\n\n{docstring(harness.__doc__)}\n"]
    for name in sorted(harness.__all__, key=lambda one: (inspect.isclass(getattr(harness, one)), one)):
        value = getattr(harness, name)
        if inspect.isclass(value):
            parts.append(f"## {name}\n\n{docstring(value.__doc__)}\n")
            parts += [f"### {name}.{member}\n\n{text}\n" for member, text in _members(value)]
        elif callable(value):
            parts.append(f"## {name}\n\n{_signature(name, value)}\n\n{docstring(value.__doc__)}\n")
    return "\n".join(parts)


def _members(value: type) -> Iterator[tuple[str, str]]:
    for name, member in vars(value).items():
        function = getattr(member, "func", None) or getattr(member, "fget", None)  # of a cached or plain property
        if name.startswith("_"):
            continue
        if function is not None:
            yield name, docstring(function.__doc__)
        elif inspect.isfunction(member):
            yield name, f"{_signature(name, member)}\n\n{docstring(member.__doc__)}"


def _signature(name: str, function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    lines = [str(one) for one in signature.parameters.values() if one.name != "self"]
    inner = ", ".join(lines)
    returned = "" if signature.return_annotation is inspect.Signature.empty else f" -> {signature.return_annotation}"
    if len(inner) > 80:
        inner = "\n" + "".join(f"    {line},\n" for line in lines)
    return f"```python\n{name}({inner}){returned}\n```"


def records() -> str:
    """The files of a results folder, and every field of a record."""
    from harness.config.recipe import Seeds
    from harness.config.trials import Trial
    from harness.records import record as module

    parts = [RECORDS]
    for model in (module.Record, Trial, Seeds, module.Environment, module.Measured, module.Baseline):
        rows = [
            [code(name), code(_type(one.annotation)), one.description or ""] for name, one in model.model_fields.items()
        ]
        parts.append(f"## {model.__name__}\n\n{docstring(model.__doc__)}\n\n{table(['field', 'type', ''], rows)}\n")
    for arrays in (module.Curves, module.Recording, module.Surface):
        rows = [[code(name), comment] for name, comment in _comments(arrays)]
        parts.append(f"## {arrays.__name__}\n\n{docstring(arrays.__doc__)}\n\n{table(['array', ''], rows)}\n")
    return "\n".join(parts)


RECORDS = """\
# Records

A sweep writes into `results/<sweep>@<profile>/`:

| file | holds |
| --- | --- |
| `plan.json` | what was planned, written before any training |
| `trials/<id>.json` | one record a finished or crashed trial, written once, whole or not at all |
| `trials/<id>.npz` | its arrays: curves, dev logits, what a diagnosis reads |
| `report/` | page, tables (CSV, Markdown, LaTeX) and figures (PNG, SVG, PDF) |
| `models/<id>/` | kept weights, with `--keep` |
| `running.json`, `.lock` | a sweep's sign of life, and its hold on the folder, while it runs |
| `checkpoints/` | the state of packs that were training |

JSON is strict (no NaN); scores are fractions; units stand in the names. `null` means not known, or that nothing of the
kind took part; fields that came later are `null` in older records. A trial's id is a readable slug and eight hex digits
over every field that decides the result; fields at their default are left out, so a new key changes no id.
"""


def _type(annotation: object) -> str:
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin is typing.Annotated:
        return _type(inner[0])
    names = [_type(one) for one in inner if one is not Ellipsis]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(names)
    return f"{getattr(origin, '__name__', str(origin))} of {', '.join(names)}" if names else str(annotation)


def _comments(arrays: type) -> list[tuple[str, str]]:
    """The comment beside each field of a dataclass, or on the lines before it."""
    found, before = [], ""
    for line in inspect.getsource(arrays).splitlines():
        field = re.match(r"    (\w+): [^#]*(?:# (.*))?$", line)
        above = re.match(r"    # (.*)", line)
        if field and field[1] in {one.name for one in fields(arrays)}:
            found.append((field[1], f"{before} {field[2] or ''}".strip()))
            before = ""
        elif above:
            before = f"{before} {above[1]}".strip()
    return found


def tables() -> str:
    """Every table of a report, by the docstring of the function that makes it."""
    from harness.analysis.analyze import Analysis

    parts = [TABLES]
    for one in fields(Analysis):
        if one.name in ("study", "threshold", "diagnosis"):
            continue
        function = _maker(one.name)
        more = RUNS if one.name == "runs" else ""
        parts.append(f"## {one.name}\n\n{docstring(function.__doc__)}{more}\n")
    return "\n".join(parts)


TABLES = """\
# Tables

A report writes each of these as `report/tables/<name>.csv`, and most also as Markdown and LaTeX; in Python they are
attributes of `results.analysis`. Scores and rates are fractions. `_low` and `_high` are the ends of a 95 % interval.
Empty means not known.
"""


RUNS = """

Columns: `trial` (id), `cell` (index), one per axis, `seed`, `init_seed`, `order_seed`, `dropout_seed`, `status`,
`attempts`, `error`, every field of [Measured](records.md#measured) and of [Environment](records.md#environment),
`command` (trains it again) and `verdict`.
"""


def _maker(name: str) -> Callable[..., object]:
    """The function of the analysis that returns the table of this name."""
    import harness.analysis as package

    modules = [package]
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        modules.append(importlib.import_module(f"{package.__name__}.{module.name}"))
    for module in modules:
        function = vars(module).get(name)
        if inspect.isfunction(function) and str(inspect.signature(function).return_annotation).endswith("DataFrame"):
            return function
    raise LookupError(name)


def glossary() -> str:
    """The report's own glossary."""
    from harness.report.glossary import glossary as report_glossary

    terms = "\n\n".join(f"**{term}**\n\n{text}" for term, text in report_glossary())
    return f"# Glossary\n\nThe words of the report, as each page explains them at its end.\n\n{terms}\n"


GENERATED: dict[str, Callable[[], str]] = {
    "reference/sweep-file.md": sweep_file,
    "reference/commands.md": commands,
    "reference/api.md": api,
    "reference/records.md": records,
    "reference/tables.md": tables,
    "explanation/glossary.md": glossary,
}


if __name__ == "__main__":
    build(Path(sys.argv[1]))
