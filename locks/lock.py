"""Write the locks beside this file: exact versions of all that pyproject's ranges ask for; `make lock` runs it.

Two are for the harness, with torch's build for CPUs or for CUDA; the third is for building the documentation.

A pin stays while the ranges allow it; `--upgrade` takes the newest. Metadata alone are read: no package is fetched.
"""

import re
import subprocess
import sys
from pathlib import Path

from harness.common.tested_versions import TESTED

# What torch's default build for Linux asks for and its build for CPUs doesn't.
CUDA = re.compile(r"nvidia-|cuda-|triton==")
HEADER = """\
# The versions that the tests ran with, for Python {python} on Linux: made by `make lock` of pyproject.toml and its dev.
# {what}
"""
FOR = {
    "cpu": "For torch's build for CPUs, as pip finds it on this machine; a CUDA build brings its own packages besides.",
    "cuda": "For torch's default build, with the CUDA packages that its metadata pin.",
}


DOCS = """\
# What `make docs` builds the documentation with, for Python {python} on Linux: made by `make lock` of pyproject.toml.
"""


def compiled(root: Path, pins: Path, *options: str) -> list[str]:
    """Resolve pyproject's ranges with uv and give the pins, a line each; those that stand in the file are preferred."""
    platform = ("--python-version", TESTED["python"], "--python-platform", "x86_64-manylinux_2_28")
    command = ("-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", *platform)
    subprocess.run([sys.executable, *command, "--output-file", str(pins.resolve()), *options], cwd=root, check=True)
    return pins.read_text().splitlines()


def write(folder: Path, *options: str) -> None:
    """Write `cuda.txt` and, without what CUDA alone needs, `cpu.txt` into the folder; and `docs.txt`."""
    root = Path(__file__).parent.parent
    lines = compiled(root, folder / "cuda.txt", "--extra", "dev", *options, "pyproject.toml")
    for kind, what in FOR.items():
        pins = [line for line in lines if not line.startswith("#") and (kind == "cuda" or not CUDA.match(line))]
        text = HEADER.format(python=TESTED["python"], what=what) + "\n".join(pins) + "\n"
        (folder / f"{kind}.txt").write_text(text)
    docs = compiled(root, folder / "docs.txt", "--group", "docs", *options)
    pins = [line for line in docs if not line.startswith("#")]
    (folder / "docs.txt").write_text(DOCS.format(python=TESTED["python"]) + "\n".join(pins) + "\n")


if __name__ == "__main__":
    folder, *options = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    write(Path(folder), *options)
