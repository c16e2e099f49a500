"""The bench's arithmetic, its tables and its options; it is timed by nobody here."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import scale as bench_scale
from benchmarks.speed import __main__ as command
from benchmarks.speed import lora, tables, work
from benchmarks.speed.processes import NotMeasured, pool, run, together
from benchmarks.speed.results import Bar, Results, Row, Table, machine_name, markdown, merged, paired, save, slug
from harness.training.prepare import load_task


def test_the_operations_of_a_step_counted_by_hand() -> None:
    shape = work.Shape(layers=1, hidden=2, heads=1, inner=3, words=9, positions=9)
    weights, tokens = 4 * (2 * 2) + 2 * (2 * 3), 2
    products = 2 * (2 * 2 * 2 * 2)  # queries with keys, weights with values: [2, 2] × [2, 2] each
    head = 2 * 2 + 2 * 2
    assert shape.lane_step(batch=1, width=2) == 6 * weights * tokens + 3 * products + 6 * head == 480


def test_the_operations_of_a_step_are_those_that_torch_counts(build: Callable[..., Path]) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = build("bert")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, attn_implementation="eager")
    with FlopCounterMode(display=False) as counted:
        model(torch.ones(3, 7, dtype=torch.int64)).logits.sum().backward()
    assert counted.get_total_flops() == work.shape_of(folder, 7).lane_step(batch=3, width=7)


def test_texts_are_as_long_as_rte_s(tmp_path: Path) -> None:
    work.build_texts(tmp_path, work.RTE, 128, 1000)
    for name, rows in zip(("train", "validation"), work.RTE, strict=True):
        with (tmp_path / f"{name}.tsv").open() as stream:
            texts = list(csv.DictReader(stream, delimiter="\t"))
        lengths = [len(row["text"].split()) + 2 for row in texts]
        assert len(texts) == rows
        assert max(lengths) == 128
        assert 60 < np.mean(lengths) < 70


def test_an_adapter_is_trained_on_the_same_tokens_and_of_the_answers_alone(tmp_path: Path) -> None:
    folder = lora.build(tmp_path, "tiny")
    recipe = work.recipe(folder)
    task = load_task(recipe.task, recipe.model, recipe.max_length).train
    plain = json.loads((folder / "plain.json").read_text())["train"]
    assert [example["input_ids"] for example in plain] == task.input_ids.tolist()
    shifted = np.array([[*example["labels"][1:], -100] for example in plain])
    assert np.array_equal(shifted, task.labels)


def test_lanes_are_held_against_as_many_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(command: list[str], seen: object) -> tuple[float, str]:
        lanes = 0 if "benchmarks.speed.lora_trainer" in command else int(command[-1])
        own = 100 * 2**20 + lanes * 10 * 2**20
        return 1.0, json.dumps({"cpu_seconds": 0.02 if lanes else 0.03, "bytes": 2 * own, "own": own})

    monkeypatch.setattr(tables, "run", answered)
    bench = tables.Bench(tmp_path, repetitions=2, steps=1, epochs=1, device="cpu", shape="tiny", cores=1)
    rows = {row.what: row.values for row in tables.lora(bench).rows}
    assert rows["own memory of 16 processes of Trainer and peft over 16 lanes"] == pytest.approx([1600 / 260] * 2)
    assert rows["CPU time of an update of Trainer and peft over a lane-step of 4"] == pytest.approx([1.5] * 2)
    assert rows["4 lanes: the whole process"] == (280, 280)
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    lacking = next(row for row in tables.lora(bench).rows if row.what.startswith("own memory"))
    assert (lacking.values, lacking.note) == ((), "accelerate is not installed")


def test_the_contenders_train_on_what_the_harness_trains_on(tmp_path: Path) -> None:
    folder = work.build(tmp_path, "tiny", "float32", (20, 10), 1)
    recipe = work.recipe(folder)

    task = load_task(recipe.task, recipe.model, recipe.max_length)
    with np.load(folder / "data.npz") as arrays:
        assert np.array_equal(arrays["train_ids"], task.train.input_ids)
        assert np.array_equal(arrays["dev_mask"].sum(1), task.validation.lengths)
        assert arrays["train_ids"].shape == (20, work.SHAPES["tiny"].width)
    assert [trial.seeds.order_seed for trial in work.trials(folder, 3)] == [1, 2, 3]


ROWS = (
    Row(what="fast enough", unit="×", values=(3.5, 2.0, 3.0), bar=Bar(least=3)),
    Row(what="too slow", unit="×", values=(2.9,), bar=Bar(least=3)),
    Row(what="near", unit="×", values=(1.25,), bar=Bar(least=0.75, most=1.25)),
    Row(what="far", unit="×", values=(0.7,), bar=Bar(least=0.75, most=1.25)),
    Row(what="late", unit="s", values=(1.6,), bar=Bar(most=1.5)),
    Row(what="absent", unit="s", values=(), bar=Bar(most=1.5), note="no GPU here"),
    Row(what="shown", unit="trials/h", values=(1234.5,)),
)
TABLE = Table(name="some", title="Some rows", made="2020-01-02, torch 2", notes=("A note.",), rows=ROWS)


def test_a_table_says_what_was_held_missed_and_not_measured() -> None:
    assert markdown(TABLE).splitlines() == [
        "## Some rows",
        "",
        "`some`, 2020-01-02, torch 2",
        "",
        "A note.",
        "",
        "| what | median | range | n | bar | | |",
        "|---|--:|--:|--:|--:|---|---|",
        "| fast enough | 3 × | 2 to 3.5 | 3 | ≥ 3 × | held |  |",
        "| too slow | 2.9 × |  | 1 | ≥ 3 × | missed |  |",
        "| near | 1.25 × |  | 1 | 0.75 to 1.25 × | held |  |",
        "| far | 0.7 × |  | 1 | 0.75 to 1.25 × | missed |  |",
        "| late | 1.6 s |  | 1 | ≤ 1.5 s | missed |  |",
        "| absent | – |  |  | ≤ 1.5 s | not measured | no GPU here |",
        "| shown | 1,234 trials/h |  | 1 |  |  |  |",
    ]


def test_a_median_that_only_rounds_to_its_bar_is_missed() -> None:
    row = Row(what="nearly", unit="×", values=(2.996,), bar=Bar(least=3))
    assert row.verdict == "missed"
    assert "| 2.996 × |" in markdown(TABLE.model_copy(update={"rows": (row,)}))


def test_tables_measured_alone_join_those_that_are_kept(tmp_path: Path) -> None:
    other = TABLE.model_copy(update={"name": "other", "title": "Other rows"})
    save(tmp_path, Results(machine="A CPU, 2 cores", tables=(TABLE, other)))
    new = TABLE.model_copy(update={"title": "New rows"})
    path = save(tmp_path, merged(tmp_path, "A CPU, 2 cores", [new]))
    assert path.name == "a-cpu-2-cores.md"
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == [
        "# Speed on A CPU, 2 cores", "## New rows", "## Other rows",
    ]  # fmt: skip
    assert merged(tmp_path, "A CPU, 2 cores", []).tables == (new, other)
    assert merged(tmp_path, "Another", []).tables == ()


def test_a_machine_goes_by_its_gpu_and_processor() -> None:
    assert machine_name(["NVIDIA H100", "NVIDIA H100"]).startswith("NVIDIA H100, ")
    assert slug("NVIDIA H100 80GB HBM3, AMD EPYC, 16 cores") == "nvidia-h100-80gb-hbm3-amd-epyc-16-cores"


def test_ratios_are_taken_in_pairs() -> None:
    assert paired([6.0, 2.0], [2.0, 1.0]) == (3.0, 2.0)
    with pytest.raises(ValueError, match="longer"):
        paired([1.0], [1.0, 2.0])


@pytest.mark.parametrize("name", [name for name in tables.TABLES if name.startswith(("base", "large"))])
def test_without_a_gpu_its_tables_keep_their_bars_and_say_not_measured(name: str, tmp_path: Path) -> None:
    table = command.measured(name, tables.here(None, None, tmp_path, 5, 15, 3))
    assert {row.verdict for row in table.rows} == {"not measured"}
    assert {row.note for row in table.rows} == {"no GPU here"}
    bars = [str(row.bar) for row in table.rows if row.bar]
    expected = {"base-bf16": ["≥ 8", "≥ 3"], "base-bf16-steps": ["≥ 0.5"], "large-tf32": ["≥ 4", "≥ 1.5"]}
    assert bars == expected.get(name, bars)


def test_contenders_take_turns_and_one_that_fails_is_left_out() -> None:
    order = []

    def one() -> float:
        order.append("one")
        return float(len(order))

    def other() -> float:
        order.append("other")
        if order.count("other") == 2:
            raise NotMeasured("it broke")
        return 0.0

    found, failed = tables.in_turns({"one": one, "other": other}, 3)
    assert order == ["one", "other", "one", "other", "one"]
    assert found == {"one": [1.0, 3.0, 5.0], "other": []}
    assert failed == {"other": "it broke"}


SAYS = "print('noise'); print('{\"seconds\": 1.5}')"
WAITS = f"import sys; print('noise'); print('ready', flush=True); assert sys.stdin.readline() == '\\n'; {SAYS}"
BREAKS = "import sys; sys.exit('first\\nlast words')"


def test_contenders_are_processes_that_answer_last() -> None:
    seconds, answers = pool([[sys.executable, "-c", SAYS]] * 3, 2, {})
    assert answers == [{"seconds": 1.5}] * 3
    assert seconds > 0
    assert together([[sys.executable, "-c", WAITS]] * 2, {})[1:] == (1.5, [{"seconds": 1.5}] * 2)


@pytest.mark.parametrize("broken", [BREAKS, "print('ready', flush=True); " + BREAKS])
def test_a_contender_that_breaks_is_not_measured_and_says_why(broken: str) -> None:
    command = [sys.executable, "-c", broken]
    with pytest.raises(NotMeasured, match=r"^last words$"):
        run(command, {})
    with pytest.raises(NotMeasured, match=r"^last words$"):
        together([[sys.executable, "-c", WAITS], command], {})


def test_options() -> None:
    given = command.asked([])
    assert (given.repetitions, given.only, given.device, given.long) == (5, None, None, False)
    assert command.asked(["--only", "start", "base-bf16"]).only == ["start", "base-bf16"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "everything"], "invalid choice: 'everything'"),
        (["--repetitions", "0"], "1 or more"),
        (["--device", "cpu"], "belong together"),
        (["--device", "cpu", "--shape", "tiny"], "belong together"),
    ],
)
def test_options_that_make_no_sense(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.asked(words)
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_the_scales_own_sweep_is_planned_and_resumed(tmp_path: Path) -> None:
    bench_scale.make(tmp_path, 40)
    bench_scale.resume(tmp_path)
    assert len(list(tmp_path.glob("results/*/trials/*.json"))) == 39
