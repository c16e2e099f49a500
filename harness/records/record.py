"""The record of a trial: what was trained, where, and what came out."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.config.recipe import BaselineName
from harness.config.trials import Trial

SCHEMA_VERSION = 1


RECORDED = "recorded_"  # how the names of a recording's arrays begin in the file


Status = Literal["finished", "crashed", "missing", "unreadable"]


Outcome = Literal["ok", "failed"]


Reason = Literal["constant", "diverged", "collapsed"]


class Environment(BaseModel):
    """Where a trial was trained: all that can change a result's last bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(description="cpu, or cuda with its number")
    device_name: str = Field(description="the processor's or GPU's name")
    threads: int = Field(description="CPU threads of the worker")
    pack_size: int = Field(
        description="lanes of the pack: on a GPU, or with several threads, the last bits may depend on it"
    )
    harness: str = Field(description="its version")
    commit: str | None = Field(description="of the harness; None where it does not run from a repository")
    python: str = Field(description="its version")
    torch: str | None = Field(description="its version, with the build; None where a script trained")
    transformers: str | None = Field(description="its version; None where a script trained")
    # Not in the first records: None there means not known.
    dirty_diff_sha256: str | None = Field(default=None, description="of the package's uncommitted changes; None: none")
    driver: str | None = Field(default=None, description="NVIDIA's; None on a CPU")
    cuda: str | None = Field(default=None, description="that torch was built with; None: for CPUs alone")
    deterministic: bool | None = Field(default=None, description="whether torch had to choose deterministic algorithms")
    matmul_precision: str | None = Field(default=None, description="torch's, of float32: highest, or high for tf32")
    kernels: str | None = Field(default=None, description="the CPU's instructions that torch's kernels use, as AVX512")
    compiler: str | None = Field(
        default=None, description="of steps that were to be compiled, `none` where there was none; None: not asked for"
    )
    kernel_settings: str | None = Field(
        default=None, description="environment variables that choose kernels, as NAME=VALUE with spaces, or `none`"
    )


StepMode = Literal["operations", "recording", "compiled", "cuda graph", "compiled cuda graph"]


class LogitsCheck(BaseModel):
    """How far the logits of a network in a lane are from those of transformers' own call, before any training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    largest_difference: float | None = Field(description="over the largest logit; None where none is finite")
    texts: tuple[int, ...] = Field(description="tokens of each text that both were asked for")


class Measured(BaseModel):
    """What training a trial gave; scores are fractions, `None` where not known (a run that diverged has no score)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    outcome: Outcome | None = Field(
        description="failed: the final score is at or below `majority_score`, or there is none as the run diverged"
    )
    reason: Reason | None = Field(
        description="of a failed run: constant (one class predicted), diverged, collapsed (was above the majority)"
    )
    metric: str = Field(description="what the scores are")
    final_score: float | None = Field(
        description="on the dev set, of the weights that are the result; None: the run diverged"
    )
    best_score: float | None = Field(description="the best of all evaluations on the dev set")
    best_step: int | None = Field(description="updates made when it was reached")
    majority_score: float | None = Field(
        description="of the majority classifier on the dev set; of a language model what the untouched one scores there"
    )
    correct: int | None = Field(description="right answers on the dev set at the end; None for a regression")
    majority_correct: int | None = Field(description="its right answers on the dev set; None for a regression")
    dev_examples: int | None = Field(description="size of the dev set")
    train_examples: int | None = Field(description="size of the training set")
    steps: int | None = Field(description="updates made")
    final_train_loss: float | None = Field(description="mean over the steps of the last epoch, nats")
    final_dev_loss: float | None = Field(description="mean over the dev set, of the weights that are the result, nats")
    label_entropy: float | None = Field(
        description="entropy of the training labels, nats; of choices a token; of answers in a context that of a place "
        "which is none as often as in training and else any of the context; None for a regression"
    )
    diverged_step: int | None = Field(description="first update whose loss or gradient was not finite")
    weights_sha256: str | None = Field(description="over the trained parameters")
    data_sha256: str | None = Field(description="of the texts and labels of train, dev and test")
    model_sha256: str | None = Field(description="of all pretrained weights, trained or not")
    parameters: int | None = Field(description="trained or not, with the parts that the method put in")
    wall_seconds: float = Field(description="of the pack, start to end")
    lane_seconds: float = Field(description="wall_seconds / lanes of the pack")
    peak_memory_bytes: int | None = Field(description="of the pack: on a GPU what torch allocated, else the process")
    # Not in the first records: None there means neither.
    stopped_step: int | None = Field(default=None, description="after which it stopped early; `steps` counts to there")
    kept_step: int | None = Field(default=None, description="whose weights are the result, the best; None: the last")
    # Not in the first records, whose parameters were all trained: None there.
    trained_parameters: int | None = Field(default=None, description="of them trained")
    augmentation_sha256: str | None = Field(
        default=None, description="of the words or translators that changed the training texts; None where none did"
    )
    # Not in the first records, and None where there is no test split.
    test_score: float | None = Field(default=None, description="of the same weights, on examples that chose nothing")
    test_examples: int | None = Field(default=None, description="size of the test set")
    # Not in the first records: None there.
    label_variance: float | None = Field(
        default=None, description="of a regression's training labels: the loss of always answering their mean"
    )
    unknown_share: float | None = Field(
        default=None, description="of the tokens of the split with most; None also where the tokenizer knows all"
    )
    # Not in the first records: None there.
    step_mode: StepMode | None = Field(
        default=None,
        description="how a step reached the device: operation by operation, recorded, compiled, as a CUDA graph",
    )
    step_mode_reason: str | None = Field(
        default=None,
        description="why steps were not compiled or captured, where that was asked for or tried; None: they were",
    )
    logits_check: LogitsCheck | None = Field(default=None, description="made when the worker set the network up")
    # Not in the first records: None there means not recorded.
    tokens_sha256: str | None = Field(
        default=None, description="of the token ids, lengths and types of train, dev and test, as the model reads them"
    )
    tokenizer_sha256: str | None = Field(default=None, description="of the tokenizer's files")
    config_sha256: str | None = Field(
        default=None, description="of what the model's config.json decides: activation, heads, dropout and the like"
    )
    # Not in the first records, nor in later ones where it is 0.5; None of any other task.
    label_threshold: float | None = Field(
        default=None, description="of many labels a text: the probability above which one is given"
    )
    # Not in the first records, and None where no language model answers.
    untouched_score: float | None = Field(
        default=None, description="of the language model on the dev set before any training: what a run has to beat"
    )
    untouched_loss: float | None = Field(default=None, description="its dev loss, nats a token of the answers")
    metric_sha256: str | None = Field(default=None, description="of the file that the metric's function stands in")
    # Not in the first records: None there.
    label_names: tuple[str, ...] | None = Field(
        default=None, description="of the classes in the order of their numbers, as the data spell them; of at most 50"
    )


