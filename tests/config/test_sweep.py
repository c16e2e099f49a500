"""Sweep files: expansion, ids, profiles, bundles, seeds, filters, --set, and every error as a person reads it."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.common.errors import HarnessError
from harness.common.text import show
from harness.config import field_types, keys, script_file, sweep_file
from harness.config.axes import unused_settings
from harness.config.parameters import parameters
from harness.config.recipe import ModelSpec, Recipe, Seeds, TaskFiles, TaskSpec, WordList
from harness.config.search_space import Pruner, Range, Search
from harness.config.sweep_file import Profile, load, profiles
from harness.config.trials import Cell, Sweep, Trial, expand, orphaning_change, where

GOLDEN = Path(__file__).parents[1] / "golden"
HEAD = "task: embedded\nmodel: embedded\n"
TINY = HEAD + "lr: 1e-5\nepochs: 1\nseeds: 1\n"
AXES = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: [3, 10]\nseeds: 1..3\n"


def of(folder: Path, text: str, *overrides: str, profile: str | None = None) -> Sweep:
    """Load a sweep from YAML text."""
    path = folder / "made.yaml"
    path.write_text(text)
    return load(path, profile, overrides)


def ids(sweep: Sweep) -> list[str]:
    return [trial.id for trial in expand(sweep)]


def labels(sweep: Sweep) -> list[str]:
    return [cell.label for cell in sweep.cells]


def golden(name: str, text: str) -> None:
    """Compare with a golden file; GOLDEN=write writes it anew, to be looked at before it is kept."""
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


# ------------------------------------------------------------------------------------------------------- expansion

AXIS_VALUES = {
    "lr": st.floats(1e-7, 1),
    "bias_correction": st.booleans(),
    "epochs": st.integers(1, 30),
    "weight_decay": st.floats(0, 1),
    "batch_size": st.integers(1, 64),
    "precision": st.sampled_from(["float32", "tf32", "bf16"]),
}


@st.composite
def written(draw: st.DrawFn) -> dict[str, object]:
    """A sweep as a mapping: axes and single values in any order, and some seeds."""
    names = draw(st.sets(st.sampled_from(sorted(AXIS_VALUES)))) | {"lr", "epochs"}
    fields: dict[str, object] = {"task": "embedded", "model": "embedded"}
    for name in draw(st.permutations(sorted(names))):
        values = draw(st.lists(AXIS_VALUES[name], min_size=1, max_size=3, unique=True))
        fields[name] = values if len(values) > 1 or draw(st.booleans()) else values[0]
    fields["seeds"] = draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4, unique=True))
    return fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


@given(fields=written())
@settings(deadline=None, max_examples=60)
def test_expansion_is_pure_counts_cells_times_seeds_and_gives_each_trial_its_own_id(folder, fields):
    text = json.dumps(fields)  # JSON is YAML
    sweep = of(folder, text)
    expand.cache_clear()
    trials = expand(sweep)
    axes = {name: value for name, value in fields.items() if isinstance(value, list) and name != "seeds"}
    assert sweep.axes == tuple(axes)
    cells = 1
    for values in axes.values():
        cells *= len(values)
    assert len(trials) == cells * len(fields["seeds"]) == len({trial.id for trial in trials})
    assert [(trial.cell, trial.seeds.seed) for trial in trials] == [
        (cell, seed) for cell in range(cells) for seed in fields["seeds"]
    ]
    expand.cache_clear()
    assert expand(of(folder, text)) == trials
    assert Sweep.model_validate_json(sweep.model_dump_json()) == sweep


@given(fields=written(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_more_seeds_values_or_axes_keep_the_old_ids(folder, fields, data):
    old = set(ids(of(folder, json.dumps(fields))))
    more = dict(fields, seeds=[*fields["seeds"], max(fields["seeds"]) // 2 + 2**62])
    if len(set(more["seeds"])) == len(more["seeds"]):
        assert old <= set(ids(of(folder, json.dumps(more))))
    name = data.draw(st.sampled_from([name for name in fields if name in AXIS_VALUES]))
    values = fields[name] if isinstance(fields[name], list) else [fields[name]]
    value = data.draw(AXIS_VALUES[name])
    if value not in values:
        assert old <= set(ids(of(folder, json.dumps(dict(fields, **{name: [value, *values]})))))
    # A new axis that takes in the value that held before, which for a field not written is its default.
    if "dropout" not in fields:
        assert old < set(ids(of(folder, json.dumps({"dropout": [0.0, 0.1], **fields}))))


def test_the_last_axis_varies_fastest_and_the_files_order_holds(tmp_path):
    sweep = of(tmp_path, AXES)
    assert sweep.axes == ("lr", "bias_correction", "epochs")
    assert labels(sweep)[:3] == [
        "lr 1e-5, bias correction off, epochs 3",
        "lr 1e-5, bias correction off, epochs 10",
        "lr 1e-5, bias correction on, epochs 3",
    ]
    assert [trial.seeds.seed for trial in expand(sweep)[:4]] == [1, 2, 3, 1]
    assert labels(of(tmp_path, TINY)) == ["the only recipe"]


def test_ids_never_change(tmp_path):
    """Long runs stand under these ids: a difference here orphans every result there is."""
    every = (
        HEAD + "lr: 3.3e-4\nbias_correction: off\nepochs: 2\nbatch_size: 8\neval_batch_size: 7\nmax_length: 32\n"
        "padding: batch\ntoken_type_ids: on\nwarmup_ratio: 0\nweight_decay: 0\nbeta1: 0.8\nbeta2: 0.99\neps: 1e-8\n"
        "max_grad_norm: null\ndropout: 0\nprecision: bf16\neval_steps: 5\nseeds: 0\n"
    )
    own = (
        "task: {name: mine, files: {train: a.tsv, validation: b.tsv}, text: 1, label: class, header: on, metric: f1}\n"
        "model: org/name\nlr: 1\nepochs: 1\nseeds: [5, 9223372036854775807]\n"
    )
    held = HEAD + "lr: [0.001, 0.05]\nepochs: 3\nseeds: 1..2\ninit_seed: 7\ndropout_seed: [1, 2]\n"
    lines = [one for text in (AXES, every, own, held) for one in ids(of(tmp_path, text))]
    golden("trial_ids.txt", "\n".join(lines) + "\n")


def test_where_the_files_lie_is_no_part_of_an_id(tmp_path):
    at_home = "task: {name: mine, files: here}\nmodel: {name: m, folder: here}\nlr: 1e-5\nepochs: 1\nseeds: 1..2\n"
    elsewhere = at_home.replace("here", "/else/where")
    split = at_home.replace("files: here", "files: {train: a.csv, validation: b.csv}")
    nowhere = "task: mine\nmodel: m\nlr: 1e-5\nepochs: 1\nseeds: 1..2\n"
    assert ids(of(tmp_path, at_home)) == ids(of(tmp_path, elsewhere)) == ids(of(tmp_path, nowhere))
    assert ids(of(tmp_path, split)) == ids(of(tmp_path, nowhere))
    assert ids(of(tmp_path, nowhere.replace("mine", "other"))) != ids(of(tmp_path, nowhere))
    # a folder as the model is called by its last part
    assert ids(of(tmp_path, nowhere.replace("model: m", "model: ./any/m"))) == ids(of(tmp_path, nowhere))
    words = nowhere + "augment: insert\nsynonyms: any/words.tsv\n"
    assert ids(of(tmp_path, words)) == ids(of(tmp_path, words.replace("any/words", "other/words")))
    assert ids(of(tmp_path, words)) == ids(of(tmp_path, words.replace("any/words.tsv", "{name: words, file: x}")))
    assert ids(of(tmp_path, words)) != ids(of(tmp_path, words.replace("any/words", "any/more")))
    through = nowhere + "augment: backtranslate\ntranslator: {name: ende, folder: a}\nback_translator: ./deen\n"
    assert ids(of(tmp_path, through)) == ids(of(tmp_path, through.replace("folder: a", "folder: b")))
    assert ids(of(tmp_path, through)) != ids(of(tmp_path, through.replace("./deen", "./frde")))
    # spelling the default out changes nothing either
    assert ids(of(tmp_path, nowhere + "batch_size: 16\nwarmup_ratio: 0.1\n")) == ids(of(tmp_path, nowhere))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2e-5, "2e-5"), (6e-4, "6e-4"), (0.01, "0.01"), (0.1, "0.1"), (1.0, "1"), (1e-10, "1e-10"), (True, "on"),
     (False, "off"), (None, "none"), (16, "16"), ("batch", "batch")],
)  # fmt: skip
def test_values_are_shown_as_people_write_them(value, shown):
    assert show(value) == shown


# ------------------------------------------------------------------------------------------------- what YAML may say


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.e-5", "0.00001", "+1e-5", "10e-6", ".1e-4", "0.1e-4"])
def test_a_rate_is_a_number_however_it_is_written(tmp_path, text):
    assert of(tmp_path, TINY.replace("1e-5", text)).cells[0].recipe.lr == 1e-5
    assert of(tmp_path, TINY, f"lr={text}").cells[0].recipe.lr == 1e-5


@pytest.mark.parametrize(("text", "value"), [("on", True), ("off", False), ("true", True), ("no", False)])
def test_switches_are_on_and_off(tmp_path, text, value):
    assert of(tmp_path, TINY + f"bias_correction: {text}\n").cells[0].recipe.bias_correction is value


def test_a_profile_adds_to_the_sweep_and_overrides_it(tmp_path):
    text = (
        HEAD + "title: All\nlr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..25\nprofiles:\n"
        "  paper: {min_gpu_gib: 24, model: big}\n  small: {lr: 1e-4, seeds: 1..2, stand_in: not BERT}\n"
    )
    paper, small = of(tmp_path, text), of(tmp_path, text, profile="small")
    assert (paper.profile, paper.folder_name, paper.title, paper.stand_in) == ("paper", "made@paper", "All", None)
    assert len(expand(paper)) == 50
    assert (small.folder_name, small.stand_in, small.axes) == ("made@small", "not BERT", ())
    assert len(expand(small)) == 2
    found = profiles(tmp_path / "made.yaml")
    assert [(one.name, one.min_gpu_gib, one.model.name) for one in found] == [
        ("paper", 24.0, "big"),
        ("small", 0.0, "embedded"),
    ]
    assert of(tmp_path, TINY).folder_name == "made@default"
    assert of(tmp_path, "\ufeff" + TINY.replace("\n", "\r\n")) == of(tmp_path, TINY)


def test_named_recipes_are_one_axis(tmp_path):
    bundles = "recipes:\n  usual: {bias_correction: off, epochs: 3}\n  long: {epochs: 20}\n"
    sweep = of(tmp_path, HEAD + bundles + "lr: [1e-5, 2e-5]\nseeds: 1\n")
    assert labels(sweep) == [
        "recipe usual, lr 1e-5",
        "recipe usual, lr 2e-5",
        "recipe long, lr 1e-5",
        "recipe long, lr 2e-5",
    ]
    assert [cell.recipe.epochs for cell in sweep.cells] == [3, 3, 20, 20]
    plain = of(tmp_path, HEAD + "lr: 1e-5\nbias_correction: off\nepochs: 3\nseeds: 1\n")
    assert ids(plain) == ids(sweep)[:1]
    assert [cell.recipe.epochs for cell in of(tmp_path, HEAD + bundles + "lr: 1e-5\nepochs: 1\nseeds: 1\n").cells] == [
        3,
        20,
    ]


def test_include_and_exclude_choose_cells(tmp_path):
    everything = labels(of(tmp_path, AXES))
    only = of(tmp_path, AXES + "include: [{lr: 1e-5, epochs: 3}, {bias_correction: on, epochs: [3, 10], lr: 2e-5}]\n")
    assert labels(only) == [everything[i] for i in (0, 2, 6, 7)]
    without = of(tmp_path, AXES + "exclude:\n- {bias_correction: off, epochs: 10}\n- lr: 0.00002\n")
    assert labels(without) == [everything[i] for i in (0, 2, 3)]
    both = of(tmp_path, AXES + "include: [{lr: 1e-5}]\nexclude: [{epochs: 10}]\n")
    assert labels(both) == [everything[i] for i in (0, 2)]
    assert set(ids(only)) < set(ids(of(tmp_path, AXES)))


def test_seeds_are_one_integer_or_held_or_crossed(tmp_path):
    def seeds(lines: str) -> list[tuple[int, ...]]:
        return [tuple(one.model_dump().values()) for one in of(tmp_path, TINY.replace("seeds: 1\n", lines)).seeds]

    assert seeds("seeds: 1..3\n") == [(1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)]
    assert seeds("seeds: [7, 1..2, 5 .. 5]\n") == [(n, n, n, n) for n in (7, 1, 2, 5)]
    assert seeds("seeds: 1..2\ninit_seed: 9\n") == [(1, 9, 1, 1), (2, 9, 2, 2)]
    assert seeds("seeds: [4]\ninit_seed: 1..2\norder_seed: [5, 6]\n") == [
        (4, 1, 5, 4), (4, 1, 6, 4), (4, 2, 5, 4), (4, 2, 6, 4)
    ]  # fmt: skip
    assert seeds("seeds: 1\ninit_seed: 2\norder_seed: 3\ndropout_seed: 4\n") == [(1, 2, 3, 4)]


def test_set_changes_one_setting_of_the_file(tmp_path):
    assert labels(of(tmp_path, AXES, "lr=[1e-4,3e-4]", "epochs=2"))[::2] == [
        "lr 1e-4, bias correction off",
        "lr 3e-4, bias correction off",
    ]
    assert len(of(tmp_path, TINY, "seeds=1..40").seeds) == 40
    assert of(tmp_path, TINY, "bias_correction=off").cells[0].recipe.bias_correction is False
    assert of(tmp_path, TINY, "title=A = b").title == "A = b"
    assert of(tmp_path, TINY, "max_grad_norm=null").cells[0].recipe.max_grad_norm is None
    recipe = of(tmp_path, TINY, "task.name=mine", "task.files=dir", "task.text=0", "model.folder=/m").cells[0].recipe
    assert (recipe.task.name, recipe.task.text) == ("mine", 0)
    assert recipe.task.files is not None
    assert (recipe.task.files.train, recipe.task.files.validation) == ("dir", "dir")
    assert (recipe.model.name, recipe.model.folder) == ("embedded", "/m")
    split = of(tmp_path, TINY, "task.files=dir", "task.files.train=a.csv").cells[0].recipe.task.files
    assert split is not None
    assert (split.train, split.validation) == ("a.csv", "dir")
    assert of(tmp_path, TINY, "model=~/some/bert").cells[0].recipe.model.name == "bert"
    assert of(tmp_path, TINY, "lr=1", "lr=2").cells[0].recipe.lr == 2
    text = TINY + "profiles: {a: {epochs: 5}}\n"
    assert of(tmp_path, text, "epochs=7").cells[0].recipe.epochs == 7  # after the profile


def test_anchors_and_merge_keys_work(tmp_path):
    text = (
        "profiles:\n  a: &a {task: embedded, model: embedded, lr: &rates [1e-5, 2e-5], epochs: 1, seeds: 1}\n"
        "  b: &b {<<: *a, epochs: 2}\n  c: {<<: [*b, *a], lr: 3e-5}\n  d: {<<: *b, lr: *rates}\n"
    )
    b, c, d = (of(tmp_path, text, profile=name) for name in "bcd")
    assert [cell.recipe.epochs for sweep in (b, c, d) for cell in sweep.cells] == [2, 2, 2, 2, 2]
    assert [cell.recipe.lr for sweep in (b, c, d) for cell in sweep.cells] == [1e-5, 2e-5, 3e-5, 1e-5, 2e-5]


# ----------------------------------------------------------------------------------------------------------- errors

BAD: dict[str, str | bytes | tuple[str, ...]] = {
    "unknown key": TINY + "epoch: 3\n",
    "unknown key, nothing close": TINY + "zzz: 3\n",
    "unknown key in a profile": TINY + "profiles: {a: {learning: 3}}\n",
    "unknown key in task": TINY.replace("task: embedded", "task: {name: mine, file: x}"),
    "unknown key in capitals": TINY.replace("task: embedded", "task: {name: mine, Files: x}"),
    "unknown key in model": TINY.replace("model: embedded", "model: {name: m, path: x}"),
    "unknown key in files": TINY.replace("task: embedded", "task: {name: m, files: {train: a, validation: b, dev: c}}"),
    "unknown key in a recipe": HEAD + "lr: 1e-5\nseeds: 1\nrecipes: {a: {epoch: 3}}\n",
    "duplicate key": TINY + "lr: 2e-5\n",
    "duplicate key inside": TINY + "profiles:\n  a: {}\n  a: {}\n",
    "key that is a switch": TINY + "on: 3\n",
    "key that is a number": TINY + "profiles: {1: {}}\n",
    "key that is a list": TINY + "? [a, b]\n: 3\n",
    "missing lr": TINY.replace("lr: 1e-5\n", ""),
    "missing task": TINY.replace("task: embedded\n", ""),
    "missing name": TINY.replace("task: embedded", "task: {files: x}"),
    "missing validation": TINY.replace("task: embedded", "task: {name: mine, files: {train: x}}"),
    "missing seeds": TINY.replace("seeds: 1\n", ""),
    "lr 0": TINY.replace("1e-5", "0"),
    "lr negative": TINY.replace("1e-5", "-1e-5"),
    "lr nan": TINY.replace("1e-5", "nan"),
    "lr .nan": TINY.replace("1e-5", ".nan"),
    "lr .inf": TINY.replace("1e-5", ".inf"),
    "lr 1e400": TINY.replace("1e-5", "1e400"),
    "lr as text": TINY.replace("1e-5", "'1e-5'"),
    "lr as words": TINY.replace("1e-5", "small"),
    "lr without brackets": TINY.replace("1e-5", "1e-5, 2e-5"),
    "lr empty": TINY.replace("1e-5", ""),
    "lr on": TINY.replace("1e-5", "on"),
    "lr a mapping": TINY.replace("1e-5", "{low: 1e-5}"),
    "lr 0 on an axis": TINY.replace("1e-5", "[1e-5, 0]"),
    "epochs 0": TINY.replace("epochs: 1", "epochs: 0"),
    "epochs 2.5": TINY.replace("epochs: 1", "epochs: 2.5"),
    "epochs on": TINY.replace("epochs: 1", "epochs: on"),
    "switch 1": TINY + "bias_correction: 1\n",
    "switch as text": TINY + "bias_correction: 'off'\n",
    "switch misspelt": TINY + "bias_correction: offf\n",
    "dropout 1": TINY + "dropout: 1\n",
    "warm-up 2": TINY + "warmup_ratio: 2\n",
    "norm none": TINY + "max_grad_norm: none\n",
    "precision": TINY + "precision: fp16\n",
    "metric": TINY.replace("task: embedded", "task: {name: mine, metric: acc}"),
    "metric of tokens for texts": TINY.replace("task: embedded", "task: {name: mine, metric: f1_entity}"),
    "metric of texts for tokens": TINY.replace("task: embedded", "task: {name: mine, kind: tokens, metric: accuracy}"),
    "pairs of tokens": TINY.replace("task: embedded", "task: {name: mine, kind: tokens, text_pair: 1}"),
    "kind": TINY.replace("task: embedded", "task: {name: mine, kind: words}"),
    "column": TINY.replace("task: embedded", "task: {name: mine, text: 1.5}"),
    "task a number": TINY.replace("task: embedded", "task: 3"),
    "task nameless": TINY.replace("task: embedded", "task: ''"),
    "files a list": TINY.replace("task: embedded", "task: {name: mine, files: [a, b]}"),
    "title a date": TINY + "title: 2020-01-01\n",
    "title no date": TINY + "title: 2020-99-99\n",
    "memory": TINY + "profiles: {a: {min_gpu_gib: lots}}\n",
    "baseline unknown": TINY + "baselines: [majority, svm]\n",
    "baseline twice": TINY + "baselines: [majority, majority]\n",
    "baseline nothing": TINY + "baselines:\n",
    "baseline a mapping": TINY + "baselines: {majority: on}\n",
    "empty axis": TINY.replace("1e-5", "[]"),
    "axis of lists": TINY.replace("1e-5", "[[1e-5, 2e-5]]"),
    "same rate twice": TINY.replace("1e-5", "[1e-5, 0.00001]"),
    "same task twice": TINY.replace("task: embedded", "task: [{name: a, files: x}, {name: a, files: y}]"),
    "nameless tasks": TINY.replace("task: embedded", "task: [{files: x}, {files: y}]"),
    "doubled seed": TINY.replace("seeds: 1", "seeds: [1..5, 3]"),
    "no seeds": TINY.replace("seeds: 1", "seeds: []"),
    "seeds empty": TINY.replace("seeds: 1", "seeds:"),
    "seeds huge": TINY.replace("seeds: 1", "seeds: 1..10000000"),
    "seeds reversed": TINY.replace("seeds: 1", "seeds: 5..1"),
    "seed negative": TINY.replace("seeds: 1", "seeds: -1"),
    "seed a switch": TINY.replace("seeds: 1", "seeds: [1, on]"),
    "seed 1.5": TINY.replace("seeds: 1", "seeds: 1.5"),
    "seed too large": TINY.replace("seeds: 1", "seeds: 9223372036854775808"),
    "seed digits without end": TINY.replace("seeds: 1", "seeds: 1.." + "9" * 5000),
    "seed range of three dots": TINY.replace("seeds: 1", "seeds: 1...5"),
    "init seed": TINY + "init_seed: x\n",
    "all parts set": TINY.replace("seeds: 1", "seeds: 1..2") + "init_seed: 1\norder_seed: 1\ndropout_seed: 1\n",
    "too many seeds": TINY + "init_seed: 1..5000\norder_seed: 1..5000\n",
    "too many trials": AXES.replace("1..3", "1..20000"),
    "no profiles": TINY + "profiles: {}\n",
    "profiles empty": TINY + "profiles:\n",
    "profile empty": TINY + "profiles:\n  a:\n",
    "profile with a slash": TINY + "profiles: {a/b: {}}\n",
    "unknown profile": ("--profile paper", TINY + "profiles: {embedded: {}, big: {}}\n"),
    "include no axis": AXES + "include: [{batch_size: 16}]\n",
    "include without axes": TINY + "include: [{lr: 1e-5}]\n",
    "include unknown value": AXES + "include: [{lr: 3e-5}]\n",
    "include a switch for a number": AXES.replace("[3, 10]", "[1, 10]") + "include: [{epochs: on}]\n",
    "include a mapping": AXES + "include: {lr: 1e-5}\n",
    "include a list of words": AXES + "include: [lr]\n",
    "exclude everything": AXES + "exclude: [{lr: [1e-5, 2e-5]}]\n",
    "no recipes": HEAD + "lr: 1e-5\nseeds: 1\nrecipes: {}\n",
    "recipes a list": HEAD + "lr: 1e-5\nseeds: 1\nrecipes: [usual]\n",
    "axis in a recipe": HEAD + "lr: 1e-5\nseeds: 1\nrecipes: {usual: {epochs: [3, 10]}}\n",
    "recipe and axis": HEAD + "lr: 1e-5\nseeds: 1\nepochs: [3, 10]\nrecipes: {usual: {epochs: 3}}\n",
    "equal recipes": HEAD + "lr: 1e-5\nseeds: 1\nrecipes: {a: {epochs: 3}, b: {epochs: 3, batch_size: 16}}\n",
    "empty file": "",
    "a list": "- lr: 1\n",
    "a word": "lr\n",
    "not UTF-8": TINY.encode() + b"title: caf\xe9\n",
    "a line of 5 MB": TINY + "title: " + "a" * 5_000_000 + "\n",
    "tab": HEAD + "seeds:\n\t- 1\n",
    "broken": HEAD + "lr: [1e-5\nepochs: 3\n",
    "two documents": TINY + "---\n" + TINY,
    "tag": TINY + "title: !!python/object:os.system x\n",
    "unknown alias": TINY + "title: *nothing\n",
    "merge of a word": TINY + "profiles: {a: {<<: word}}\n",
    "nested without end": "lr: " + "[" * 3000,
    "control character": TINY + "title: a\x00b\n",
    "mixout 1": TINY + "mixout: 1\n",
    "layerwise decay 0": TINY + "layerwise_lr_decay: 0\n",
    "schedule": TINY + "schedule: triangular\n",
    "a power without its schedule": TINY + "schedule_power: 2\n",
    "an end without its schedule": TINY + "schedule: cosine\nschedule_end: 1e-6\n",
    "an end above lr": TINY + "schedule: polynomial\nschedule_end: 1e-5\n",
    "frozen twice": TINY + "freeze_steps: 10\nunfreeze_every: 10\n",
    "evaluated twice": TINY + "eval_steps: 10\neval_every: 0.25\n",
    "more than an epoch": TINY + "eval_every: 2\n",
    "parts of a batch": TINY + "gradient_accumulation: 3\n",
    "patience without evaluations": TINY + "early_stopping_patience: 1\n",
    "patience without enough evaluations": TINY.replace("epochs: 1", "epochs: 3") + "early_stopping_patience: 3\n",
    "chosen by without a choice": TINY + "early_stopping_on: score\n",
    "a decay without its average": TINY + "ema_decay: 0.9\n",
    "more ends than epochs": TINY + "averaging: last\n",
    "momentum without SGD": TINY + "momentum: 0.5\n",
    "bias correction of SGD": TINY + "optimizer: sgd\nbias_correction: off\n",
    "bias correction of Adafactor": TINY + "optimizer: adafactor\nbias_correction: off\n",
    "a decay of moments of Adafactor's own": TINY + "optimizer: adafactor\nbeta2: 0.98\n",
    "an augmentation of another name": TINY + "augment: shuffle\n",
    "augmentation rate over 1": TINY + "augment: swap\naugment_rate: 1.5\n",
    "augmentation rate 0": TINY + "augment: swap\naugment_rate: 0\n",
    "a rate without augmentation": TINY + "augment_rate: 0.2\n",
    "a rate of translations": TINY + "augment: backtranslate\ntranslator: ./t\naugment_rate: 0.2\n",
    "copies without augmentation": TINY + "augment_copies: 2\n",
    "synonyms without their file": TINY + "augment: synonyms\n",
    "insertions without a file": TINY + "augment: insert\n",
    "a file without synonyms": TINY + "augment: swap\nsynonyms: words.tsv\n",
    "a list of words as a number": TINY + "augment: insert\nsynonyms: 3\n",
    "a list of words without its file": TINY + "augment: insert\nsynonyms: {name: mine}\n",
    "translations without a folder": TINY + "augment: backtranslate\n",
    "a folder without translations": TINY + "translator: ./t\n",
    "a way back alone": TINY + "augment: backtranslate\nback_translator: ./t\n",
    "negative mixup": TINY + "mixup: -1\n",
    "negative noise": TINY + "neftune_alpha: -5\n",
    "two equal passes": TINY + "r_drop: 1\ndropout: 0\n",
    "a limit for tensors without one": TINY + "clip_per_tensor: on\nmax_grad_norm: null\n",
    "mixout of what is frozen": TINY + "method: lora\nmixout: 0.5\n",
    "no patience in a named recipe": HEAD + "lr: 1\nseeds: 1\nrecipes: {a: {epochs: 1, early_stopping_patience: 2}}\n",
    "set without =": ("lr", TINY),
    "set without key": ("=3", TINY),
    "set unknown": ("lrr=3", TINY),
    "set profiles": ("profiles={}", TINY),
    "set broken": ("lr=[1e-5", TINY),
    "set nothing": ("lr=", TINY),
    "set unknown inside": ("task.file=x", TINY),
    "set unknown inside words": ("synonyms.path=x", TINY + "augment: insert\nsynonyms: words.tsv\n"),
    "set into a number": ("lr.low=3", TINY),
    "set a dot too many": ("task.name.x=3", TINY),
    "set only a dot": ("task.=x", TINY),
    "set into an axis": ("task.metric=f1", TINY.replace("task: embedded", "task: [a, b]")),
    "set into no task": ("task.metric=f1", TINY.replace("task: embedded", "task: 3")),
    "set a model's name away": ("model.folder=x", TINY.replace("model: embedded\n", "")),
}


def test_every_error_is_one_line_that_says_first_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, lines = Path("bad.yaml"), []
    for name, case in BAD.items():
        extra, content = case if isinstance(case, tuple) else ("", case)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        profile = extra.removeprefix("--profile ") if extra.startswith("--profile") else None
        overrides = [extra] if extra and profile is None else []
        with pytest.raises(HarnessError) as caught:  # noqa: PT012  what `harness plan` does
            load(path, profile, overrides)
            profiles(path)
            pytest.fail(name)
        lines.append(f"{name}: {caught.value}")
        assert "\n" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert str(caught.value).count(" (got ") <= 1, str(caught.value)
        for leak in ("None", "True", "False", "Input", "pydantic", "Traceback", "datetime"):
            assert leak not in str(caught.value), str(caught.value)
        assert len(str(caught.value)) < 1500  # all the keys of a sweep
    with pytest.raises(HarnessError) as caught:
        load(Path("absent.yaml"))
    lines.append(f"no file: {caught.value}")
    golden("sweep_errors.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("learning_rate", "lr"),
        ("batch", "batch_size"),
        ("num_train_epochs", "epochs"),
        ("warmup", "warmup_ratio"),
        ("wd", "weight_decay"),
        ("learning", "lr"),
        ("per-device-train-batch-size", "batch_size"),
        ("Scheduler", "schedule"),
        ("bias_corection", "bias_correction"),
    ],
)
def test_a_key_of_other_tools_or_misspelt_is_answered_with_ours_first(folder, key, meant):
    with pytest.raises(HarnessError) as caught:
        of(folder, HEAD + f"{key}: 1\nlr: 1e-5\nepochs: 1\nseeds: 1\n")
    assert str(caught.value).startswith(f"unknown key '{key}' in ")
    assert str(caught.value).endswith(f" (did you mean '{meant}'?). `harness keys` lists every key.")
    assert len(str(caught.value)) < 200


def test_synonyms_are_of_keys_that_there_are_and_none_is_a_key_itself():
    known = {one.name.rpartition(".")[2] for one in keys.all_keys()} | set(TaskFiles.model_fields)
    assert set(field_types._ALSO_CALLED) <= known
    top = {one.name for one in keys.all_keys()}
    assert not top & {name for names in field_types._ALSO_CALLED.values() for name in names}


def test_keys_lists_all_that_a_sweep_file_takes():
    listed = {one.name: one for one in keys.all_keys()}
    assert {name for name in listed if "." not in name} == {*sweep_file._KEYS, "profiles", *script_file.KEYS}
    assert listed["better"][1:3] == ("higher or lower", "higher")
    assert listed["resources.cpus"][1:3] == ("a whole number >= 1", "1")
    assert listed["lr"] == ("lr", "a number > 0", "", "Peak learning rate.")
    assert listed["warmup_ratio"][1:3] == ("a number between 0 and 1", "0.1")
    assert listed["task.kind"][1:3] == ("one of texts, tokens, completion, labels, choice, span", "texts")
    assert {"task.files.test", "search.pruner.patience", "search.space.FIELD.low"} <= set(listed)
    assert listed["max_steps"].default == "null"
    assert listed["bias_correction"].default == "on"


MODELS = (Recipe, TaskSpec, TaskFiles, ModelSpec, WordList, Seeds, Search, Range, Pruner, Profile, Sweep, Cell, Trial)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_of_a_sweep_file_has_a_description_of_one_line(model):
    for name, field in model.model_fields.items():
        text = field.description or ""
        assert text.endswith("."), name
        assert "\n" not in text, name
        assert len(text) <= 100, name
    assert not [key.name for key in keys.all_keys() if not key.description]


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=60), key=st.sampled_from(["", "lr", "seeds", "task", "title"])
)
@settings(deadline=None, max_examples=150)
def test_any_text_is_a_sweep_or_an_error_of_ours(folder, text, key):
    path = folder / "any.yaml"
    path.write_text(HEAD + f"epochs: 1\n{key}: {text}" if key else text, newline="")
    for overrides in ((), (f"lr={text}", "seeds=1"), (text,), (f"task.{text}",)):
        with suppress(HarnessError):
            expand(load(path, None, overrides))


# ------------------------------------------------------------------------------------------------ choosing, editing


@pytest.mark.parametrize("name", ["..yaml", "...yaml", ".hidden.yaml", "a\nb.yaml", "a\x1b[2Jb.yaml"])
def test_a_files_name_that_can_be_no_folders_is_refused(tmp_path, name):
    (tmp_path / name).write_text(AXES)
    with pytest.raises(HarnessError, match="a sweep's file name must be printable and not begin with a dot") as caught:
        load(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "a\0b", ""])
def test_no_name_leads_out_of_the_results(tmp_path, name):
    """Of a profile in a file, and of both in a plan.json, which may be a stranger's."""
    sweep = of(tmp_path, AXES)
    for field in ("name", "profile"):
        with pytest.raises(ValidationError):
            Sweep.model_validate_json(json.dumps(sweep.model_dump(mode="json") | {field: name}))
    with pytest.raises(HarnessError, match="a profile names a folder"):
        of(tmp_path, AXES + f"profiles: {{{json.dumps(name)}: {{}}}}\n")


