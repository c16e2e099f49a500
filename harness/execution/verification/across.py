"""What the records of a folder say of each other: results that two seeds can't share, and data that are one set."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.common import metrics
from harness.config.recipe import Recipe
from harness.config.trials import Trial
from harness.models import token_hash
from harness.records.record import Curves, Measured, Record

# What follows from the data alone, so that it is the same wherever their hash is.
_OF_DATA = (
    "train_examples", "dev_examples", "test_examples", "majority_correct", "majority_score", "label_entropy",
    "label_variance", "untouched_score", "untouched_loss", "label_names",
)  # fmt: skip
Across = tuple[str, str, str]  # (trial, rule, what is wrong)


@dataclass(frozen=True)
class ArrayFacts:
    """What is remembered of a trial's arrays until all records are read."""

    file_sha256: str
    curve: bytes | None  # a hash of the training losses; None where they tell nothing
    labels: bytes | None
    test_labels: bytes | None
    parts: bytes | None = None  # a hash of the names of those whose gradients were recorded


def array_facts(file_sha256: str, curves: Curves | None) -> ArrayFacts:
    """What to remember of the arrays of a file with that hash."""
    if curves is None:
        return ArrayFacts(file_sha256, None, None, None)
    losses = curves.train_loss
    telling = len(losses) > 1 and bool(np.isfinite(losses[:2]).all())
    return ArrayFacts(
        file_sha256,
        _digest(losses) if telling else None,
        labels_digest(curves.labels, curves.sentences),
        _digest(curves.test_labels, curves.test_sentences) if curves.test_labels.size else None,
        None if curves.recording is None else _digest(curves.recording.layers),
    )


def labels_digest(labels: np.ndarray, sentences: np.ndarray | None = None) -> bytes:
    """What the labels of a split are told apart by; of tasks with several a text, with how many each has."""
    return _digest(labels, np.zeros(0, np.int64) if sentences is None else sentences)


def _digest(*arrays: np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=12)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.digest()


def check_across(
    trials: Mapping[str, Trial], records: Mapping[str, Record], facts: Mapping[str, ArrayFacts]
) -> Iterator[Across]:
    """What finished records contradict in each other, by trial.

    Args:
        trials: The plan's, by id.
        records: Those that can be used, by id.
        facts: Of their arrays, by id; of files that are not their record's too.
    """
    finished = {
        name: record for name, record in records.items() if record.measured is not None and record.script is None
    }
    yield from _foreign_arrays(records, facts)
    yield from _shared_results(trials, finished, facts)
    yield from _shared_data(trials, finished, facts)


def _foreign_arrays(records: Mapping[str, Record], facts: Mapping[str, ArrayFacts]) -> Iterator[Across]:
    """Files of arrays that are another trial's by their hash, and hashes that two records name."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, record in records.items():
        if record.arrays_sha256 is not None:
            owners[record.arrays_sha256].append(name)
    for name, fact in facts.items():
        if records[name].arrays_sha256 != fact.file_sha256 and fact.file_sha256 in owners:
            yield name, "arrays of another", f"these are the arrays of {owners[fact.file_sha256][0]}"
    for names in owners.values():
        for name in names[1:]:
            if records[name].script is None:
                yield name, "arrays of another", f"its record names the same arrays as {names[0]}"


def _shared_results(
    trials: Mapping[str, Trial], records: Mapping[str, Record], facts: Mapping[str, ArrayFacts]
) -> Iterator[Across]:
    """The same weights or losses of trials that can't have them: another head, order, rate, correction or length."""
    weights: dict[object, list[str]] = defaultdict(list)
    losses: dict[object, list[str]] = defaultdict(list)
    for name, record in records.items():
        measured = record.measured
        assert measured is not None
        if measured.final_score is not None and (measured.steps or 0) > 1:  # weights that diverged are all NaN
            weights[measured.weights_sha256].append(name)
        fact = facts.get(name)
        if fact is not None and fact.curve is not None and fact.file_sha256 == record.arrays_sha256:
            losses[fact.curve].append(name)
    for what, groups in (("weights", weights), ("training losses", losses)):
        for names in groups.values():
            for name in names[1:]:
                why = _apart(trials[names[0]], trials[name])
                if why is not None:
                    yield name, "shared result", f"the same {what} as {names[0]}, of another {why}"


