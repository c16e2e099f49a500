"""Tables whose columns have types that know missing values."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

COUNTS = frozenset(
    {
        "seed", "init_seed", "order_seed", "dropout_seed", "best_step", "correct", "majority_correct", "dev_examples",
        "train_examples", "test_examples", "steps", "diverged_step", "stopped_step", "kept_step", "parameters",
        "trained_parameters", "peak_memory_bytes", "threads", "pack_size",
    }
)  # fmt: skip


def typed(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """A table whose columns have types that know missing values: counts as `Int64`, texts as `string`.

    Args:
        table: one of `records.store.frame` or of the analysis.
        axes: its columns that hold the values of axes, which stay numbers, texts or booleans as they are.
    """
    result = table.copy()
    for name in result.columns:
        column = result[name]
        if name in axes:
            result[name] = column.infer_objects()
        elif pd.api.types.is_float_dtype(column) and name in COUNTS:
            result[name] = column.astype("Int64")
        elif column.dtype == object:
            result[name] = column.convert_dtypes()
    return result
