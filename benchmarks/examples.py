"""`make examples`: train the shipped sweeps whose reports are committed, and commit-size their reports.

`python -m benchmarks.examples [NAME@PROFILE …] [--no-training]`: each sweep is trained (what is finished already is
not), reported on, and copied into `results/examples/`: `report.md`, its figures with a palette of 256 colours (a
third of the bytes) and the tables that people compute with. The page itself, which holds every figure again, is
copied for `rte_lr@embedded` alone. With `--no-training` what lies in `results/examples/` is shrunk where it stands.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "results" / "examples"
# What trains in minutes on a laptop. The others need weights and data that are not shipped: `sst2_minilm`,
# `rte_minilm`, `rte_mpnet@gpu`, and `sst2_imported`, a table of somebody else's runs.
SHIPPED = (
    "rte_lr@embedded", "rte_seeds@embedded", "rte_recipe@embedded", "remedies@embedded", "methods@embedded",
    "precision@embedded", "rte_lr_adaptive@embedded", "lora_lr@embedded", "choice_lr@embedded",
    "qa_lr@embedded", "any_script@default",
)  # fmt: skip
WITH_PAGE = "rte_lr@embedded"


def shrink(folder: Path, *, page: bool) -> None:
    """Give the figures of a report folder a palette, and take the page away unless `page`."""
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            if image.mode != "P":
                small = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
                small.save(path, optimize=True)
    for pattern in ("figures/*.svg", "figures/*.pdf", "tables/*.tex", "tables/*.md"):
        for path in folder.glob(pattern):
            path.unlink()
    if not page:
        (folder / "index.html").unlink(missing_ok=True)


def make(name: str) -> None:
    """Train, report and copy one example."""
    sweep, profile = name.split("@")
    words = [sweep, "--profile", profile]
    for command in ("sweep", "report"):
        subprocess.run([sys.executable, "-m", "harness", command, *words], cwd=ROOT, check=True)
    target = EXAMPLES / name / "report"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "results" / name / "report", target)


def main() -> None:
    """Make the named examples, or all that train here; shrink everything that is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=SHIPPED, metavar="NAME@PROFILE")
    parser.add_argument("--no-training", action="store_true", help="shrink what is committed, and nothing else")
    options = parser.parse_args()
    for name in () if options.no_training else options.names:
        make(name)
    for folder in sorted(EXAMPLES.glob("*@*/report")) + sorted(EXAMPLES.glob("*_imported/report")):
        shrink(folder, page=folder.parent.name == WITH_PAGE)


if __name__ == "__main__":
    main()
