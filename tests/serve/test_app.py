"""The pages and answers of `harness serve`: what they say of made-up studies, and what they refuse."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from made_runs import HEAD, Run, import_of, imported_runs, save, store_of, sweep_of
from starlette.testclient import TestClient

from harness.config.trials import expand
from harness.records.store import HEARTBEAT, Store
from harness.serve import studies
from harness.serve.app import application

TEXT = HEAD + "title: Rates <b>of</b> a sweep\nlr: [1e-5, 2e-5]\nepochs: 5\nseeds: 1..3\n"
RUNS: dict[int, list[Run | None]] = {
    0: [Run(310), Run(320), Run(330)],
    1: [Run(200), Run(crashed="Traceback (most recent call last):\nRuntimeError: no room"), None],
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    sweep = sweep_of(tmp_path, TEXT)
    store = store_of(tmp_path / "results", sweep, RUNS)
    report = store.folder / "report"
    report.mkdir()
    (report / "index.html").write_text("<p>the page</p>")
    (tmp_path / "secret.txt").write_text("secret")
    import_of(tmp_path / "results", [(("lr", 1e-5),)], imported_runs([0.5, 0.8, None]))
    return tmp_path / "results"


def client(results: Path, token: str | None = None, name: str = "127.0.0.1") -> TestClient:
    return TestClient(application(results, token), base_url=f"http://{name}", follow_redirects=False)


def test_all_studies_stand_in_the_list(results: Path) -> None:
    (results / "broken@default").mkdir()
    (results / "broken@default" / "plan.json").write_text("{")
    (results / "nothing").mkdir()
    given = client(results).get("/api/studies").json()
    sweep, theirs = sorted(given["studies"], key=lambda study: study["name"])
    shown = ("name", "planned", "finished", "failed", "crashed", "missing", "state", "page")
    assert [sweep[name] for name in shown] == ["made@default", 6, 4, 1, 1, 1, "stopped", True]
    assert sweep["title"] == "Rates <b>of</b> a sweep"
    assert (theirs["name"], theirs["state"], theirs["planned"], theirs["finished"]) == ("theirs", "imported", 3, 2)
    assert list(given["unreadable"]) == ["broken@default"]


def test_a_folder_whose_name_is_no_text_is_told_and_the_rest_shown(results: Path) -> None:
    shutil.copytree(next(results.glob("*@*")), results / os.fsdecode(b"x\xff@default"))
    given = client(results).get("/api/studies").json()
    assert given["unreadable"]["x @default"] == "its name is no UTF-8: rename it"
    assert len(given["studies"]) >= 1


def test_a_study_names_what_failed_and_how_to_train_it_again(results: Path) -> None:
    study = client(results).get("/api/studies/made@default").json()
    sweep = Store(results / "made@default").load_plan()
    assert sweep is not None
    trials = [trial.id for trial in expand(sweep)]
    assert study["failed_trials"] == [trials[3]]
    assert study["crashed_trials"] == [{"trial": trials[4], "error": "RuntimeError: no room", "attempts": 1}]
    assert [cell["finished"] for cell in study["cells"]] == [3, 1]
    assert study["commands"]["rerun"] == shlex.join(["harness", "rerun", str(results / "made@default")])
    assert client(results).get("/api/studies/none@default").status_code == 404


def test_runs_are_filtered_and_sorted_across_studies(results: Path) -> None:
    browser = client(results)

    def asked(**query: str) -> tuple[int, list[float | None]]:
        given = browser.get("/api/runs", params=query).json()
        return given["total"], [run["score"] for run in given["runs"]]

    assert asked()[0] == 9
    assert asked(study="made@default", order="-score") == (6, [0.825, 0.8, 0.775, 0.5, None, None])
    assert asked(verdict="failed") == (1, [0.5])
    assert asked(query="LR 2e-5")[0] == 3
    assert asked(query="2e-5 no room") == (1, [None])  # the words of an error too
    assert asked(first="7")[0] == 9
    assert len(asked(first="7")[1]) == 2
    run = browser.get("/api/runs", params={"verdict": "failed"}).json()["runs"][0]
    assert run["command"].endswith(f"--trial {run['trial']}")
    assert (run["settings"], run["seed"], run["reason"]) == ("lr 2e-5", "1", "constant")


def test_curves_are_thinned_and_of_planned_runs_alone(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "MOST_POINTS", 25)
    browser = client(results)
    run = browser.get("/api/runs", params={"study": "made@default"}).json()["runs"][0]
    curves = browser.get(f"/api/studies/made@default/curves/{run['trial']}").json()
    assert len(curves["train_loss"]) == 25
    assert curves["train_loss"][-1][0] == 100
    assert curves["dev_score"][-1] == [100, pytest.approx(0.775)]
    for trial in ("none", "..%2F..%2Fmade"):
        assert browser.get(f"/api/studies/made@default/curves/{trial}").status_code == 404


def test_what_is_written_meanwhile_is_seen(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "_FRESH_SECONDS", 0.0)
    browser, store = client(results), Store(results / "made@default")
    sweep = store.load_plan()
    assert sweep is not None
    trial = expand(sweep)[5]
    with store.locked():
        with (store.folder / ".lock").open() as lock:
            pid, host = int(lock.read().split()[1]), socket.gethostname()
        now = datetime.now(UTC).isoformat()
        pack = {"trials": [trial.id], "share": 0.25, "seconds": 3.0, "deaths": 0,
                "signals": [[[0.7, None, None, None, None], [0.6, None, None, None, None]]]}  # fmt: skip
        alive = {"schema_version": 1, "pid": pid, "host": host, "started_utc": now, "updated_utc": now,
                 "device": "cpu", "workers": 2, "seconds_left": 40.0, "packs": [pack]}  # fmt: skip
        (store.folder / HEARTBEAT).write_text(json.dumps(alive))
        study = browser.get("/api/studies/made@default").json()
        assert (study["state"], study["training"], study["seconds_left"], study["workers"]) == ("running", 1, 40.0, 2)
        assert study["packs"][0]["share"] == 0.25
        assert study["live_losses"] == {trial.id: [0.7, 0.6]}
        (store.folder / HEARTBEAT).unlink()
        save(store, sweep, trial, Run(340))
    study = browser.get("/api/studies/made@default").json()
    assert (study["state"], study["finished"], study["missing"]) == ("stopped", 5, 0)
    assert browser.get("/api/runs", params={"order": "-score"}).json()["runs"][0]["trial"] == trial.id


def test_a_report_is_served_and_nothing_beside_it(results: Path) -> None:
    browser = client(results)
    assert browser.get("/studies/made@default/report/index.html").text == "<p>the page</p>"
    (results / "made@default" / "report" / "out.txt").symlink_to(results.parent / "secret.txt")
    for path in ("out.txt", "..%2Fplan.json", "../plan.json", "%2e%2e/%2e%2e/%2e%2e/secret.txt", "none.html", ""):
        assert browser.get(f"/studies/made@default/report/{path}").status_code == 404
    assert browser.get("/static/..%2Fapp.py").status_code == 404
    assert browser.get("/studies/..%2F/report/secret.txt").status_code == 404


def test_it_only_reads_and_only_for_its_own_pages(results: Path) -> None:
    browser = client(results)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert browser.request(method, "/api/runs").status_code == 405
    assert client(results, name="evil.example").get("/api/studies").status_code == 421  # a name that leads to 127.0.0.1
    front = browser.get("/")
    assert "default-src 'self'" in front.headers["content-security-policy"]
    assert front.headers["x-content-type-options"] == "nosniff"
    for name in ("app.js", "style.css"):
        text = browser.get(f"/static/{name}").text
        assert text
        assert "innerHTML" not in text
        assert not [word for word in text.split('"') if word.startswith("http") and "w3.org" not in word]


def test_elsewhere_a_token_is_asked_for(results: Path) -> None:
    browser = client(results, token="abc", name="box.example")
    for path in ("/", "/api/studies", "/static/app.js", "/?token=wrong", "/?token=%C3%A4"):
        assert browser.get(path).status_code == 403
    entered = browser.get("/?token=abc")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "HttpOnly" in entered.headers["set-cookie"]
    assert browser.get("/api/studies").status_code == 200  # by its cookie


@contextmanager
def served(results: Path) -> Iterator[str]:
    """The application at an address of this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application(results), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("#/", ["Rates &lt;b&gt;of&lt;/b&gt; a sweep", "4 of 6", "theirs"]),
        ("#/study/made%40default", ["RuntimeError: no room", "Copy rerun", "lr 2e-5"]),
        ("#/runs?verdict=failed", ["1 run;", "failed: constant", "0.500"]),
    ],
)
def test_a_browser_shows_it(results: Path, tmp_path: Path, view: str, words: list[str]) -> None:
    with served(results) as address:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                   "--virtual-time-budget=3000", "--dump-dom", f"{address}/{view}"]  # fmt: skip
        page = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    for word in words:
        assert word in page


def test_the_focus_stays_when_the_page_is_drawn_anew() -> None:
    """The page is drawn anew every two seconds: a link reached by the keyboard must not be lost then."""
    script = (Path(studies.__file__).parent / "static" / "app.js").read_text()
    drawing = script[script.index("async function render") :]
    assert (
        drawing.index("focused()") < drawing.index("main.replaceChildren(...nodes)") < drawing.index("refocus(before)")
    )


@pytest.mark.parametrize(
    ("state", "finished", "shown"), [("stopped", 6, "complete"), ("stopped", 5, "stopped"), ("running", 6, "running")]
)
def test_a_sweep_whose_runs_have_all_finished_is_complete(state: str, finished: int, shown: str) -> None:
    now: Any = SimpleNamespace(state=state, total=SimpleNamespace(finished=finished, planned=6))
    assert studies._state(now) == shown
