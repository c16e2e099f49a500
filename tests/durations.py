"""What each test takes, as measured: which tests are `slow`, and which files come first where several run at once."""

import time
from collections import defaultdict
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "durations.txt"
SLOW = 0.5  # seconds
HEADER = f"""\
# Seconds of a test function, all its parameters together, with the fixtures of its module and of the session that it
# waits for, where that is {SLOW} or more: these are marked `slow`. And of a file, each fixture once: where several run
# at once, the longest come first. `make durations` measures them anew, in one process.
"""


def function_of(nodeid: str) -> str:
    """`tests/a/test_b.py::test_c`, whatever the parameters are."""
    return nodeid.partition("[")[0]


def file_of(nodeid: str) -> str:
    """`tests/a/test_b.py`."""
    return nodeid.partition("::")[0]


@cache
def unit_of(file: str) -> str:
    """What a file is handed out with: those that look at the same drawn figures go to one process."""
    return "drawings" if "drawings" in (ROOT / file).read_text() else file


def read(path: Path = TABLE) -> dict[str, float]:
    """Test function or file -> seconds."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = (line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    return {function: float(seconds) for seconds, function in rows}


def write(measured: dict[str, float], path: Path = TABLE) -> None:
    """Replace the seconds of the functions and files that ran, and drop those that are no longer there."""
    table = read(path) | measured
    rows = [f"{table[name]:6.1f} {name}\n" for name in sorted(table) if table[name] >= SLOW and _is_defined(name)]
    path.write_text(HEADER + "".join(rows))


def _is_defined(function: str) -> bool:
    file, _, name = function.partition("::")
    return (ROOT / file).exists() and (not name or f"def {name}(" in (ROOT / file).read_text())


class Durations:
    """A plugin of pytest: marks the slow tests, and has the longest files come first where several run at once."""

    def __init__(self, *, longest_first: bool) -> None:
        self.longest_first = longest_first

    @pytest.hookimpl(tryfirst=True)  # before `-m` chooses
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        table = read()
        units: defaultdict[str, float] = defaultdict(float)
        for file in {file_of(item.nodeid) for item in items}:
            units[unit_of(file)] += table.get(file, 0.0)
        for item in items:
            if function_of(item.nodeid) in table:
                item.add_marker("slow")
        if self.longest_first:
            items.sort(key=lambda item: -units[unit_of(file_of(item.nodeid))])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> object:
        """Hands out file by file, but those that share a fixture that takes long as one."""
        if config.getoption("dist") != "loadfile":
            return None
        from xdist.scheduler import LoadFileScheduling

        class Units(LoadFileScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return unit_of(file_of(nodeid))

        return Units(config, log)


class Measurement:
    """A plugin of pytest: measures what each test function takes, and writes the table."""

    def __init__(self) -> None:
        self.functions: defaultdict[str, float] = defaultdict(float)
        self.files: defaultdict[str, float] = defaultdict(float)  # without the fixtures that tests share
        self.fixtures: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)  # that a file's tests share
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
        function, file = function_of(item.nodeid), file_of(item.nodeid)
        used = [key for key in self.shared_fixtures if key[0] in item.fixturenames and item.nodeid.startswith(key[1])]
        self.files[file] += own
        self.fixtures[file].update(used)
        if function not in self.functions:
            own += sum(self.shared_fixtures[key] for key in used)
        self.functions[function] += own
        return result

    def pytest_sessionfinish(self) -> None:
        fixtures = {file: sum(map(self.shared_fixtures.__getitem__, used)) for file, used in self.fixtures.items()}
        write(self.functions | {file: seconds + fixtures[file] for file, seconds in self.files.items()})