def test_where_finds_trials_by_axes_fields_and_seeds(tmp_path):
    sweep = of(tmp_path, AXES)
    assert len(where(sweep, [])) == 24
    found = where(sweep, ["lr=2e-05", "bias_correction=off", "epochs=10"], seed=3)
    assert [trial.id for trial in found] == [ids(sweep)[17]]
    assert where(sweep, ["seed=3"]) == where(sweep, [], 3)
    assert len(where(sweep, ["batch_size=16", "init_seed=1"])) == 8
    assert len(where(sweep, ["task=embedded", "model=embedded", "bias_correction=on"])) == 12
    assert where(sweep, ["lr=7e-5"]) == where(sweep, ["bias_correction=1"]) == where(sweep, [], 99) == ()
    bundled = of(
        tmp_path, HEAD + "lr: 1e-5\nseeds: 1\nmax_grad_norm: null\nrecipes: {a: {epochs: 3}, b: {epochs: 4}}\n"
    )
    assert [trial.recipe.epochs for trial in where(bundled, ["recipe=b", "max_grad_norm=none"])] == [4]
    for bad, said in (
        (["lr"], "--where lr is not of the form KEY=VALUE"),
        (["rate=3"], "unknown key 'rate' in --where"),
        (["lr=1", "lr=2"], "--where names lr twice"),
        (["lr=[1"], "not valid YAML"),
    ):
        with pytest.raises(HarnessError, match=said):
            where(sweep, bad)
    with pytest.raises(HarnessError, match="--where names seed twice"):
        where(sweep, ["seed=1"], seed=2)


