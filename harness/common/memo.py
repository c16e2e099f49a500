"""Results that are worked out once for each object, by who it is and not by what it equals."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")
Owner = TypeVar("Owner")


def once_per_object(function: Callable[[Owner], Value]) -> Callable[[Owner], Value]:
    """A function of one object that keeps its result for as long as the object lives.

    Args:
        function: Of an object that is not changed afterwards; neither may its result be.

    Returns:
        The same function; a second call with the same object gives the same result, not a copy.
    """
    results: dict[int, Any] = {}

    @functools.wraps(function)
    def remembered(owner: Owner) -> Value:
        key = id(owner)
        if key not in results:
            value = function(owner)
            weakref.finalize(owner, results.pop, key, None)
            results[key] = value
        result: Value = results[key]
        return result

    return remembered
