"""The picture of the wings in ARCHITECTURE.md, made from the code's own imports.

`python docs/wings.py` writes it anew; `--check` says whether it is current.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- wings: made by docs/wings.py -->\n", "<!-- end of wings -->\n"


def wings() -> dict[str, str]:
    """Each wing's one line, from its `__init__`."""
    inits = sorted((ROOT / "harness").glob("*/__init__.py"))
    return {path.parent.name: (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0] for path in inits}


def imports(names: set[str]) -> dict[str, set[str]]:
    """Which other wings each wing imports from."""
    reads: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for path in (ROOT / "harness" / name).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness."):
                    reads[name].add((node.module or "").split(".")[1])
        reads[name] &= names - {name}
    return reads


def reachable(reads: dict[str, set[str]], start: str) -> set[str]:
    """All wings that one stands on, directly or not."""
    return set().union(*({other} | reachable(reads, other) for other in reads[start])) if reads[start] else set()


def picture() -> str:
    """A Mermaid diagram: an arrow where a wing imports another that no arrow leads to by way of a third."""
    parts = wings()
    reads = imports(set(parts))
    lines = ["```mermaid", "graph BT"]
    lines += [f'    {name}["<b>{name}/</b><br/>{line.rstrip(".")}"]' for name, line in parts.items()]
    for name in parts:
        through = set().union(*(reachable(reads, other) for other in reads[name])) if reads[name] else set()
        lines += [f"    {other} --> {name}" for other in sorted(reads[name] - through)]
    return "\n".join([*lines, "```", ""])


def main() -> int:
    """Write or check the picture; 1 where a check finds it old."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + picture() + END + after
    if "--check" in sys.argv:
        return int(new != text)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
