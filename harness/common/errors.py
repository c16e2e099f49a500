"""What a user did that can't work, told in one line: what is wrong, what would be allowed, how to mend it."""

from __future__ import annotations

from harness.common.text import show


class HarnessError(ValueError):
    """Bad input, said in one line: the rule, the value received, what is allowed and what to do next."""

    def __init__(self, rule: str, *, got: object, allowed: str, fix: str) -> None:
        """Keep the four parts; `str()` of the error is the line a person sees."""
        self.rule, self.got, self.allowed, self.fix = rule, got, allowed, fix
        super().__init__(" ".join(f"{rule}: got {got}; allowed: {allowed}; {fix}".split()))


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
