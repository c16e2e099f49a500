"""Labels that are ids, single classes and one class nearly alone: refused or told, with what accuracy can't show."""

from pathlib import Path

import pytest
from made_files import folder, spec

from harness.common.errors import HarnessError
from harness.data import label_notes, summary, tasks
from harness.execution import inputs


def table(labels: list[object]) -> str:
    return "text\tlabel\n" + "".join(f"text {number}\t{label}\n" for number, label in enumerate(labels))


@pytest.mark.parametrize(
    ("classes", "each", "refused"), [(300, 1, True), (21, 1, True), (20, 1, False), (150, 2, False), (300, 3, False)]
)
def test_a_label_column_of_ids_is_refused(tmp_path: Path, classes: int, each: int, refused: bool) -> None:
    files = folder(tmp_path, table([*range(classes)] * each), table([0, 1]))
    if not refused:
        assert len(tasks.load(spec(files=files)).label_names or ()) == classes
        return
    said = f"the labels look like ids: {classes} classes for {classes} examples, {classes} of them seen once"
    with pytest.raises(HarnessError, match=said):
        tasks.load(spec(files=files))
    shown = summary.describe(spec(files=files), None, 128)  # it is there to look at
    assert shown.notes[0].startswith("A sweep refuses these data: ")
    assert not shown.notes[0].endswith("..")
    assert shown.notes[1] == f"Classes with a single training example: {classes} of {classes} ('0', '1', '2', …)."


def test_a_long_tail_is_told_and_not_refused(tmp_path: Path) -> None:
    labels = [*["common"] * 100, *["usual"] * 40, *(f"rare{number}" for number in range(30))]
    raw = tasks.load(spec(files=folder(tmp_path, table(labels), table(["common", "usual"]))))
    assert label_notes.of(raw) == ("Classes with a single training example: 30 of 32 ('rare0', 'rare1', 'rare10', …).",)


@pytest.mark.parametrize(
    ("dev", "fields", "said"),
    [
        (
            ["yes"] * 5,
            {},
            r"the dev labels are all 'yes' for all 5 examples, so always answering it is",
        ),
        (["no"], {}, "the dev labels are all 'no' for its only example"),
        (
            [1.5] * 4,
            {"metric": "pearson"},
            "the dev labels are all '1.5' for all 4 examples, so no answer correlates",
        ),
    ],
)
def test_a_dev_split_of_one_label_is_refused(tmp_path: Path, dev: list, fields: dict, said: str) -> None:
    train = ["yes", "no", "yes", "no"] if not fields else [1, 2, 3, 4]
    given = spec(files=folder(tmp_path, table(train), table(dev)), **fields)
    raw = tasks.load(given)  # a record that was made of such data can be trained again
    with pytest.raises(HarnessError, match=said):
        inputs.check_task((), raw)
    assert summary.describe(given, None, 128).notes[0].startswith("A sweep refuses these data: ")


def test_a_dev_split_without_entities_is_refused(tmp_path: Path) -> None:
    raw = tasks.load(spec(files=folder(tmp_path, "a\tB-X\nb\tO\n", "a\tO\nb\tO\n", "conll"), kind="tokens"))
    with pytest.raises(HarnessError, match=r"the dev split has no entities.*none can be found"):
        inputs.check_task((), raw)


def test_what_accuracy_can_not_show(tmp_path: Path) -> None:
    dev = ["no"] * 99 + ["yes"]
    files = folder(tmp_path, table(["no", "yes"] * 4), table(dev))
    note = (
        "99 of 100 dev examples are of 'no': always answering that scores 0.990, so that accuracy hardly shows whether "
        "the other 1 is told apart. f1_macro and matthews_correlation show it: set task.metric to one of them."
    )
    assert summary.describe(spec(files=files), None, 128).notes == (note,)
    assert label_notes.of(tasks.load(spec(files=files, metric="matthews_correlation"))) == ()
    assert label_notes.unbalanced("accuracy", 89, 100) == ()
    assert len(label_notes.unbalanced("accuracy", 90, 100)) == 1
    assert label_notes.unbalanced("accuracy", 400, 400) == (
        "All 400 dev examples are of one class: every run counts as failed, whatever it learned.",
    )


@pytest.mark.parametrize(("first", "told"), [("red, new", True), ("red;new", True), ("red|new, old", False)])
def test_names_that_are_joined_otherwise_are_told(tmp_path: Path, first: str, told: bool) -> None:
    raw = tasks.load(spec(files=folder(tmp_path, table([first, "red"]), table([first, "red"])), kind="labels"))
    said = (
        f"No training text has two labels, and 1 of 2 labels have a comma or semicolon ('{first}'): several names "
        "stand in a JSON list, or with | between them."
    )
    assert label_notes.of(raw) == ((said,) if told else ())
