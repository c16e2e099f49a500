"""What may have made a rerun differ from its record, and which differences may be rounding.

A training run repeats bit for bit where its inputs, its code and what computes are the same. So a difference has a
cause, of one of three kinds: other *inputs* (data, tokens, pretrained weights, words of the augmentation), which make
another experiment of it; something else that *computes* (device, machine, threads, kernels, torch), which rounds sums
in another order; other *code*. Only the second can make two runs equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.common import kernel_settings
from harness.execution.step_compilation import is_compiled
from harness.records.record import Environment, Measured, Record

# Fields of `Environment` on which the order of a sum and with it its last bits depend, in words; likeliest first.
_COMPUTES = {
    "device": "device",
    "device_name": "device name",
    "threads": "threads",
    "kernels": "CPU kernels",
    "kernel_settings": "settings of the kernels",
    "torch": "torch",
    "cuda": "CUDA",
    "driver": "NVIDIA driver",
    "deterministic": "deterministic algorithms",
    "matmul_precision": "matmul precision",
    "compiler": "compiler",
}
_CODE = {
    "transformers": "transformers",
    "python": "python",
    "harness": "harness",
    "commit": "commit",
    "dirty_diff_sha256": "uncommitted changes",
}
# Which of them early records do not say, so that None there means not known.
_LATER = {
    "dirty_diff_sha256",
    "cuda",
    "driver",
    "deterministic",
    "matmul_precision",
    "kernels",
    "compiler",
    "kernel_settings",
}


@dataclass(frozen=True)
class Causes:
    """What differs between a record and a rerun, each as `what: this then, that now`; and what the record lacks."""

    inputs: tuple[str, ...]
    computes: tuple[str, ...]
    code: tuple[str, ...]
    not_recorded: tuple[str, ...]

    @property
    def may_be_rounding(self) -> bool:
        """Whether the same trial was computed by something else, so that its last bits need not be the same."""
        return bool(self.computes) and not self.inputs


def pack_decides(record: Record) -> bool:
    """Whether a trial's last bits may depend on how many lanes were trained at once.

    On a CPU with one thread each lane's products are computed by themselves. Several threads share the products of one
    lane, but take the lanes of a pack in turns; a GPU and compiled steps choose kernels by the pack's size.
    """
    environment = record.environment
    return environment is not None and (
        environment.device.startswith("cuda") or environment.threads > 1 or is_compiled(record)
    )


def causes(record: Record, again: Record) -> Causes:
    """Compare what two runs of a trial, both finished, say of their inputs and surroundings."""
    assert record.measured is not None
    assert again.measured is not None
    assert record.environment is not None
    assert again.environment is not None
    before, now = record.environment, again.environment
    computes = [*_differing(before, now, _COMPUTES)]
    compiled = is_compiled(record), is_compiled(again)
    if compiled[0] != compiled[1]:
        now_said = "compiled" if compiled[1] else f"not ({again.measured.step_mode_reason or 'not asked for'})"
        computes.append(_said("steps", "compiled" if compiled[0] else "not compiled", now_said))
    if pack_decides(record):
        if before.pack_size != now.pack_size:
            computes.append(_said("pack size", before.pack_size, now.pack_size))
        elif before.pack_size > 1 and record.trial.recipe.padding == "batch":
            computes.append("padding: batch: other lanes then shared its products, those whose texts were as long")
    lacking = [("the tokenizer", record.measured.tokens_sha256), ("the CPU's kernels", before.kernels)]
    return Causes(
        tuple(_inputs(record.measured, again.measured, texts_change=record.trial.recipe.augment != "none")),
        tuple(computes),
        tuple(_differing(before, now, _CODE)),
        tuple(name for name, value in lacking if value is None),
    )


def _inputs(before: Measured, now: Measured, *, texts_change: bool) -> Iterator[str]:
    """What other inputs there are; the tokenizer's files count by the tokens they give, which alone can be equal."""
    if before.data_sha256 != now.data_sha256:
        yield _said("data", str(before.data_sha256)[:12], str(now.data_sha256)[:12])
    tokens = (before.tokens_sha256, now.tokens_sha256)
    files = (before.tokenizer_sha256, now.tokenizer_sha256)
    if None not in tokens and tokens[0] != tokens[1]:
        same_data = before.data_sha256 == now.data_sha256
        name = "tokenizer (other token ids of the same texts)" if same_data else "token ids"
        yield _said(name, str(tokens[0])[:12], str(tokens[1])[:12])
    elif texts_change and None not in files and files[0] != files[1]:
        yield _said("tokenizer's files", str(files[0])[:12], str(files[1])[:12])
    if before.model_sha256 != now.model_sha256:
        yield _said("pretrained weights", str(before.model_sha256)[:12], str(now.model_sha256)[:12])
    configs = (before.config_sha256, now.config_sha256)
    if None not in configs and configs[0] != configs[1]:
        yield _said("the model's config.json", str(configs[0])[:12], str(configs[1])[:12])
    words = (before.augmentation_sha256, now.augmentation_sha256)
    if words[0] != words[1]:
        yield _said("words or translators of the augmentation", str(words[0])[:12], str(words[1])[:12])


def _differing(before: Environment, now: Environment, names: dict[str, str]) -> Iterator[str]:
    for name, words in names.items():
        old, new = getattr(before, name), getattr(now, name)
        if old == new or (name in _LATER and None in (old, new)):
            continue
        if name == "kernel_settings":
            yield kernel_settings.changes(old, new)
        else:
            yield _said(words, *((str(value)[:20] if name.endswith("sha256") else value) for value in (old, new)))


def _said(name: str, old: object, new: object) -> str:
    return f"{name}: {old} then, {new} now"
