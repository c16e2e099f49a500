"""GLUE and SuperGLUE by way of `datasets`: from the hub or its cache."""

from __future__ import annotations

from typing import Any

from harness.common import hub
from harness.data.glue import Glue
from harness.data.text_columns import short


def fetch(name: str, glue: Glue) -> dict[str, Any]:
    """The training and the dev split of a task by their names on the hub.

    Raises HarnessError where they can't be had; `datasets`' own attempts without a network would take 23 s.
    """
    online, repository = hub.prepare(), glue.repository
    if not online and not hub.cached("dataset", repository):
        raise hub.missing("dataset", f"{repository} {name}", "task.files")
    import datasets

    try:
        loaded = datasets.load_dataset(repository, name)
        return {split: loaded[split] for split in ("train", glue.validation)}
    except Exception as error:  # what fails behind it is of many libraries; all mean that the data can't be had
        first_line = next(iter(str(error).splitlines()), "")
        reason = f"loading it gave {type(error).__name__} ({short(first_line)})"
        raise hub.missing("dataset", f"{repository} {name}", "task.files", reason) from error


def spelt(split: Any, column: str) -> list[object]:
    """The values of a column, labels that are numbers of classes by their names, so that they are checked as files'."""
    classes = getattr(split.features[column], "names", None)
    return [classes[value] if classes else value for value in split[column][:]]
