"""Kept models asked: the rows of a file are read, answered and written in batches, in their order."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_args

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from harness.common import metrics
from harness.common.errors import HarnessError, describe_os_error
from harness.config.recipe import ModelSpec
from harness.data import choices, tokenization
from harness.data.choice_files import Example
from harness.data.examples import NO_LABEL
from harness.data.text_files import Line
from harness.data.token_files import TaggedSentence
from harness.models import methods, predict_rows, pretrained, saved
from harness.models.outputs import logits_of
from harness.models.predict_output import PredictedAnswers, Writer
from harness.models.predict_rows import Row

# Rows that are read, sorted by length and answered together: short ones then share batches.
_CHUNK = 4096
FORMATS = (".tsv", ".csv", ".jsonl")
Progress = Callable[[int, int], None]  # (rows answered, of how many: 0 where that isn't known yet)


@dataclass(frozen=True)
class PredictionOptions:
    """What to predict, by which kept models; several answer together, by the mean of their probabilities."""

    folders: tuple[Path, ...]
    file: Path
    out: Path | None = None  # None: standard output, tab separated
    text: str | None = None  # columns; None: as the models' task has them
    text_pair: str | None = None
    label: str | None = None
    batch_size: int = 64
    device: str = "cpu"
    threads: int = 1
    probabilities: bool = False  # write that of each class
    max_new_tokens: int = 32  # of a language model's answer


@dataclass(frozen=True)
class Prediction:
    """What predicting gave: rows, their pace, and scores where the file's labels are known."""

    rows: int  # of a token task sentences
    seconds: float  # without loading the models
    metric: str
    score: float | None  # of the answers that were written; None without labels or where it is not known
    members: tuple[float, ...]  # the score of each model by itself; none for one alone or without labels
    disagreeing: float | None  # share of answers on which not all models give the same class; None for one alone
    unscored: str | None  # why there is no score though the file has labels
    token_f1: float | None = None  # of a language model's answers, the mean over rows
    shortened: int = 0  # prompts of a language model that lost their beginning


