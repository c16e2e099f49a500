"""The task and the network of a recipe, loaded once for the packs that a worker trains."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.data import tasks, tokenization, vocabulary
from harness.data.tokenized import Task
from harness.models import pretrained, token_hash
from harness.models.pretrained import Network


def load_task(task: TaskSpec, model: ModelSpec, max_length: int) -> Task:
    """The task's splits, tokenised for the model.

    Raises:
        HarnessError: the data or the tokenizer can't be had.
    """
    return tokenized_task(task, model, max_length, token_hash.tokenizer_sha256(model))


@lru_cache(maxsize=2)  # a worker trains pack after pack of the same task
def tokenized_task(task: TaskSpec, model: ModelSpec, max_length: int, tokenizer_sha256: str | None) -> Task:
    """As `load_task`, for a tokenizer whose files have this hash."""
    tokenised = tokenization.tokenise(tasks.load(task), pretrained.tokenizer(model), max_length)
    vocabulary.check_share(tokenised.unknown_share, model.name, allowed=task.allow_unknown)
    return replace(tokenised, tokenizer_sha256=token_hash.tokenizer_sha256(model))  # a first time may have fetched it


def load_network(recipe: Recipe, task: Task) -> Network:
    """The network that a recipe trains on a task."""
    outputs = pretrained.outputs(task.kind, task.num_labels)
    if recipe.padding_side == "left":
        pretrained.check_left(recipe.model, outputs, recipe.task.kind)
    return pretrained.network(recipe.model, outputs, recipe.peft_config, kind=recipe.task.kind)
