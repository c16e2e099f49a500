"""Is my fine-tuning recipe stable, and if not, what makes it so?

```python
import harness

sweep = harness.load_sweep("rte_lr", set={"seeds": "1..5"})  # .trials, .cells
results = harness.run(sweep)  # or harness.open("rte_lr"), harness.read_runs(table, cell=…, seed=…, metric=…)
# or of a Python function: sweep = harness.study(train, lr=[1e-3, 1e-2], seeds=range(1, 11))
results.runs  # one row per run
results.cells  # one row per recipe
results.plot.spread()  # a matplotlib Figure
```

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api import LoadedSweep, Plots, Results, TrialCurves, load_sweep, open, read_runs, run, study
    from harness.common.errors import HarnessError

__version__ = "0.1.0"
__all__ = [
    "HarnessError",
    "LoadedSweep",
    "Plots",
    "Results",
    "TrialCurves",
    "load_sweep",
    "open",
    "read_runs",
    "run",
    "study",
]


def __getattr__(name: str) -> object:
    """What the package gives, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    module = "harness.common.errors" if name == "HarnessError" else "harness.api"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
