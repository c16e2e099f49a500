"""The spread figure of the page answers for its runs; looked at in a browser where there is one."""

import base64
import json
import re

import numpy as np
import pytest
from in_browser import needs_chromium, noted
from made_runs import HEAD, Run, study_of

from harness.report import page as report
from harness.report.figures import all_figures, scores

TEXT = HEAD + "lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..3\n"
RUNS = {0: [Run(300), Run(310), Run(320)], 1: [Run(330), Run(200, 0.693), Run(crashed="x")]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_figures, "MAKERS", (scores.spread,))
        return report.write(study_of(folder, TEXT, RUNS), folder / "report")


@pytest.fixture(scope="module")
def marks(written):
    text = written.page.read_text()
    return json.loads(re.search(r'<template id="run-marks">(.*?)</template>', text)[1])


def test_every_finished_run_has_its_place_and_its_curves(written, marks):
    runs = written.analysis.runs
    assert [row for row, _, _ in marks["places"]] == runs.index[runs["status"] == "finished"].tolist()
    assert all(0 < x < 10_000 and 0 < y < 10_000 for _, x, y in marks["places"])
    heights = [y for _, _, y in marks["places"]]
    assert np.argsort(heights).tolist() == np.argsort([-300, -310, -320, -330, -200]).tolist()  # best on top
    assert [curve[0] for curve in marks["curves"]["0"]] == ["dev score", "training loss"]
    assert not list((written.folder / "figures").glob("*.json"))


def test_phones_get_a_narrow_drawing_with_its_own_places(written, marks):
    assert not list((written.folder / "figures").glob("*narrow*"))
    source = re.search(r'<source media="screen and \(max-width: 40rem\)" srcset="([^"]+)">', written.page.read_text())[
        1
    ]
    svg = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,"), validate=True).decode()
    width = float(re.search(r"viewBox='0 0 ([\d.]+) ", svg)[1])
    assert width < 260  # points: 390 pixels
    assert sorted(row for row, _, _ in marks["narrow"]) == sorted(row for row, _, _ in marks["places"])
    assert marks["narrow"] != marks["places"]


def test_a_place_is_where_the_mark_is_drawn(written, marks):
    """By the SVG, whose marks are moved to their places in points."""
    svg = (written.folder / "figures" / "spread.svg").read_text()
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    drawn = [(float(x) / width, float(y) / height) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg)]
    for _, x, y in marks["places"]:
        assert min(np.hypot(x / 1e4 - a, y / 1e4 - b) for a, b in drawn) < 0.002


def test_nothing_is_fetched_and_little_is_added(written, marks):
    assert not re.search(r'(?:src|href)="https?:', written.page.read_text())
    assert len(json.dumps(marks)) < 20_000


@needs_chromium
def test_a_point_says_its_run_and_a_click_shows_its_curves(written, marks, tmp_path):
    """The page as it is after a pointer moved over the failed run and clicked there, and after keys."""
    index = next(place for place, (row, _, _) in enumerate(marks["places"]) if row == 4)
    probe = """
        const image = document.querySelector("#spread-of-runs img"), frame = document.querySelector(".marks");
        const [, x, y] = JSON.parse(document.getElementById("run-marks").content.textContent).places[INDEX];
        const box = image.getBoundingClientRect();
        const [clientX, clientY] = [box.left + box.width * x / 1e4 + 3, box.top + box.height * y / 1e4];
        const at = { clientX, clientY, bubbles: true };
        frame.dispatchEvent(new PointerEvent("pointermove", at));
        note("hovered", frame.querySelector("output").textContent);
        frame.dispatchEvent(new MouseEvent("click", at));
        note("clicked", document.getElementById("run").textContent);
        const lines = [...document.querySelectorAll("#run polyline")];
        note("charts", lines.map((line) => line.getAttribute("points").split(" ").length));
        frame.dispatchEvent(new PointerEvent("pointerleave", at));
        note("left", frame.querySelector("output").hidden);
        for (const key of ["ArrowRight", "ArrowRight", "Enter"])
          frame.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        note("keyed", document.querySelector("#run p").textContent);
    """
    said = noted(written.page, probe.replace("INDEX", str(index)), tmp_path)
    assert set(said) == {"hovered", "clicked", "charts", "left", "keyed"}
    assert "lr 2e-5 · seed 2 · verdict failed: constant · final score 0.500" in said["hovered"]
    assert "harness rerun made" in said["hovered"]
    assert "dev score" in said["clicked"]
    assert "--trial" in said["clicked"]
    points = [int(count) for count in said["charts"].split(",")]
    assert points == [len(curve[2]) for curve in marks["curves"]["4"]]
    assert said["left"] == "true"
    assert "lr 1e-5 · seed 2" in said["keyed"]  # of the second run


@needs_chromium
def test_a_phone_shows_the_narrow_drawing(written, tmp_path):
    probe = """
        const image = document.querySelector("#spread-of-runs img");
        note("chosen", image.currentSrc.slice(0, 30));
        note("fits", document.documentElement.scrollWidth <= innerWidth);
    """
    said = noted(written.page, probe, tmp_path, window="500,900")
    assert said == {"chosen": "data:image/svg+xml;base64,PHN2", "fits": "true"}
