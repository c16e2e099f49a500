"""The tasks that go by a name: columns, label names and sizes of GLUE and SuperGLUE, and the one that is shipped."""

from dataclasses import dataclass

from harness.common.metrics import Metric

GLUE_REPOSITORY = "nyu-mll/glue"
SUPERGLUE_REPOSITORY = "aps/super_glue"
EMBEDDED = "embedded"


@dataclass(frozen=True)
class Glue:
    """A GLUE or SuperGLUE task: names of its columns (the hub's, then the official files') and its official sizes.

    `names` are the hub's numbering of the labels; `headerless` the columns of official files that have no header.
    """

    text: tuple[str, ...]
    pair: tuple[str, ...]
    label: tuple[str, ...]
    names: tuple[str, ...]
    metric: Metric
    sizes: tuple[int, int]
    validation: str = "validation"
    headerless: tuple[int, int] | None = None  # text, label
    repository: str = GLUE_REPOSITORY
    kind: str = "texts"  # as `TaskSpec.kind`


# Columns, label names and sizes: Wang et al. 2019 (GLUE) as kept in nyu-mll/glue, and the headers of its TSV files.
_PAIR = (("sentence1",), ("sentence2",))
GLUE: dict[str, Glue] = {
    "cola": Glue(
        ("sentence",),
        (),
        ("label",),
        ("unacceptable", "acceptable"),
        "matthews_correlation",
        (8_551, 1_043),
        headerless=(3, 1),
    ),
    "sst2": Glue(("sentence",), (), ("label",), ("negative", "positive"), "accuracy", (67_349, 872)),
    "mrpc": Glue(
        ("sentence1", "#1 String"),
        ("sentence2", "#2 String"),
        ("label", "Quality"),
        ("not_equivalent", "equivalent"),
        "f1",
        (3_668, 408),
    ),
    "stsb": Glue(*_PAIR, ("label", "score"), (), "pearson", (5_749, 1_500)),
    "qqp": Glue(
        ("question1",),
        ("question2",),
        ("label", "is_duplicate"),
        ("not_duplicate", "duplicate"),
        "f1",
        (363_846, 40_430),
    ),
    "mnli": Glue(
        ("premise", "sentence1"),
        ("hypothesis", "sentence2"),
        ("label", "gold_label"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        (392_702, 9_815),
        validation="validation_matched",
    ),
    "qnli": Glue(
        ("question",), ("sentence",), ("label",), ("entailment", "not_entailment"), "accuracy", (104_743, 5_463)
    ),
    # RTE is in SuperGLUE too, whose files call the columns otherwise.
    "rte": Glue(
        ("sentence1", "premise"),
        ("sentence2", "hypothesis"),
        ("label",),
        ("entailment", "not_entailment"),
        "accuracy",
        (2_490, 277),
    ),
    "wnli": Glue(*_PAIR, ("label",), ("not_entailment", "entailment"), "accuracy", (635, 71)),
    # Wang et al. 2019 (SuperGLUE), as kept in aps/super_glue: the tasks that are classes of a text or a pair. In its
    # files BoolQ's labels are JSON's true and false.
    "boolq": Glue(
        ("passage",),
        ("question",),
        ("label",),
        ("False", "True"),
        "accuracy",
        (9_427, 3_270),
        repository=SUPERGLUE_REPOSITORY,
    ),
    "cb": Glue(
        ("premise",),
        ("hypothesis",),
        ("label",),
        ("entailment", "contradiction", "neutral"),
        "accuracy",
        (250, 56),
        repository=SUPERGLUE_REPOSITORY,
    ),
    # The columns of these two are made by `superglue`: the word before each sentence, a question with an answer.
    "wic": Glue(*_PAIR, ("label",), ("False", "True"), "accuracy", (5_428, 638), repository=SUPERGLUE_REPOSITORY),
    "multirc": Glue(
        ("paragraph",),
        ("question_answer",),
        ("label",),
        ("False", "True"),
        "f1",
        (27_243, 4_848),
        repository=SUPERGLUE_REPOSITORY,
    ),
    "copa": Glue(
        ("premise",), (), ("label",), (), "accuracy", (400, 100), repository=SUPERGLUE_REPOSITORY, kind="choice"
    ),
}
OWN = Glue(("text",), ("text_pair",), ("label",), (), "accuracy", (0, 0))  # files of one's own
NAMES = (*GLUE, EMBEDDED)  # of tasks that need no files
