"""`make coverage`: simulate how often each interval of the report holds the truth; commit what comes out.

`python -m benchmarks.coverage [FAMILY …] [--repetitions 2000] [--out results/bench]` writes `coverage.csv` (every
number) and `coverage.md` (tables to read). With families named, the rows of the others stay as they are. A family is
a file in `families/`. The page's words and `docs/explanation/statistics.md` quote these numbers, and a test holds that
they agree.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.coverage.registry import REPETITIONS, Row, family, names
from benchmarks.coverage.tables import text_of

OUT = Path(__file__).parents[2] / "results" / "bench"
FIELDS = [field.name for field in dataclasses.fields(Row)]


def simulate(name: str, repetitions: int) -> tuple[str, list[Row], float]:
    """The rows of a family, and the seconds that they took."""
    start = time.perf_counter()
    rows = [dataclasses.replace(row, family=name) for row in family(name).rows(repetitions)]
    return name, rows, time.perf_counter() - start


def read(path: Path) -> list[Row]:
    """The rows of a table that was written before."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{**row, "n": int(row["n"]), "reported": row["reported"] == "yes"}
                | {name: float(row[name] or "nan") for name in ("value", "width")})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]  # fmt: skip


def write(path: Path, rows: list[Row]) -> None:
    """All rows, four digits each."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(FIELDS)
        for row in rows:
            cells = dataclasses.asdict(row) | {"reported": "yes" if row.reported else "no"}
            cells |= {name: "" if cells[name] != cells[name] else f"{cells[name]:.4g}" for name in ("value", "width")}
            table.writerow([cells[name] for name in FIELDS])


def main() -> None:
    """Simulate the named families, or all of them, on two cores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    chosen = options.families or names()
    table = options.out / "coverage.csv"
    rows = [row for row in read(table) if row.family in names() and row.family not in chosen]
    with ProcessPoolExecutor(2) as pool:
        for name, simulated, seconds in pool.map(simulate, chosen, [options.repetitions] * len(chosen)):
            rows += simulated
            print(f"{name}: {len(simulated)} rows in {seconds:.0f} s", flush=True)
    rows.sort(key=lambda row: names().index(row.family))
    options.out.mkdir(parents=True, exist_ok=True)
    write(table, rows)
    (options.out / "coverage.md").write_text(text_of(read(table)))


if __name__ == "__main__":
    main()
