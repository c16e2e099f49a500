"""What each test takes, as measured: which tests are `slow`, and which files come first where several run at once."""

import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "durations.txt"
SLOW = 0.5  # seconds
HEADER = f"""\
# Seconds of a test function, all its parameters together, with the fixtures of its module and of the session that it
# waits for, where that is {SLOW} or more. These are marked `slow`. `make durations` measures them anew, in one process.
"""


def function_of(nodeid: str) -> str:
    """`tests/a/test_b.py::test_c`, whatever the parameters are."""
    return nodeid.partition("[")[0]


def read(path: Path = TABLE) -> dict[str, float]:
    """Test function -> seconds."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = (line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    return {function: float(seconds) for seconds, function in rows}


def write(measured: dict[str, float], path: Path = TABLE) -> None:
    """Replace the seconds of the functions that ran, and drop those that are no longer defined."""
    table = read(path) | measured
    rows = [f"{table[name]:6.1f} {name}\n" for name in sorted(table) if table[name] >= SLOW and _is_defined(name)]
    path.write_text(HEADER + "".join(rows))


def _is_defined(function: str) -> bool:
    file, _, name = function.partition("::")
    return (ROOT / file).exists() and f"def {name}(" in (ROOT / file).read_text()


class Durations:
    """A plugin of pytest: marks the slow tests, and has the longest files come first where several run at once."""

    def __init__(self, *, longest_first: bool) -> None:
        self.longest_first = longest_first

    @pytest.hookimpl(tryfirst=True)  # before `-m` chooses
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        table = read()
        files: defaultdict[str, float] = defaultdict(float)
        for function, seconds in table.items():
            files[function.partition("::")[0]] += seconds
        for item in items:
            if function_of(item.nodeid) in table:
                item.add_marker("slow")
        if self.longest_first:
            items.sort(key=lambda item: -files[item.nodeid.partition("::")[0]])


class Measurement:
    """A plugin of pytest: measures what each test function takes, and writes the table."""

    def __init__(self) -> None:
        self.functions: defaultdict[str, float] = defaultdict(float)
        self.shared_fixtures: dict[tuple[str, str], float] = {}  # (name, where it is defined) -> seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Those that it needs were made before."""
        begin = time.perf_counter()
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                key = (fixturedef.argname, fixturedef.baseid)
                self.shared_fixtures[key] = time.perf_counter() - begin

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Generator[None, object, object]:
        """A fixture that tests share counts once for each function: whichever comes first waits for it."""
        begin, earlier = time.perf_counter(), dict(self.shared_fixtures)
        result = yield
        now = {key: s for key, s in self.shared_fixtures.items() if earlier.get(key) != s}
        own = time.perf_counter() - begin - sum(now.values())
        function = function_of(item.nodeid)
        if function not in self.functions:
            fixtures = self.shared_fixtures.items()
            own += sum(s for (name, at), s in fixtures if name in item.fixturenames and item.nodeid.startswith(at))
        self.functions[function] += own
        return result

    def pytest_sessionfinish(self) -> None:
        write(self.functions)