class Served:
    """A kept model, ready to be asked; adapters of one base share it."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load it; raises HarnessError for a run that diverged, and where weights are not those that were trained."""
        self.folder, self.card, self.device = folder, saved.read_card(folder), torch.device(device)
        saved.refuse_files(folder, self.card)
        self.recipe = self.card.trial.recipe
        self.tokens = self.recipe.task.kind == "tokens"
        self.by_token = self.recipe.task.kind in ("tokens", "span")
        self.outputs = 2 if self.recipe.task.kind == "span" else len(self.card.label_names or ("number",))
        if self.card.final_score is None:
            raise HarnessError(
                f"the saved model {self.card.trial.id} diverged: its weights are not finite", fix="Use another one"
            )
        own = saved.tensors(folder)  # before it is loaded: transformers has no sentence for each kind of damage
        saved.check_files(folder, self.card)
        self.network: pretrained.Network | None = None
        if self.card.form == "model":
            module = pretrained.kept(folder, kind=self.recipe.task.kind)
            saved.check_loaded(folder, module, own)
            self.module = module.to(self.device)
            self.tokenizer = pretrained.tokenizer(ModelSpec(name=folder.name, folder=str(folder)))
            self.positions = pretrained.longest(self.module.config)
            self.max_length = self._room(self.positions)
            return
        self.network = pretrained.network(
            self.recipe.model,
            pretrained.outputs(self.recipe.task.kind, self.outputs),
            self.recipe.peft_config,
            kind=self.recipe.task.kind,
        )
        if self.network.sha256 != self.card.model_sha256:
            raise HarnessError(
                f"the weights of '{self.recipe.model.name}' are not those that this adapter was trained on",
                fix="Restore the checkpoint that its trial began with",
            )
        if self.card.config_sha256 not in (None, self.network.config_sha256):
            raise HarnessError(
                f"the config.json of '{self.recipe.model.name}' is not that with which this adapter was trained",
                fix="Restore the file that its trial began with",
            )
        self.module = self.network.module.to(self.device)
        # Adapters that were kept before have no tokenizer of their own.
        with_tokenizer = ModelSpec(name=folder.name, folder=str(folder))
        self.tokenizer = pretrained.tokenizer(
            with_tokenizer if (folder / "tokenizer_config.json").is_file() else self.recipe.model
        )
        self.positions = self.network.positions
        self.max_length = self._room(self.positions)
        values = {name: torch.from_numpy(value) for name, value in own.items()}
        if self.recipe.method == "lora":
            values[methods.LORA_SCALE] = torch.tensor(self.recipe.lora_alpha / self.recipe.lora_rank)
        self.values = {name: value.to(self.device) for name, value in values.items()}

    def _room(self, positions: int | None) -> int:
        """How many tokens are read: `max_length` may be more than the model can where training's texts are short."""
        return min(self.recipe.max_length, positions or self.recipe.max_length)

    def logits(self, rows: Sequence[Row], batch_size: int, source: str = "the file") -> np.ndarray:
        """The logits of rows, [N, C] float32, C 1 for a regression; of sentences N counts their words."""
        if self.tokens:
            return self._logits_of_words([row for row in rows if isinstance(row, TaggedSentence)], batch_size, source)
        if self.recipe.task.kind == "choice":
            return self._logits_of_choices([row for row in rows if isinstance(row, Example)], batch_size, source)
        lines = [row for row in rows if isinstance(row, Line)]
        pairs = [line.pair or "" for line in lines] if self.card.pairs else None
        ids, segments = tokenization.encode([line.text for line in lines], pairs, self.tokenizer, self.max_length)
        for line, tokens in zip(lines, ids, strict=True):
            if not tokens:
                raise HarnessError(
                    f"line {line.number} gives no token: none of it is in the tokenizer's alphabet",
                    fix="Remove that row",
                )
        return np.stack(self._answers(ids, segments, batch_size))

    def _logits_of_choices(self, examples: Sequence[Example], batch_size: int, source: str) -> np.ndarray:
        """[N, C], a number for each choice of each example; one that is too long is refused."""
        ids, segments = choices.encode(
            [row.text for row in examples], [row.choices for row in examples], self.tokenizer, self.max_length, source,
            [row.number for row in examples],
        )  # fmt: skip
        return np.stack(self._answers(ids, segments, batch_size))[:, 0].reshape(len(examples), -1)

    def _logits_of_words(self, sentences: Sequence[TaggedSentence], batch_size: int, source: str) -> np.ndarray:
        """[N, C] over the words of all sentences, each by its first token; a word without one is refused."""
        examples = predict_rows.as_examples(sentences, source)
        ids, segments, labels = tokenization.encode_words(examples, self.tokenizer, self.max_length)
        answering = [np.array(row) != NO_LABEL for row in labels]
        seen = np.array([int(mask.sum()) for mask in answering])
        tokenization.refuse_unseen(examples, seen, self.tokenizer, self.max_length)
        tokens = self._answers(ids, segments, batch_size)
        return np.concatenate(
            [logits_of_text[: len(mask)][mask] for logits_of_text, mask in zip(tokens, answering, strict=True)]
        )

    def _answers(self, ids: list[list[int]], segments: list[list[int]], batch_size: int) -> list[np.ndarray]:
        """The logits of each row, [C], or of tokens [T, C] with those of the padding behind them."""
        answers: list[np.ndarray] = [np.empty(0)] * len(ids)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            answer = self._answer([ids[row] for row in rows], [segments[row] for row in rows])
            for row, logits in zip(rows, answer, strict=True):
                answers[row] = logits
        return answers

    @torch.inference_mode()
    def _answer(self, ids: list[list[int]], segments: list[list[int]]) -> np.ndarray:
        lengths = torch.tensor([len(row) for row in ids], device=self.device)  # [B]
        tokens = self._padded(ids, int(self.tokenizer.pad_token_id))
        types = self._padded(segments, 0) if self.recipe.token_type_ids and segments[0] else None
        bf16 = self.recipe.precision == "bf16"
        self.module.eval()
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if bf16 else nullcontext():
            if self.network is None:
                mask = torch.arange(tokens.shape[1], device=self.device) < lengths[:, None]  # [B, T]
                given = {} if types is None else {"token_type_ids": types}
                logits = logits_of(self.module(input_ids=tokens, attention_mask=mask.long(), **given))
            else:
                inputs = self.network.inputs(tokens, lengths, types)
                logits = logits_of(functional_call(self.module, methods.given(self.values), args=(), kwargs=inputs))
                logits = logits[:, self.network.virtual :] if self.by_token else logits
        answer: np.ndarray = logits[..., : self.outputs].float().cpu().numpy()
        return answer

    def _padded(self, rows: list[list[int]], value: int) -> Tensor:
        padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
        for line, row in zip(padded, rows, strict=True):
            line[: len(row)] = row
        return torch.from_numpy(padded).to(self.device)


