"""Prompts and answers become token ids; which of them are answers, and what of a long prompt is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.data import vocabulary
from harness.data.examples import NO_LABEL, Raw, Rows, splits
from harness.data.tokenized import Task, TokenizedSplit


@dataclass(frozen=True)
class Encoded:
    """A prompt with an answer as token ids, before padding; `begin` is the first token of the answer.

    `cut` is how many tokens of the prompt were left out, from its beginning.
    """

    ids: tuple[int, ...]
    begin: int
    cut: int = 0

    def labels(self, *, whole: bool) -> list[int]:
        """What each token is followed by, where that is of the answer, or with `whole` of any text; else `NO_LABEL`."""
        first = 1 if whole else max(1, self.begin)
        return [NO_LABEL] * (first - 1) + list(self.ids[first:]) + [NO_LABEL]


def tokenise(raw: Raw, tokenizer: Any, max_length: int) -> Task:
    """The task as token ids; each example is its prompt and answer, in a scored split with choices one row a choice.

    A prompt that is too long loses its beginning, an answer nothing. Labels [N, T] are the next tokens: of the answer
    alone, in training with `loss_on: all` of the prompt too. Raises HarnessError for an answer that is too long by
    itself, and as `encode`.
    """
    encoded = {name: _encoded(rows, tokenizer, max_length) for name, rows in splits(raw).items()}
    widths = {name: max(len(example.ids) for example in examples) for name, examples in encoded.items()}
    widths |= dict.fromkeys(("train", "validation"), max(widths["train"], widths["validation"]))
    made = {
        name: _split(
            rows, encoded[name], widths[name], tokenizer.pad_token_id, whole=name == "train" and raw.loss_on == "all"
        )
        for name, rows in splits(raw).items()
    }
    unknown = [
        share for name, rows in splits(raw).items() if (share := _unknown(rows, encoded[name], tokenizer)) is not None
    ]
    return Task(
        name=raw.name,
        metric=raw.metric,
        label_names=raw.label_names,
        num_labels=made["validation"].choices or 2,
        pad_token_id=tokenizer.pad_token_id,
        train=made["train"],
        validation=made["validation"],
        sha256=raw.sha256,
        pairs=True,
        test=made.get("test"),
        unknown_share=max(unknown, default=None),
        vocabulary=len(tokenizer),
        kind="completion",
    )


def encode(prompts: Sequence[str], answers: Sequence[str], chat: bool, tokenizer: Any) -> list[Encoded]:
    """Prompts with their answers as token ids, nothing cut.

    Both are tokenised together where the prompt's tokens begin the whole's, else each by itself, so that the model
    reads a prompt's own tokens, as it does when it answers. Before a prompt stands what the tokenizer sets before a
    text, behind an answer the tokenizer's end of a text. A conversation is spelt by the tokenizer's chat template,
    which has both. Raises HarnessError for a tokenizer without that, and for a template that spells a conversation
    otherwise when the answer is there.
    """
    before, end = _around(tokenizer, chat)
    if chat:
        pairs = [_spelt(prompt, answer, tokenizer) for prompt, answer in zip(prompts, answers, strict=True)]
        prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
    alone = _ids(tokenizer, prompts)
    whole = _ids(tokenizer, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    apart = _ids(tokenizer, answers)
    encoded = []
    for prompt, together, answer in zip(alone, whole, apart, strict=True):
        joined = together if together[: len(prompt)] == prompt and len(together) > len(prompt) else [*prompt, *answer]
        tail = end if joined[-1:] != end else []
        encoded.append(Encoded((*before, *joined, *tail), len(before) + len(prompt)))
    return encoded


def prompt_ids(prompts: Sequence[str], chat: bool, tokenizer: Any) -> list[list[int]]:
    """Prompts as token ids that a model is to go on from."""
    before, _ = _around(tokenizer, chat)
    texts = [_template(tokenizer, json.loads(prompt), answer=False) for prompt in prompts] if chat else prompts
    return [[*before, *ids] for ids in _ids(tokenizer, texts)]


def shortened(example: Encoded, max_length: int, special: int) -> Encoded | None:
    """The example with the beginning of its prompt cut off where it is too long; None where the answer alone is.

    One token of the prompt stays at least, and the `special` ones before it.
    """
    surplus = len(example.ids) - max_length
    if surplus <= 0:
        return example
    room = example.begin - special - 1  # tokens of the prompt that may go
    if surplus > room:
        return None
    ids = (*example.ids[:special], *example.ids[special + surplus :])
    return Encoded(ids, example.begin - surplus, surplus)


def before(tokenizer: Any, chat: bool) -> int:
    """How many tokens the tokenizer sets before a text."""
    return len(_around(tokenizer, chat)[0])


def _around(tokenizer: Any, chat: bool) -> tuple[list[int], list[int]]:
    """The tokens before a text, and the end of a text; a chat template spells both itself."""
    if tokenizer.pad_token_id is None:
        raise HarnessError(
            "the model's tokenizer has no padding token", fix="Set one, or use a model whose tokenizer has one"
        )
    if chat:
        return [], []
    ids = tokenizer("a", padding=False, return_attention_mask=False)["input_ids"]
    inner = tokenizer("a", padding=False, return_attention_mask=False, add_special_tokens=False)["input_ids"]
    count = next((place for place in range(len(ids)) if ids[place : place + len(inner)] == inner), 0)
    end = tokenizer.eos_token_id
    return ids[:count], [] if end is None else [end]


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    options = {"add_special_tokens": False, "padding": False, "truncation": False, "return_attention_mask": False}
    ids: list[list[int]] = tokenizer(list(texts), verbose=False, **options)["input_ids"] if texts else []
    return ids


def _spelt(messages: str, answer: str, tokenizer: Any) -> tuple[str, str]:
    """A conversation up to the answer, and the answer with what ends it, as the template spells them."""
    before = json.loads(messages)
    prompt = _template(tokenizer, before, answer=False)
    whole = _template(tokenizer, [*before, {"role": "assistant", "content": answer}], answer=True)
    if not whole.startswith(prompt) or whole == prompt:
        raise HarnessError(
            "the tokenizer's chat template does not begin a conversation as it spells its prompt",
            got=f"'{prompt[-40:]}' before the answer",
            fix="Use another template, or spell prompt and completion yourself",
        )
    return prompt, whole.removeprefix(prompt)


def _template(tokenizer: Any, messages: list[dict[str, str]], *, answer: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise HarnessError(
            "messages require a tokenizer with a chat template",
            fix="Use a model that was tuned for chat, or give prompt and completion",
        )
    try:
        spelt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answer)
    except Exception as error:  # Jinja's, and what a template raises itself
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise HarnessError(
            f"the tokenizer's chat template refuses a conversation: {reason[:160]}",
            fix="Correct the roles of the messages",
        ) from None
    return spelt


# ------------------------------------------------------------------------------------------------------------- splits


def _encoded(rows: Rows, tokenizer: Any, max_length: int) -> list[Encoded]:
    """The examples of a split, cut where their prompts are too long; with choices one for each, example by example."""
    assert rows.pairs is not None
    counts = [1] * len(rows.texts) if rows.choices is None else [len(choices) for choices in rows.choices]
    prompts = [prompt for prompt, count in zip(rows.texts, counts, strict=True) for _ in range(count)]
    answers = rows.pairs if rows.choices is None else [choice for choices in rows.choices for choice in choices]
    whole = encode(prompts, answers, rows.chat, tokenizer)
    special = before(tokenizer, rows.chat)
    examples = [shortened(example, max_length, special) for example in whole]
    _refuse_long(rows, whole, examples, counts, max_length, special)
    return [example for example in examples if example is not None]


def _refuse_long(
    rows: Rows,
    whole: Sequence[Encoded],
    examples: Sequence[Encoded | None],
    counts: Sequence[int],
    most: int,
    special: int,
) -> None:
    """Raise HarnessError for answers that have no room by themselves, and for those of no token."""
    numbers = [number for number, count in zip(rows.numbers, counts, strict=True) for _ in range(count)]
    for number, example in zip(numbers, whole, strict=True):
        if len(example.ids) < 2 or len(example.ids) <= example.begin:
            raise HarnessError(
                f"{rows.source}, {rows.unit} {number}: the answer gives no token", fix="Remove it or use another model"
            )
    long = [place for place, example in enumerate(examples) if example is None]
    if long:
        needed = [len(whole[place].ids) - max(0, whole[place].begin - special - 1) for place in long]
        others = f" and {count_noun(len(long) - 1, 'other')}" if len(long) > 1 else ""
        raise HarnessError(
            f"{rows.source}, {rows.unit} {numbers[long[0]]}{others}: the answer alone is longer than max_length {most}",
            got=f"up to {max(needed)} tokens",
            fix=f"Raise max_length to {max(needed)}, or split the answers: they are never cut",
        )


def _split(rows: Rows, examples: Sequence[Encoded], width: int, pad: int, *, whole: bool) -> TokenizedSplit:
    ids = np.full((len(examples), width), pad, dtype=np.int64)
    labels = np.full((len(examples), width), NO_LABEL, dtype=np.int64)
    for place, example in enumerate(examples):
        ids[place, : len(example.ids)] = example.ids
        labels[place, : len(example.ids)] = example.labels(whole=whole)
    return TokenizedSplit(
        input_ids=ids,
        lengths=np.array([len(example.ids) for example in examples], dtype=np.int64),
        token_type_ids=np.zeros_like(ids),
        labels=labels,
        answer_tokens=np.array([len(example.ids) - max(1, example.begin) for example in examples], dtype=np.float32),
        choices=0 if rows.choices is None else len(rows.choices[0]),
        right=None if rows.choices is None else rows.labels,
        cut_prompts=sum(example.cut > 0 for example in examples),
    )


def _unknown(rows: Rows, examples: Sequence[Encoded], tokenizer: Any) -> float | None:
    special = before(tokenizer, rows.chat) + (tokenizer.eos_token_id is not None and not rows.chat)
    return vocabulary.unknown_share([example.ids for example in examples], special, tokenizer)
