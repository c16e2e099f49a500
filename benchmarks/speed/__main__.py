"""`make bench`, or `python -m benchmarks.speed`: measure the tables, print them and keep them in results/bench/.

All contenders of a table run in turns (A B A B …), so that a noisy machine disturbs them alike. What needs a GPU, or a
package that isn't there, is said to be not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.execution import machine, train_pack

from . import tables
from .processes import ROOT, NotMeasured
from .results import Row, Table, machine_name, markdown, merged, save


def asked(words: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tables.TABLES, metavar="TABLE", help=", ".join(tables.TABLES))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15, help="steps a repetition, where steps are timed")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a trial on the GPU")
    parser.add_argument("--long", action="store_true", help="also the sweep of 8 epochs a trial")
    parser.add_argument("--results", type=Path, help="folder of the .md and the .json (results/bench)")
    # To try the GPU's tables where there is none.
    parser.add_argument("--device", choices=("cuda", "cpu"), help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=("tiny",), help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if min(given.repetitions, given.steps, given.epochs) < 1:
        parser.error("--repetitions, --steps and --epochs are 1 or more")
    if (given.device == "cpu") != (given.shape is not None) or (given.shape and given.results is None):
        parser.error("--device cpu, --shape tiny and --results belong together: a trial of the GPU's tables")
    return given


def measured(name: str, bench: tables.Bench) -> Table:
    """One table; a row says why where nothing could be measured."""
    entry = tables.TABLES[name]
    made = f"{datetime.now(UTC):%Y-%m-%d}, {versions()}, commit {train_pack.code().commit or 'unknown'}"
    try:
        found = entry.measure(bench)
    except NotMeasured as why:
        found = tables.Measured((Row(what=entry.title, unit="", values=(), note=str(why)),))
    title = f"{entry.title}, tried with a {bench.shape} one on a CPU" if bench.shape else entry.title
    return Table(name=name, title=title, made=made, notes=found.notes, rows=found.rows)


def versions() -> str:
    """Of what computes."""
    import torch
    import transformers

    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is asked for; each table is kept as soon as it is there."""
    given = asked(words)
    import torch

    device = given.device or ("cuda" if torch.cuda.is_available() else None)
    here = machine_name([name for name, _ in machine.detect_hardware().gpus])
    folder = given.results or ROOT / "results" / "bench"
    names = given.only or [name for name in tables.TABLES if given.long or name not in tables.LONG]
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        bench = tables.here(device, given.shape, Path(home), given.repetitions, given.steps, given.epochs)
        for name in names:
            print(f"{name}: {tables.TABLES[name].title}", file=sys.stderr, flush=True)
            began = time.monotonic()
            table = measured(name, bench)
            path = save(folder, merged(folder, here, [table]))
            print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            print(f"{markdown(table)}\n", flush=True)
    print(f"Kept in {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