def test_an_edit_that_orphans_trained_trials_is_named_by_its_axis(tmp_path):
    old = of(tmp_path, AXES)
    trained = expand(old)

    def change(*replaced: tuple[str, str], only: int | None = None) -> str | None:
        text = AXES
        for before, after in replaced:
            assert before in text
            text = text.replace(before, after)
        return orphaning_change(old, of(tmp_path, text), trained[:only])

    assert change() is None
    assert change(("1..3", "1..9"), ("[3, 10]", "[3, 10, 20]"), ("lr", "batch_size: [16, 32]\nlr")) is None
    assert change(("[1e-5, 2e-5]", "[2e-5, 3e-5]")) == "lr 1e-5"
    assert change(("[1e-5, 2e-5]", "2e-5")) == "lr 1e-5"
    assert change(("[off, on]", "on")) == "bias_correction off"
    assert change(("1..3", "2..9")) == "seed 1"
    assert change(("1..3", "11..19")) == "seed 1, 2, 3"
    assert change(("1..3", "1..3\ninit_seed: 5")) == "init_seed 1, 2, 3"
    assert change(("lr:", "batch_size: 32\nlr:")) == "batch_size 16"
    assert change(("lr:", "max_grad_norm: null\nlr:")) == "max_grad_norm 1"
    assert change(("task: embedded", "task: {name: embedded, metric: f1}")) == "task.metric none"
    assert change(("task: embedded", "task: rte")) == "task embedded"
    assert change(("model: embedded", "model: bert")) == "model embedded"
    # the files lie elsewhere and a rate is gone: the rate is the reason
    assert change(("task: embedded", "task: {name: embedded, files: x}"), ("[1e-5, 2e-5]", "2e-5")) == "lr 1e-5"
    assert change(("task: embedded", "task: {name: embedded, files: x}")) is None
    without = orphaning_change(old, of(tmp_path, AXES + "exclude: [{lr: 1e-5, epochs: 10}]\n"), trained)
    assert without == "cell 'lr 1e-5, bias correction off, epochs 10'"
    assert change(("[1e-5, 2e-5]", "[1e-5, 3e-5]"), only=3) is None  # only what was trained counts


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_sweep_loads_under_each_profile(path):
    for profile in profiles(path):
        assert expand(load(path, profile.name))


