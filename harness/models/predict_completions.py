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
from harness.models import methods, saved
from harness.models.generate import greedy
from harness.models.predict import FORMATS, Prediction, PredictionOptions, Served, written

Progress = Callable[[int, int], None]


class LanguageModel(Served):
    """A kept causal language model, ready to answer prompts."""

    def answers(self, prompts: Sequence[str], chat: bool, most: int) -> list[str]:
        """The greedy answer to each prompt, of at most so many tokens; a prompt too long loses its beginning."""
        ids = completions.prompt_ids(prompts, chat, self.tokenizer)
        room = max(1, self.positions - most) if self.positions else None
        special = completions.before(self.tokenizer, chat)
        cut = [
            row if room is None or len(row) <= room else [*row[:special], *row[len(row) - room + special :]]
            for row in ids
        ]
        for number, row in enumerate(cut, 1):
            if not row:
                raise HarnessError(f"prompt {number} gives no token", fix="Give it a text")
        tokens = greedy(
            self.next_logits, cut, end=self.tokenizer.eos_token_id, padding=int(self.tokenizer.pad_token_id),
            most=most, device=str(self.device),
        )  # fmt: skip
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]

    def next_logits(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The logits of the next token after each row of ids [B, T], of which `lengths` [B] are real: [B, V]."""
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
        own: Tensor = logits[torch.arange(len(ids), device=ids.device), lengths - 1].float()
        return own


def run(options: PredictionOptions, progress: Progress | None = None) -> Prediction:
    """Answer every prompt of a file and write the answers; scored against the file's own where `label` names them.

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
    rows = completion_files.examples(options.file, spec, answers=options.label is not None)
    torch.set_num_threads(options.threads)
    model, answers, seconds = LanguageModel(options.folders[0], options.device), list[str](), 0.0
    for start in range(0, len(rows), options.batch_size):
        chunk, began = rows[start : start + options.batch_size], time.perf_counter()
        answers += model.answers([row.prompt for row in chunk], rows[0].chat, options.max_new_tokens)
        seconds += time.perf_counter() - began
        if progress is not None:
            progress(len(answers), len(rows))
    with written(options.out) as file:
        _write(file, "" if options.out is None else options.out.suffix.lower(), answers)
    scores = _scores(rows, answers)
    return Prediction(
        rows=len(rows), seconds=seconds, metric="exact_match", score=scores[0] if scores else None, members=(),
        disagreeing=None, unscored=None, token_f1=scores[1] if scores else None,
    )  # fmt: skip


def _scores(rows: Sequence[Example], answers: Sequence[str]) -> tuple[float, float] | None:
    """The shares of answers that are the file's own, and their mean token F1; None where the file has none."""
    told = [(row.answer.strip(), answer) for row, answer in zip(rows, answers, strict=True) if row.answer is not None]
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
