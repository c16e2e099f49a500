"""The hub's reach, without the hub: sockets of this machine's own and an environment made for each test."""

import os
import socket
import sys
import threading
import types

import pytest

from harness.common import hub
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No variable of the machine has a say, none set here stays, and nothing is known of the network."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # so that what prepare() sets is taken back
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nothing of a test leaves the machine
    forget = hub._answers.cache_clear
    forget()
    yield
    forget()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_reachable_where_something_listens(monkeypatch, listening):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening}/some/path")
    assert hub.reachable()
    assert hub.prepare()
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_not_reachable_where_nothing_listens():
    assert not hub.reachable()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://user:word@127.0.0.1:{}", "127.0.0.1:{}"])
def test_a_proxy_is_the_first_hop(monkeypatch, listening, variable, form):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv(variable, form.format(listening))
    assert hub.reachable()
    monkeypatch.setenv("NO_PROXY", "hub.invalid")
    assert hub._first_hop() == ("hub.invalid", 443)


def test_the_default_endpoint(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub._first_hop() == ("huggingface.co", 443)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:no", "http://127.0.0.1:99999", "http://", "nonsense"])
def test_an_endpoint_that_is_none_is_not_reachable(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror("none")))
    assert not hub.reachable()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_an_offline_switch_ends_the_question(monkeypatch, listening, variable):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening}")
    monkeypatch.setenv(variable, "true")
    monkeypatch.setattr(hub, "_answers", None)  # would raise if asked
    assert not hub.reachable()


def test_a_hanging_name_look_up_is_left_behind(monkeypatch):
    release = threading.Event()

    def hang(*_, **__):
        release.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hang)
    try:
        assert not hub.reachable(timeout=0.05)
    finally:
        release.set()


def test_the_answer_is_kept(monkeypatch, listening):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening}")
    assert hub.reachable()
    monkeypatch.setattr(socket, "create_connection", None)
    assert hub.reachable()


def test_prepare_switches_offline_what_is_and_what_will_be_imported(monkeypatch):
    constants = types.SimpleNamespace(HF_HUB_OFFLINE=False)
    config = types.SimpleNamespace(HF_HUB_OFFLINE=False, HF_DATASETS_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    monkeypatch.setitem(sys.modules, "datasets.config", config)
    assert not hub.prepare()
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == "1"
    assert constants.HF_HUB_OFFLINE
    assert config.HF_HUB_OFFLINE
    assert config.HF_DATASETS_OFFLINE
    assert not hub.prepare()


def snapshot(cache, folder):
    path = cache / folder / "snapshots" / "0123abcd" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


@pytest.mark.parametrize(
    ("variable", "value", "inside"),
    [
        ("HF_HUB_CACHE", "{}/c", "c"),
        ("HUGGINGFACE_HUB_CACHE", "{}/c", "c"),
        ("HF_HOME", "{}/h", "h/hub"),
        ("HF_HOME", "~/h", "h/hub"),
        ("XDG_CACHE_HOME", "{}/x", "x/huggingface/hub"),
        ("UNRELATED", "", ".cache/huggingface/hub"),
    ],
)
def test_cached_looks_where_the_hub_keeps(monkeypatch, tmp_path, variable, value, inside):
    monkeypatch.setenv(variable, value.format(tmp_path))
    assert not hub.cached("model", "org/name")
    path = snapshot(tmp_path / inside, "models--org--name")
    assert hub.cached("model", "org/name")
    assert not hub.cached("dataset", "org/name")
    assert not hub.cached("model", "name")
    path.unlink()
    assert not hub.cached("model", "org/name")  # the folder alone is nothing
    path.symlink_to(tmp_path / "blob-that-is-gone")
    assert not hub.cached("model", "org/name")


def test_a_prepared_dataset_is_cached(tmp_path):
    assert not hub.cached("dataset", "nyu-mll/glue")
    (tmp_path / ".cache/huggingface/datasets/nyu-mll___glue/rte/0.0.0/abcd").mkdir(parents=True)
    assert hub.cached("dataset", "nyu-mll/glue")
    assert not hub.cached("model", "nyu-mll/glue")


def test_missing_names_what_is_missing_and_how_to_point_at_files(tmp_path):
    error = hub.missing("model", "bert-large-uncased")
    assert isinstance(error, HarnessError)
    assert str(error) == (
        "cannot find the model 'bert-large-uncased': it is not in this machine's cache, and the hub can't be reached. "
        "Use local files with --set model.folder=DIR, or a machine that reaches the hub."
    )
    snapshot(tmp_path / ".cache/huggingface/hub", "datasets--nyu-mll--glue")
    error = hub.missing("dataset", "nyu-mll/glue rte", reason="loading it gave ValueError")
    assert "it is incomplete in this machine's cache, and loading it gave ValueError" in str(error)
    assert "--set task.files=DIR" in str(error)


def test_a_model_is_located_and_checked_without_being_read(tmp_path):
    assert hub.location(ModelSpec(name="org/name")) == "org/name"
    assert hub.location(ModelSpec(name="x", folder="~/m")) == str(tmp_path / "m")
    assert hub.location(ModelSpec(name="embedded")).endswith("embedded/model")
    with pytest.raises(HarnessError, match=r"'org/name'.*--set model.folder=DIR"):
        hub.check_model(ModelSpec(name="org/name"))
    snapshot(tmp_path / ".cache/huggingface/hub", "models--org--name")
    hub.check_model(ModelSpec(name="org/name"))
    with pytest.raises(HarnessError, match=r"has no config\.json"):
        hub.check_model(ModelSpec(name="x", folder="~/m"))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    hub.check_model(ModelSpec(name="x", folder="~/m"))
    for content in (b"", b"[1]", b"\xff", b"[" * 100_000, b'{"auto_map": {}}'):  # loading says what is wrong
        (tmp_path / "m" / "config.json").write_bytes(content)
        hub.check_model(ModelSpec(name="x", folder="~/m"))
    os.mkfifo(tmp_path / "m" / "tokenizer_config.json")
    hub.check_model(ModelSpec(name="m", folder=str(tmp_path / "m")))  # and waits for no writer
    (tmp_path / "m" / "tokenizer_config.json").unlink()
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["own.Own", null]}}')
    with pytest.raises(HarnessError, match=r"brings Python code of its own \(auto_map\)"):
        hub.check_model(ModelSpec(name="x", folder="~/m"))
