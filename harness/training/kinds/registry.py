"""The kind of a task by its name in a recipe: `texts` where none of its own is listed here."""

from __future__ import annotations

from harness.config.recipe import TaskSpec
from harness.data.tokenized import Task
from harness.training.kinds.choice import Choice
from harness.training.kinds.completion import Completion
from harness.training.kinds.kind import Kind
from harness.training.kinds.labels import Labels
from harness.training.kinds.span import Span
from harness.training.kinds.tokens import Tokens

_KINDS: dict[str, type[Kind]] = {"tokens": Tokens, "completion": Completion, "labels": Labels, "choice": Choice}


def kind_of(spec: TaskSpec, task: Task) -> Kind:
    """The kind of a task, made for what was read of it."""
    if spec.kind == "span":
        return Span(task, spec.max_answer_length)
    return _KINDS.get(spec.kind, Kind)(task)