def run(options: PredictionOptions, progress: Progress | None = None) -> Prediction:
    """Answer every row of the file and write it; several models answer one after the other, each loaded once.

    `predict_output.Writer` says what is written. Memory holds one model and some thousand rows; the answers of several
    models wait in a temporary file each.

    Args:
        options: The models, the file, where to write and how.
        progress: Called with (done, all) rows; all is 0 while it is not known.

    Raises:
        HarnessError: Files can't be read or written, the models are of different tasks, or a regression is asked for
            probabilities.
    """
    cards = [saved.read_card(folder) for folder in options.folders]
    card = cards[0]
    if any(_learnt(other) != _learnt(card) for other in cards):
        raise HarnessError(
            "models of different tasks or labels cannot predict together", fix="Name the saved models of one cell"
        )
    if options.probabilities and card.label_names is None:
        raise HarnessError(
            "--probabilities requires a task with classes",
            got=f"{card.trial.recipe.task.name}, a regression",
            fix="Leave --probabilities out",
        )
    if options.out is not None and options.out.suffix.lower() not in FORMATS:
        raise HarnessError(
            f"cannot write {options.out}: unknown file type '{options.out.suffix}'", allowed=", ".join(FORMATS)
        )
    torch.set_num_threads(options.threads)
    clock = _Clock(progress or (lambda done, total: None))
    tally = _Tally(card, len(options.folders))
    with written(options.out) as file, ExitStack() as scratch:
        writer = Writer(file, options.out, options.probabilities)
        answers = _alone(options, clock) if len(options.folders) == 1 else _together(options, clock, scratch)
        for rows, values in answers:  # values [K, N, C]
            mean = values.mean(axis=0, dtype=np.float64)  # [N, C]
            tally.add(rows, values, mean)
            spread = None
            if len(options.folders) > 1 and card.label_names is None:
                spread = values[:, :, 0].std(axis=0, ddof=1, dtype=np.float64)
            elif len(options.folders) > 1:
                spread = (values.argmax(axis=2) == mean.argmax(axis=1)).mean(axis=0)
            writer.write(PredictedAnswers(rows, mean, spread, card.label_names))
    return tally.found(clock.seconds)


def _learnt(card: saved.Card) -> tuple[object, ...]:
    return card.label_names, card.pairs, card.trial.recipe.task


# ---------------------------------------------------------------------------------------------------- the answers

Batch = tuple[list[Row], np.ndarray]  # rows, and their probabilities (of a regression, numbers) [K, N, C]


class _Clock:
    """The time that answering takes, and the rows answered."""

    def __init__(self, progress: Progress) -> None:
        self.seconds, self.progress = 0.0, progress
        self.done = self.total = 0

    def ask(self, model: Served, rows: Sequence[Row], options: PredictionOptions) -> np.ndarray:
        """Probabilities [N, C], of a regression the numbers."""
        began = time.perf_counter()
        logits = model.logits(rows, options.batch_size, str(options.file))
        self.seconds += time.perf_counter() - began
        self.done += len(rows)
        self.progress(self.done, self.total)
        if model.outputs == 1:
            return logits
        powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return shares.astype(np.float32)


def _chunks(options: PredictionOptions, card: saved.Card) -> Iterator[list[Row]]:
    columns = {"text": options.text, "text_pair": options.text_pair, "label": options.label}
    given = {name: int(value) if value.isdigit() else value for name, value in columns.items() if value is not None}
    spec = card.trial.recipe.task.model_copy(update=given)
    label = options.label is not None
    for rows in predict_rows.chunks(options.file, spec, _CHUNK, pairs=card.pairs, label=label):
        yield predict_rows.with_named_choices(rows, card.label_names or (), str(options.file))


def _alone(options: PredictionOptions, clock: _Clock) -> Iterator[Batch]:
    model = Served(options.folders[0], options.device)
    for rows in _chunks(options, model.card):
        yield rows, clock.ask(model, rows, options)[None]


def _together(options: PredictionOptions, clock: _Clock, scratch: ExitStack) -> Iterator[Batch]:
    """The answers of each model go to a file of its own, and are read side by side at the end."""
    files = [scratch.enter_context(tempfile.TemporaryFile()) for _ in options.folders]  # noqa: SIM115
    card = saved.read_card(options.folders[0])
    for file, folder in zip(files, options.folders, strict=True):
        _answer_into(file, folder, options, clock)
        clock.total = clock.total or clock.done * len(files)
        file.seek(0)
    width = len(card.label_names or ("number",))
    for rows in _chunks(options, card):
        size = 4 * width * predict_rows.answers(rows)
        yield rows, np.stack([np.frombuffer(file.read(size), np.float32).reshape(-1, width) for file in files])


def _answer_into(file: IO[bytes], folder: Path, options: PredictionOptions, clock: _Clock) -> None:
    model = Served(folder, options.device)
    for rows in _chunks(options, model.card):
        with _disk(Path(tempfile.gettempdir())):
            file.write(clock.ask(model, rows, options).tobytes())
            file.flush()