class ScriptRun(BaseModel):
    """How a script was run, beside what came out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: str = Field(description="as a person would type it")
    exit_code: int = Field(description="of the process")
    further: tuple[tuple[str, float | None], ...] = Field(description="metrics of `also:`; None: NaN or infinite")
    notes: tuple[str, ...] = Field(description="what could not be read, as sentences")
    commit: str | None = Field(description="of the repository that the script ran in; None: it ran in none")
    dirty_diff_sha256: str | None = Field(description="of its uncommitted changes; None: there were none")
    python: str | None = Field(description="version of the script's Python; None: the command names none")
    packages_sha256: str | None = Field(description="of the names and versions of that Python's packages")
    # Not in the first records.
    outside: tuple[tuple[str, float], ...] = Field(
        default=(), description="files of the folder that it ran in that changed meanwhile, and when, Unix time"
    )


_OF_THE_ENGINE = (  # measures that each of its results has, and a script's has not
    "outcome", "majority_score", "dev_examples", "train_examples", "steps", "weights_sha256", "data_sha256",
    "model_sha256", "parameters", "peak_memory_bytes",
)  # fmt: skip


class Record(BaseModel):
    """All that is known of one trial, enough to understand and repeat it without any other file but its arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    id: str = Field(
        description="the trial's: a readable slug and eight hex digits over every field that decides the result"
    )
    sweep: str = Field(description="name of the sweep")
    profile: str = Field(description="name of its profile")
    trial: Trial = Field(description="the recipe with every setting, and the seeds")
    status: Literal["finished", "crashed"] = Field(description="what happened to the process")
    attempts: int = Field(ge=1, description="how often it was trained, with crashes")
    started_utc: str = Field(description="when its pack began, ISO 8601")
    environment: Environment | None = Field(
        description="where it was trained; None where it crashed before that was known"
    )
    measured: Measured | None = Field(description="what came out; None of a crashed trial")
    arrays_sha256: str | None = Field(description="of its .npz file; None where it has none")
    error: str | None = Field(description="the traceback of a crashed trial")
    # Not in the first records, and None of trials that the engine trained.
    script: ScriptRun | None = Field(default=None, description="how a script was run")

    @model_validator(mode="after")
    def _check_whole(self) -> Record:
        """A result of the engine's lacks none of its measures."""
        if self.measured is not None and self.trial.script is None:
            lacking = [name for name in _OF_THE_ENGINE if getattr(self.measured, name) is None]
            if lacking:
                raise ValueError(f"no {', '.join(lacking)}")
        return self


def started_seconds(record: Record) -> float | None:
    """When a record's pack began, seconds since 1970; None where its text is no time, as an edited record's may be."""
    try:
        return datetime.fromisoformat(record.started_utc).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


