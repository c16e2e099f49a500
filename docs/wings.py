"""The picture of the wings in ARCHITECTURE.md, made from the code's own imports.

`python docs/wings.py` writes it anew; `--check` says whether it is current.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- wings: made by docs/wings.py -->\n", "<!-- end of wings -->\n"


def wings() -> dict[str, tuple[str, int, int]]:
    """Each wing's one line, number of files and number of lines."""
    found = {}
    for folder in sorted((ROOT / "harness").iterdir()):
        if (init := folder / "__init__.py").is_file():
            files = [path for path in folder.rglob("*.py") if path.name != "__init__.py"]
            line = (ast.get_docstring(ast.parse(init.read_text())) or "").splitlines()[0]
            found[folder.name] = (line, len(files), sum(len(path.read_text().splitlines()) for path in files))
    return found


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
    for name, (line, files, length) in parts.items():
        lines.append(f'    {name}["<b>{name}/</b> {files} files, {round(length, -2):,} lines<br/>{line.rstrip(".")}"]')
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