def test_a_recipe_sets_what_differs_from_the_default_and_what_its_method_reads() -> None:
    plain = Recipe(task=TaskSpec(name="rte"), model=ModelSpec(name="bert-base-uncased"), lr=1e-5, epochs=1)
    lora = plain.model_copy(update={"method": "lora", "mixout": 0.1})
    said = [name for name in ("lora_rank", "mixout", "adapter_size", "method") if lora.is_set(name)]
    assert said == ["lora_rank", "mixout", "method"]
    assert not plain.is_set("lora_rank")


# --------------------------------------------------------------------------------------------- seeds added by rule

RULE = '{first: 3, at_most: 9, step: 2, until: "failure rate of every cell within ±10 points"}'
GROWS = "task: embedded\nmodel: embedded\nepochs: 1\nlr: [1e-5, 2e-5]\nbias_correction: [off, on]\nseeds: "


def grows(folder: Path, rule: str, more: str = "") -> Sweep:
    """A sweep of four cells with these seeds."""
    path = folder / "grows.yaml"
    path.write_text(f"{GROWS}{rule}\n{more}")
    return load(path)


@pytest.mark.parametrize(
    ("until", "goals"),
    [
        ('"failure rate of every cell within ±10 points"', [(None, 0.1)]),
        ("failure rate of each recipe within 7.5 points", [(None, 0.075)]),
        ("bias_correction settled", [("bias_correction", None)]),
        ("bias correction settled within +-5 points", [("bias_correction", 0.05)]),
        ("[lr settled, failure rate of every cell within +/-20 percentage points]", [("lr", None), (None, 0.2)]),
    ],
)
def test_a_rule_for_seeds_says_what_is_waited_for(until: str, goals: list[object], tmp_path: Path) -> None:
    sweep = grows(tmp_path, f"{{first: 3, at_most: 9, until: {until}}}")
    assert sweep.rule is not None
    assert [(goal.axis, goal.within) for goal in sweep.rule.until] == goals
    assert (sweep.rule.step, sweep.due, len(sweep.seeds)) == (3, (3, 3, 3, 3), 9)
    assert [trial.seeds.seed for trial in expand(sweep) if trial.cell == 2] == [1, 2, 3]
    again = grows(tmp_path, f"{{first: 3, at_most: 9, until: {sweep.rule.until[0].words}}}")
    assert again.rule is not None
    assert again.rule.until == sweep.rule.until[:1]  # its words are what a file takes