_MOST_CLASSES = 2**31  # of what a baseline answers
_LARGEST_SCORE = 1e150  # its square is a double


class Baseline(BaseModel):
    """A simple classifier beside a sweep's cells: what it was trained with, and what it answered on the dev set.

    One run a seed, or one alone, without seeds, where no seed changes it. `answers` [R][N] are classes, none for a
    regression; `scores` [R] are fractions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: BaselineName
    settings: str
    task: str
    metric: str
    data_sha256: str
    versions: dict[str, str]
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    failed: tuple[bool, ...] = Field(description="at or below the majority, each run")
    labels: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _check_whole(self) -> Baseline:
        """Scores, verdicts, seeds and answers are of as many runs, and answers of as many examples as labels."""
        runs = len(self.scores)
        if not runs or len(self.failed) != runs or len(self.seeds) not in (0, runs):
            raise ValueError(f"{runs} scores, {len(self.failed)} verdicts and {len(self.seeds)} seeds")
        if len(self.answers) != (runs if self.labels else 0):
            raise ValueError(f"answers of {len(self.answers)} runs and {runs} scores")
        if any(len(answers) != len(self.labels) for answers in self.answers):
            raise ValueError(f"answers to another number of examples than the {len(self.labels)} labels")
        if not all(0 <= answer < _MOST_CLASSES for answers in (self.labels, *self.answers) for answer in answers):
            raise ValueError("labels or answers that are no classes")
        if not all(abs(score) <= _LARGEST_SCORE for score in self.scores):
            raise ValueError("scores that are none")
        return self


@dataclass(frozen=True)
class Recording:
    """How a trial trained, for its diagnosis; R recorded updates, G parts of the network, E evaluations, C classes."""

    layers: np.ndarray  # [G] names: embeddings, 1 attention, 1 feed-forward, …, pooler or output, head
    update: np.ndarray  # [R] int64, counted from 1
    layer_norm: np.ndarray  # [R, G] float32, gradient norm before clipping
    update_norm: np.ndarray  # [R] float32, of the change of all trained weights
    weight_norm: np.ndarray  # [R] float32, of all trained weights before it
    predicted: np.ndarray  # [E, C] int32, dev examples by predicted class; 0 where the logits were not finite
    cls_rank: np.ndarray  # [E] float32, effective rank of the vectors that the head reads; NaN where not known
    cls_cosine: np.ndarray  # [E] float32, their mean cosine


@dataclass(frozen=True)
class Curves:
    """The arrays of a finished trial; S steps, E evaluations, N dev examples, C classes (1 for a regression)."""

    # [S] float32, nats, of each step's batch before its update; of R-Drop's two passes the mean, without its term
    train_loss: np.ndarray
    lr: np.ndarray  # [S] float64, the schedule's rate in force
    grad_norm: np.ndarray  # [S] float32, global, before clipping
    eval_step: np.ndarray  # [E] int64, updates done
    dev_loss: np.ndarray  # [E] float32
    dev_score: np.ndarray  # [E] float64, NaN where the logits were not finite
    logits: np.ndarray  # [N, C] float32, on the dev set after the last update
    labels: np.ndarray  # [N] int64 class or float32 value, of the dev set
    # Of answers in a context logits are `squad.COLUMNS` of each question, labels what the best constant answer scores.
    # Empty, and not kept, where there is no test split of M examples.
    test_logits: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # [M, C] float32
    test_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # [M], as `labels`
    # Of token tasks, where N and M count words: how many of them each sentence has.
    sentences: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    test_sentences: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    recording: Recording | None = None  # kept in the same file, read by itself

    @property
    def arrays(self) -> dict[str, Any]:
        """Everything by the names in the file, where those of the recording begin with `recorded_`."""
        recorded = {} if self.recording is None else vars(self.recording)
        own = {name: value for name, value in vars(self).items() if name != "recording"}
        own = {name: value for name, value in own.items() if name not in OPTIONAL or value.size}
        return own | {f"{RECORDED}{name}": value for name, value in recorded.items()}


OPTIONAL = {one.name for one in fields(Curves) if one.default_factory is not MISSING}  # arrays of `Curves`


@dataclass(frozen=True)
class Surface:
    """Loss over the plane through a pretrained model and two trials of it; W × H points, in distances between weights.

    The pretrained weights lie at (0, 0), the first trial's at (x, 0), the second's where `places` says.
    """

    trials: np.ndarray  # [2] ids
    x: np.ndarray  # [W] float64
    y: np.ndarray  # [H] float64
    loss: np.ndarray  # [H, W] float32, training loss
    gradient_norm: np.ndarray  # [H, W] float64
    places: np.ndarray  # [3, 2] float64: pretrained, first, second
    examples: np.ndarray  # [] of the training data that the loss is over
