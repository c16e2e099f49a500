"""Multiple choice: which of an example's choices is right, each read as a sequence of its own."""

from __future__ import annotations

from harness.data.tokenized import Task
from harness.training.kinds.kind import Kind


class Choice(Kind):
    """Cross-entropy over the choices of an example, as transformers' `…ForMultipleChoice` has it.

    The network gives each sequence one number; the choices' numbers are the logits of an example, [b, C].
    """

    def __init__(self, task: Task) -> None:
        """The network has one output, and each example as many sequences as there are choices."""
        super().__init__(task)
        self.sequences = task.num_labels

    @property
    def outputs(self) -> int:
        """One a sequence."""
        return 1