class _Tally:
    """How good the answers are, by counts alone where the task has classes."""

    def __init__(self, card: saved.Card, members: int) -> None:
        self.card, self.members, self.rows, self.answers, self.disagreeing = card, members, 0, 0, 0
        self.entities = card.metric == metrics.ENTITIES
        self.names = {name: number for number, name in enumerate(card.label_names or ())}
        classes = len(self.names)
        self.tables = np.zeros((members + 1, classes, classes), dtype=np.int64)  # the last: of all together
        self.numbers: list[np.ndarray] = []  # of a regression, and of words their classes: [K + 1, N] a batch
        self.labels: list[np.ndarray] = []
        self.sizes: list[np.ndarray] = []  # words of each sentence
        self.unscored: str | None = None

    def add(self, rows: Sequence[Row], values: np.ndarray, mean: np.ndarray) -> None:
        """Count a batch: values [K, N, C] of each model and their mean [N, C], beside the file's labels."""
        self.rows += len(rows)
        self.answers += len(mean)
        answers = np.concatenate([values, mean[None]])  # [K + 1, N, C]
        if self.names:
            chosen = answers.argmax(axis=2)  # [K + 1, N]
            self.disagreeing += int((chosen[:-1] != chosen[0]).any(axis=0).sum())
        told = self._told(predict_rows.labels(rows))
        if told is None:
            return
        if not self.names or self.entities:
            self.numbers.append(chosen if self.entities else answers[:, :, 0])
            self.labels.append(told)
            sizes = predict_rows.sizes(rows)
            self.sizes += [] if sizes is None else [sizes]
            return
        classes = len(self.names)
        for table, classes_of_model in zip(self.tables, chosen, strict=True):
            table += np.bincount(told * classes + classes_of_model, minlength=classes**2).reshape(classes, classes)

    def _told(self, labels: list[str | None]) -> np.ndarray | None:
        """The labels as training numbers them; None from the first on that it doesn't know."""
        if self.unscored is not None or labels[0] is None:
            return None
        try:
            if not self.names:
                return np.array([float(str(label)) for label in labels], dtype=np.float32)
            return np.array([self.names[str(label)] for label in labels])
        except (KeyError, ValueError):
            unknown = next((label for label in labels if label not in self.names), labels[0])
            known = ", ".join(self.names) or "numbers"
            self.unscored = f"the file's label '{unknown}' is none of {known}" if self.names else "labels not numbers"
            return None

    def found(self, seconds: float) -> Prediction:
        """The scores, and the rest."""
        scores: list[float | None] = []
        if self.unscored is None and self.numbers and self.entities:
            labels, tags, sizes = np.concatenate(self.labels), np.concatenate(self.numbers, axis=1), self.sizes
            scores = [metrics.entities(answers_of_model, labels, np.concatenate(sizes)).f1 for answers_of_model in tags]
        elif self.unscored is None and self.numbers:
            labels, numbers = np.concatenate(self.labels), np.concatenate(self.numbers, axis=1)
            scores = [
                metrics.score(self._metric, answers_of_model[:, None], labels).value for answers_of_model in numbers
            ]
        elif self.unscored is None and self.tables.any():
            scores = [metrics.of_counts(self._metric, table.tolist()) for table in self.tables]
        members = tuple(score for score in scores[:-1] if score is not None) if self.members > 1 else ()
        several = self.members > 1 and bool(self.names)
        return Prediction(
            rows=self.rows,
            seconds=seconds,
            metric=self._metric,
            score=scores[-1] if scores else None,
            members=members,
            disagreeing=self.disagreeing / self.answers if several else None,
            unscored=self.unscored,
        )

    @property
    def _metric(self) -> str:
        """The model's metric; where that is a function, which needs all logits at once, accuracy or Pearson."""
        if self.card.metric == metrics.QUESTIONS:  # which needs the questions
            return "f1"
        if self.card.metric in get_args(metrics.BuiltIn):
            return self.card.metric
        return "accuracy" if self.names else "pearson"


def gain(prediction: Prediction) -> float | None:
    """What answering together wins over one model, which is as good as they are on average; None where not known."""
    return (
        None
        if prediction.score is None or not prediction.members
        else prediction.score - statistics.fmean(prediction.members)
    )


# ------------------------------------------------------------------------------------------------------ the output


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HarnessError(
            f"cannot write the predictions to {error.filename or path}: {describe_os_error(error)}",
            fix="Make room, or name another --out",
        ) from error


@contextmanager
def written(out: Path | None) -> Iterator[IO[str]]:
    """Standard output; or a file, which is there once all is in it."""
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with _disk(out):
            with temporary.open("w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(out)
    finally:
        temporary.unlink(missing_ok=True)