def test_a_rule_begins_with_the_seeds_and_budget_that_it_names(tmp_path: Path) -> None:
    sweep = grows(tmp_path, '{from: 101, first: 2, at_most: 4, budget: "90 GPU minutes"}')
    assert sweep.rule is not None
    assert (sweep.rule.budget_hours, [seeds.seed for seeds in sweep.seeds]) == (1.5, [101, 102, 103, 104])
    path = tmp_path / "grows.yaml"
    assert load(path, overrides=["seeds.first=3"]).due == (3,) * 4
    assert Sweep.model_validate_json(sweep.model_dump_json()) == sweep
    fixed = grows(tmp_path, "101..102")
    assert [trial.id for trial in expand(fixed)] == [trial.id for trial in expand(sweep)]  # ids know no rule


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("{frist: 5, at_most: 9}", "unknown key 'frist' in seeds (did you mean 'first'?)"),
        ("{at_most: 9, until: lr settled}", "missing required key 'seeds.first' (for example: first: 5)"),
        ("{first: 5, at_most: 9}", "missing required key 'seeds.until'"),
        ("{first: 5, at_most: 5, until: lr settled}", "seeds.at_most must be more than first"),
        ("{first: on, at_most: 9, until: lr settled}", "seeds.first must be a whole number between 1 and"),
        ("{first: 5, at_most: 9, step: 0, until: lr settled}", "seeds.step must be a whole number between 1 and"),
        ("{first: 5, at_most: 9, until: done}", "seeds.until is not a goal (got 'done')"),
        ("{first: 5, at_most: 9, until: 3}", "seeds.until is not a goal (got 3)"),
        ("{first: 5, at_most: 9, until: []}", "seeds.until is an empty list"),
        ("{first: 5, at_most: 9, until: epochs settled}", "seeds.until names 'epochs', which is not an axis with"),
        ("{first: 5, at_most: 9, until: lr settled within 60 points}", "more than 0 and less than 50 points"),
        ("{first: 5, at_most: 9, until: [lr settled, lr settled]}", "seeds.until has two goals for lr"),
        ("{first: 5, at_most: 9, budget: 3}", "seeds.budget must be a time such as 3 GPU hours or 90 minutes (got 3)"),
        ("{first: 5, at_most: 200000, until: lr settled}", "seeds.at_most must be a whole number between 1 and 100000"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_in_a_line(rule: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as raised:
        grows(tmp_path, rule)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_rule_has_no_crossed_seeds_and_none_of_a_search(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="order_seed cannot be a list where seeds are added by rule"):
        grows(tmp_path, RULE, "order_seed: [1, 2]\n")
    assert {trial.seeds.order_seed for trial in expand(grows(tmp_path, RULE, "order_seed: 7\n"))} == {7}
    text = GROWS.replace("lr: [1e-5, 2e-5]\nbias_correction: [off, on]\n", "") + "{seeds}\nsearch: {{space: {{lr: "
    text += "{{low: 1e-5, high: 1e-3}}}}, confirm: {{best: 2, seeds: {confirm}}}}}\n"
    path = tmp_path / "looks.yaml"
    path.write_text(text.format(seeds=RULE, confirm="11..12"))
    with pytest.raises(HarnessError, match=r"seeds must be a list beside search.*Move the rule to search\.confirm"):
        load(path)
    path.write_text(text.format(seeds="1..3", confirm=RULE))
    with pytest.raises(HarnessError, match=r"seeds 1, 2, 3, which it has\)\. Add from: 101"):
        load(path)
    path.write_text(text.format(seeds="1..3", confirm=RULE.replace("{first", "{from: 101, first")))
    search = load(path).search
    assert search is not None
    assert search.confirm_rule is not None
    assert [seeds.seed for seeds in search.confirm] == list(range(101, 110))


# ------------------------------------------------------------------------------------- settings of a choice

METHODS = "task: embedded\nmodel: embedded\nlr: [1e-3, 2e-3]\nepochs: 1\nseeds: 1..2\n"


def test_a_setting_counts_where_it_is_read(tmp_path: Path) -> None:
    both = of(tmp_path, METHODS + "method: [full, lora]\nlora_rank: 4\n")
    assert labels(both) == [
        f"lr {rate}, method {method}" for rate in ("1e-3", "2e-3") for method in ("full", "lora")
    ]  # fmt: skip
    # The ids are those of each method by itself.
    for method in ("full", "lora\nlora_rank: 4"):
        assert set(ids(of(tmp_path, METHODS + f"method: {method}\n"))) <= set(ids(both))
    assert unused_settings(both.cells) == ("lora_rank counts only with method: lora: 2 of 4 cells go without.",)
    assert not unused_settings(of(tmp_path, METHODS + "method: [full, head]\n").cells)


def test_an_axis_that_a_cell_does_not_read_is_no_axis_of_it(tmp_path: Path) -> None:
    both = of(tmp_path, METHODS + "method: [full, lora]\nlora_rank: [4, 8]\nexclude: [{lr: 2e-3, lora_rank: 8}]\n")
    assert labels(both) == [
        "lr 1e-3, method full, lora rank none",
        "lr 1e-3, method lora, lora rank 4",
        "lr 1e-3, method lora, lora rank 8",
        "lr 2e-3, method full, lora rank none",
        "lr 2e-3, method lora, lora rank 4",
    ]
    assert len(set(ids(both))) == 10
    shown = [dict(parameters(both, trial)).get("lora_rank", "none at all") for trial in expand(both)[:6:2]]
    assert shown == [None, 4, 8]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("optimizer: [adamw, sgd]\nmomentum: 0.8\nbias_correction: [off, on]", 3),
        ("schedule: [linear, polynomial]\nschedule_power: [2.0, 3.0]", 3),
        ("averaging: [none, ema]\nema_decay: [0.9, 0.99]", 3),
        ("method: [lora, full]\nmixout: [0.1, 0.5]", 3),
        ("augment: [none, swap]\naugment_rate: [0.1, 0.2]", 3),
        ("method: [full, prefix, adapter]\nvirtual_tokens: [5, 10]\nadapter_size: 8", 4),
    ],
)
def test_settings_of_an_optimizer_a_schedule_and_other_choices_too(tmp_path: Path, text: str, cells: int) -> None:
    assert len(of(tmp_path, METHODS.replace("[1e-3, 2e-3]", "1e-3") + text + "\n").cells) == cells


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: [full, head]\nlora_rank: 4", "lora_rank: 4 requires method: lora (got method: full)"),
        ("recipes: {a: {method: full, lora_rank: 4}, b: {method: lora}}", "lora_rank: 4 requires method: lora"),
        ("dropout: [0.0, 0.1]\nr_drop: 1.0", "r_drop: 1 requires dropout > 0"),  # somebody wants it in both
        ("method: [full, lora]\nlora_rank: [4, 0]", "lora_rank must be a whole number >= 1"),
    ],
)
def test_what_no_cell_reads_or_a_recipe_sets_itself_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(HarnessError, match=re.escape(words)):
        of(tmp_path, METHODS + text + "\n")


def test_a_fixed_setting_beside_named_recipes_counts_where_it_is_read(tmp_path: Path) -> None:
    named = of(tmp_path, METHODS + "recipes: {whole: {}, low: {method: lora}}\nlora_rank: 4\n")
    assert [(cell.recipe.method, cell.recipe.lora_rank) for cell in named.cells[:2]] == [("full", 8), ("lora", 4)]


def test_names_of_any_script_are_names(tmp_path: Path) -> None:
    path = tmp_path / "感情分析.yaml"
    path.write_text(TINY + "profiles: {小: {}}\n")
    sweep = load(path)
    assert sweep.folder_name == "感情分析@小"
    for name in ("../x", "_x", ".x", "a/b"):
        path.write_text(TINY + f"profiles: {{{name}: {{}}}}\n")
        with pytest.raises(HarnessError, match="a profile names a folder"):
            load(path)


@pytest.mark.parametrize("name", ["shift-jisx", "utf-16", "base64", "rot13"])
def test_what_is_no_encoding_of_lines_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(HarnessError, match=re.escape(f"lines end with the byte 0x0a (got '{name}')")):
        of(tmp_path, TINY.replace("task: embedded", f"task: {{name: own, files: x, encoding: {name}}}"))
