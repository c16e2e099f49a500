"""The command that installs an extra, by where the package came from."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from harness.common import extras

ROOT = Path(extras.__file__).parents[2]


class Made:
    def __init__(self, told: object) -> None:
        self.told = told

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.told is None else json.dumps(self.told)


def test_of_a_checkout_its_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert extras.install_command("serve") == f"pip install -e '{ROOT}[serve]'"
    monkeypatch.chdir(ROOT)
    assert extras.install_command("serve") == "pip install -e '.[serve]'"


@pytest.mark.parametrize(
    ("told", "command"),
    [
        (None, "pip install 'stability-harness[x]'"),
        (
            {"url": "file:///a%20b/w.whl", "archive_info": {}},
            "pip install 'stability-harness[x] @ file:///a%20b/w.whl'",
        ),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, "pip install -e '/a b[x]'"),
        (
            {"url": "https://host/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'stability-harness[x] @ git+https://host/r.git@abc'",
        ),
    ],
)
def test_of_an_installed_package_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: object, command: str
) -> None:
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "harness" / "common" / "extras.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Made(told))
    assert extras.install_command("x") == command
