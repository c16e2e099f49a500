"""Runs as lines over their settings, which a range on an axis filters; looked at in a browser where there is one."""

import json
import re

import pytest
from drawn_figures import theirs
from in_browser import needs_chromium, noted

from harness.analysis.analyze import analyse
from harness.report import brush
from harness.report import page as report
from harness.report.figures import all_figures, scores

AXES = [(lr, epochs, on) for lr in (1e-5, 1e-4, 1e-3) for epochs in (1, 3) for on in (False, True)]
CELLS = tuple(tuple(zip(("lr", "epochs", "on"), values, strict=True)) for values in AXES)


def score_of(cell: int, seed: int) -> float:
    """Both seeds fail at the largest rate without `on`."""
    lr, _, on = AXES[cell]
    return 0.5 if lr == 1e-3 and not on else 0.7 + 0.01 * cell + 0.001 * seed


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return theirs(tmp_path_factory.mktemp("brush"), CELLS, score_of, seeds=2)


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_figures, "MAKERS", (scores.spread,))
        return report.write(study, tmp_path_factory.mktemp("page") / "report")


def test_every_run_has_its_place_on_every_axis(written):
    data = json.loads(brush.data_of(written.analysis))
    assert [axis["name"] for axis in data["axes"]] == ["lr", "epochs", "on", "score"]
    assert data["axes"][0]["stops"] == [[0, "1e-5"], [500, "1e-4"], [1000, "1e-3"]]
    runs = written.analysis.runs
    assert [run[0] for run in data["runs"]] == runs.index.tolist()
    for (row, kind, lr, epochs, on, score), cell in zip(data["runs"], runs["cell"], strict=True):
        assert (lr, epochs, on) == (
            500 * [1e-5, 1e-4, 1e-3].index(AXES[cell][0]),
            1000 * (AXES[cell][1] == 3),
            1000 * AXES[cell][2],
        )
        value = runs["final_score"][row]
        low, high = runs["final_score"].min(), runs["final_score"].max()
        assert score == round(1000 * (value - low) / (high - low))
        assert (kind == 2) == (runs["verdict"][row] == "failed")
    assert [kind["count"] for kind in data["kinds"]] == [14, 6, 4]


def test_few_axes_have_none_and_numbers_of_many_values_stand_by_their_size(tmp_path):
    few = analyse(theirs(tmp_path / "few", tuple((("lr", rate),) for rate in (1e-5, 1e-4)), score_of, seeds=2))
    assert brush.data_of(few) == ""
    rates = [10 ** (-5 + number / 10) for number in range(21)]
    cells = tuple((("lr", rate), ("warm", number % 7)) for number, rate in enumerate(rates))
    many = analyse(theirs(tmp_path / "many", cells, lambda cell, seed: 0.6 + 0.01 * cell, seeds=1))
    data = json.loads(brush.data_of(many))
    assert [run[2] for run in data["runs"]] == [50 * number for number in range(21)]  # by logarithms
    assert data["axes"][0]["ticks"][2] == [500, "0.0001"]
    assert data["axes"][1]["stops"][1] == [167, "1"]


def test_names_are_no_markup(tmp_path):
    cells = tuple(((("<b>", a), ("&amp;", b), ("c", c))) for a in (1, 2) for b in (1, 2) for c in ("</template>", "x"))
    data = brush.data_of(analyse(theirs(tmp_path, cells, lambda cell, seed: 0.6 + 0.01 * cell, seeds=2)))
    assert not re.search("[<>&]", data)
    assert json.loads(data)["axes"][2]["stops"][0][1] == "</template>"


PROBE = """
    const groups = [...document.querySelectorAll("#brush .axis")], said = document.querySelector("#brush .said");
    const off = () => document.querySelectorAll("#brush polyline.off").length;
    const press = (axis, key, shiftKey = false) =>
      groups[axis].dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, bubbles: true }));
    note("all", said.textContent + "|" + off());
    const svg = document.querySelector("#brush svg"), box = svg.getBoundingClientRect();
    const at = (place) => ({ clientX: box.left + 70, clientY: box.top + (300 - 0.266 * place) * box.height / 316,
      bubbles: true });
    groups[0].dispatchEvent(new PointerEvent("pointerdown", at(1000)));
    groups[0].dispatchEvent(new PointerEvent("pointermove", at(900)));
    groups[0].dispatchEvent(new PointerEvent("pointerup", at(900)));
    note("dragged", said.textContent + "|" + off());
    press(2, "ArrowUp");
    note("keyed", said.textContent + "|" + off() + "|" + groups[2].getAttribute("aria-label"));
    press(2, "ArrowUp", true);
    note("widened", said.textContent);
    press(2, "ArrowUp");
    press(2, "ArrowDown", true);
    note("narrowed", groups[2].getAttribute("aria-label"));
    [...document.querySelectorAll("#brush button")].find((one) => one.textContent.includes("table")).click();
    note("table", document.getElementById("count").textContent);
    press(0, "Escape");
    press(2, "Escape");
    note("cleared", said.textContent + "|" + document.getElementById("count").textContent);
"""


@needs_chromium
def test_a_range_on_an_axis_keeps_the_lines_there(written, tmp_path):
    said = noted(written.page, PROBE, tmp_path)
    assert said["all"] == "24 of 24 runs, 4 of them failed (17 %)|0"
    assert said["dragged"] == "8 of 24 runs, 4 of them failed (50 %): lr 1e-3|16"
    assert said["keyed"] == "4 of 24 runs, 4 of them failed (100 %): lr 1e-3; on off|20|on: off"
    assert said["widened"] == "8 of 24 runs, 4 of them failed (50 %): lr 1e-3; on off to on"
    assert said["narrowed"] == "on: off"
    assert said["table"] == "4 of 24 runs, chosen by their settings"
    assert said["cleared"] == "24 of 24 runs, 4 of them failed (17 %)|24 of 24 runs"
