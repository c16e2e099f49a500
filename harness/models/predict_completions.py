"""A kept language model asked: each prompt of a file gets its greedy answer, in the order of the file."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import IO

import torch
from torch import Tensor
from torch.func import functional_call

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.data import completion_files, completions
from harness.data.completion_files import Example
from harness.data.examples import NO_LABEL
from harness.models import methods, saved
from harness.models.generate import greedy
from harness.models.predict import FORMATS, Prediction, PredictionOptions, Served, written

Progress = Callable[[int, int], None]


class LanguageModel(Served):
    """A kept causal language model, ready to answer prompts.

    Attributes:
        shortened: how many prompts lost their beginning so far, for want of positions.
    """

    shortened = 0

    def answers(self, prompts: Sequence[str], chat: bool, most: int) -> list[str]:
        """The greedy answer to each prompt, of at most so many tokens and of no more than its prompt leaves.

        A prompt that leaves less than a quarter of the model's positions, and less than `most`, loses its beginning.
        """
        ids = completions.prompt_ids(prompts, chat, self.tokenizer)
        room = max(1, self.positions - min(most, self.positions // 4)) if self.positions else None
        special = completions.before(self.tokenizer, chat)
        self.shortened += sum(room is not None and len(row) > room for row in ids)
        cut = [
            row if room is None or len(row) <= room else [*row[:special], *row[len(row) - room + special :]]
            for row in ids
        ]
        for number, row in enumerate(cut, 1):
            if not row:
                raise HarnessError(f"prompt {number} gives no token", fix="Give it a text")
        tokens = greedy(
            self.next_logits, cut, end=self.tokenizer.eos_token_id, padding=int(self.tokenizer.pad_token_id),
            most=most, device=str(self.device), positions=self.positions,
        )  # fmt: skip
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]

    def chosen(self, rows: Sequence[Example]) -> list[str]:
        """The likeliest of each row's choices, by the sum over its tokens and the end of the text, as it was scored."""
        counts = [len(row.choices or ()) for row in rows]
        choices = [choice for row in rows for choice in row.choices or ()]
        prompts = [row.prompt for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        chat = rows[0].chat
        special, most = completions.before(self.tokenizer, chat), self.positions or self.recipe.max_length
        encoded = []
        for prompt, example in zip(prompts, completions.encode(prompts, choices, chat, self.tokenizer), strict=True):
            fitting = completions.shortened(example, most, special)
            if fitting is None:
                raise HarnessError(
                    f"a choice is longer than the model's {most} positions", got=f"after '{prompt[:40]}'",
                    fix="Shorten it",
                )  # fmt: skip
            encoded.append(fitting)
        likelihoods = torch.cat([self._likelihoods([example]) for example in encoded])
        best, answers, start = likelihoods.tolist(), list[str](), 0
        for row, count in zip(rows, counts, strict=True):
            own = best[start : start + count]
            answers.append((row.choices or ("",))[own.index(max(own))])
            start += count
        return answers

    def _likelihoods(self, examples: Sequence[completions.Encoded]) -> Tensor:
        """The log-likelihood of each answer after its prompt, in nats, [B]."""
        lengths = torch.tensor([len(example.ids) for example in examples], device=self.device)
        ids = torch.full((len(examples), int(lengths.max())), int(self.tokenizer.pad_token_id))
        labels = torch.full_like(ids, NO_LABEL)
        for place, example in enumerate(examples):
            ids[place, : len(example.ids)] = torch.tensor(example.ids)
            labels[place, : len(example.ids)] = torch.tensor(example.labels(whole=False))
        labels = labels.to(self.device)
        logits = self._logits(ids.to(self.device), lengths).float()
        likelihoods = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return (likelihoods * (labels != NO_LABEL)).sum(-1)

    def next_logits(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The logits of the next token after each row of ids [B, T], of which `lengths` [B] are real: [B, V]."""
        return self._logits(ids, lengths)[torch.arange(len(ids), device=ids.device), lengths - 1].float()

    @torch.no_grad()
    def _logits(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The logits after each token of ids [B, T]: [B, T, V]."""
        self.module.eval()
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if bf16 else nullcontext():
            if self.network is None:
                real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
                logits = self.module(input_ids=ids, attention_mask=real.long()).logits
            else:
                inputs = self.network.inputs(ids, lengths, None)
                logits = functional_call(self.module, methods.given(self.values), args=(), kwargs=inputs).logits
                logits = logits[:, self.network.virtual :]
        whole: Tensor = logits
        return whole


def run(options: PredictionOptions, progress: Progress | None = None) -> Prediction:
    """Answer every prompt of a file and write the answers; scored against the file's own where `label` names them.

    Where the model was scored by comparing choices and every row has some, the answer is the likeliest of them.

    Raises:
        HarnessError: Files can't be read or written, or several models are named.
    """
    card = saved.read_card(options.folders[0])
    if len(options.folders) > 1:
        raise HarnessError("answers of several language models cannot be averaged", fix="Name one saved model")
    if options.probabilities:
        raise HarnessError("--probabilities requires a task with classes", fix="Leave --probabilities out")
    if options.out is not None and options.out.suffix.lower() not in FORMATS:
        raise HarnessError(
            f"cannot write {options.out}: unknown file type '{options.out.suffix}'", allowed=", ".join(FORMATS)
        )
    columns = {"text": options.text, "label": options.label}
    spec = card.trial.recipe.task.model_copy(update={k: v for k, v in columns.items() if v is not None})
    rows = completion_files.examples(options.file, spec, answers=options.label is not None, predicts=True)
    compares = card.metric == "accuracy" and all(row.choices for row in rows)
    torch.set_num_threads(options.threads)
    model, answers, seconds = LanguageModel(options.folders[0], options.device), list[str](), 0.0
    for start in range(0, len(rows), options.batch_size):
        chunk, began = rows[start : start + options.batch_size], time.perf_counter()
        if compares:
            answers += model.chosen(chunk)
        else:
            answers += model.answers([row.prompt for row in chunk], rows[0].chat, options.max_new_tokens)
        seconds += time.perf_counter() - began
        if progress is not None:
            progress(len(answers), len(rows))
    with written(options.out) as file:
        _write(file, "" if options.out is None else options.out.suffix.lower(), answers)
    scores = _scores(rows, answers, strip=not compares)
    return Prediction(
        rows=len(rows), seconds=seconds, metric="accuracy" if compares else "exact_match",
        score=scores[0] if scores else None, members=(), disagreeing=None, unscored=None,
        token_f1=scores[1] if scores and not compares else None, shortened=model.shortened,
    )  # fmt: skip


def _scores(rows: Sequence[Example], answers: Sequence[str], *, strip: bool) -> tuple[float, float] | None:
    """The shares of answers that are the file's own, and their mean token F1; None where the file has none."""
    told = [
        (row.answer.strip() if strip else row.answer, answer)
        for row, answer in zip(rows, answers, strict=True)
        if row.answer is not None
    ]
    if len(told) < len(rows):
        return None
    f1 = [metrics.token_f1(answer, expected) for expected, answer in told]
    return sum(expected == answer for expected, answer in told) / len(told), sum(f1) / len(f1)


def _write(file: IO[str], suffix: str, answers: Sequence[str]) -> None:
    if suffix == ".jsonl":
        file.writelines(json.dumps({"answer": answer}, ensure_ascii=False) + "\n" for answer in answers)
    elif suffix == ".csv":
        csv.writer(file, lineterminator="\n").writerows([["answer"], *([answer] for answer in answers)])
    else:
        file.writelines(f"{' '.join(answer.split())}\n" for answer in ("answer", *answers))