def _apart(first: Trial, second: Trial) -> str | None:
    """A seed or a setting by which two trials must have come out differently; None where there is none."""
    for name in ("init_seed", "order_seed"):
        if getattr(first.seeds, name) != getattr(second.seeds, name):
            return name.replace("_", " ")
    one, other = first.recipe, second.recipe
    drops = isinstance(one.dropout, float) and one.dropout > 0 and one.dropout == other.dropout
    if drops and first.seeds.dropout_seed != second.seeds.dropout_seed:
        return "dropout seed"
    if one.lr != other.lr:
        return "learning rate"
    if one.optimizer == other.optimizer in ("adamw", "lamb") and one.bias_correction != other.bias_correction:
        return "bias correction"
    whole = all(r.max_steps is None and not r.keep_best and r.early_stopping_patience is None for r in (one, other))
    return "number of epochs" if whole and one.epochs != other.epochs else None


def _shared_data(
    trials: Mapping[str, Trial], records: Mapping[str, Record], facts: Mapping[str, ArrayFacts]
) -> Iterator[Across]:
    """Counts and labels that differ between trials of the same data, tokens or model."""
    groups: dict[object, list[str]] = defaultdict(list)
    models: dict[object, list[str]] = defaultdict(list)
    tokens: dict[object, list[str]] = defaultdict(list)
    for name, record in records.items():
        measured, recipe = record.measured, trials[name].recipe
        assert measured is not None
        groups[_data_of(record, measured, recipe)].append(name)
        models[measured.data_sha256, measured.model_sha256, recipe.peft_config].append(name)
        if measured.tokens_sha256 is not None and record.environment is not None:  # code decides what is counted
            read = (measured.data_sha256, measured.tokens_sha256, measured.tokenizer_sha256)
            tokens[*read, record.environment.commit].append(name)
    for names in groups.values():
        for field in _OF_DATA:
            yield from _odd(names, field, {name: getattr(records[name].measured, field) for name in names})
        for field in ("labels", "test_labels"):
            known = [name for name in names if name in facts and getattr(facts[name], field) is not None]
            values = {name: getattr(facts[name], field) for name in known}
            yield from _odd(known, field.replace("_", " "), values, shown=False)
    for groups_of, fields in ((tokens, ("unknown_share",)), (models, ("parameters", "trained_parameters"))):
        for names in groups_of.values():
            for field in fields:
                yield from _odd(names, field, {name: getattr(records[name].measured, field) for name in names})
    for names in models.values():
        recorded = [name for name in names if name in facts and facts[name].parts is not None]
        yield from _odd(recorded, "recorded parts", {name: facts[name].parts for name in recorded}, shown=False)


def _data_of(record: Record, measured: Measured, recipe: Recipe) -> tuple[object, ...]:
    """What labels and counts hang on: the data and the metric, of some tasks the tokens, and what computed them.

    Of words it is how many of them are read; of answers in a context or in words how many tokens they have. What an
    untouched language model scores hangs on the model, and in its last digits on the machine.
    """
    key: tuple[object, ...] = (measured.data_sha256, measured.metric, recipe.task.name)
    if measured.metric == metrics.ENTITIES or recipe.task.kind in ("span", "completion"):
        key = (*key, *token_hash.key_of(recipe))
    if measured.untouched_score is None or (where := record.environment) is None:
        return key
    batches = (recipe.eval_batch_size, recipe.padding, recipe.padding_side, recipe.pad_to_multiple_of)
    computed = (where.device, where.device_name, where.threads, where.torch, where.transformers)
    return (*key, measured.model_sha256, recipe.precision, *batches, *computed)


def _odd(names: list[str], what: str, values: Mapping[str, object], *, shown: bool = True) -> Iterator[Across]:
    """The trials whose value is not that of most; of early records some values are not known."""
    known = [name for name in names if values[name] is not None]
    counts: dict[object, int] = defaultdict(int)
    for name in known:
        counts[values[name]] += 1
    if len(counts) < 2:
        return
    usual = max(counts, key=lambda value: counts[value])  # among equals the plan's first
    for name in known:
        if values[name] != usual:
            told = f"{what} is {values[name]}, and {usual}" if shown else f"its {what} are not those"
            yield name, "data", f"{told} in {counts[usual]} trials of the same data and metric"
