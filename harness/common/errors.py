"""What a user did that can't work, told in one line: what is wrong, what is allowed, how to correct it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from harness.common.text import show, without_controls


class HarnessError(ValueError):
    """A user's mistake, told in one line: `lr must be > 0 (got 0)`.

    Args:
        problem: What is wrong, in words that stand alone: "lr must be > 0", "cannot read the file x.tsv: no such file".
        got: The value that was received, where `problem` does not hold it; texts are quoted by `describe_value`.
        allowed: The values that would do, where `problem` does not say so.
        fix: What to do next, as a sentence: "Check the path".
    """

    def __init__(self, problem: str, *, got: object = None, allowed: object = None, fix: str | None = None) -> None:
        """Keep the parts; `str()` of the error is the line a person reads."""
        self.problem, self.fix = problem, fix
        self.got, self.allowed = (None if part is None else str(part) for part in (got, allowed))
        super().__init__(_one_line(problem, self.got, self.allowed, fix))

    @property
    def headline(self) -> str:
        """What is wrong, without what to do: `lr must be > 0 (got 0)`."""
        return _one_line(self.problem, self.got, None, None)


def _one_line(problem: str, got: str | None, allowed: str | None, fix: str | None) -> str:
    """`problem (got x). Allowed: y. Fix.`; a single sentence has no full stop."""
    sentences = [problem if got is None else f"{problem} (got {got})"]
    sentences += [] if allowed is None else [f"Allowed: {allowed}"]
    sentences += [] if fix is None else [fix]
    if len(sentences) > 1:
        sentences = [text if text.endswith((".", "?", "!", "…")) else f"{text}." for text in sentences]
    return without_controls(" ".join(" ".join(sentences).split()))


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """` (did you mean 'rte_lr'?)`, to stand behind an unknown name; empty where none of those known is like it.

    Args:
        name: what was given.
        known: the names that there are.
        cutoff: how alike they must be, from 0 to 1, as `difflib.get_close_matches` counts.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" (did you mean '{close[0]}'?)" if close else ""


def describe_os_error(error: OSError) -> str:
    """Why the operating system refused, in lower case: `no such file or folder`, `permission denied`."""
    if error.errno == errno.ENOENT:
        return "no such file or folder"
    reason = error.strerror or type(error).__name__
    return reason[:1].lower() + reason[1:]


def describe_value(value: object) -> str:
    """A value in an error, in YAML's words rather than Python's, texts quoted and long ones cut."""
    if value is None:
        words = "nothing"
    elif isinstance(value, list):
        words = (
            f"[{', '.join(map(describe_value, value[:20]))}{', …' if len(value) > 20 else ''}]"
            if value
            else "an empty list"
        )
    elif isinstance(value, dict):
        words = "{" + ", ".join(f"{key}: {describe_value(inner)}" for key, inner in list(value.items())[:20]) + "}"
    else:
        words = f"'{value}'" if isinstance(value, str) else show(value)
    return words if len(words) <= 100 else words[:99] + "…"
