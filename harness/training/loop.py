"""train(pack) -> one result a lane: trials of one shape stacked on a leading axis and trained together.

A lane's result does not depend on its pack: every random draw comes from a stream keyed by the trial's own seeds,
every hyperparameter is a lane vector, and no operation mixes lanes.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.common.metrics import Evaluation, Majority
from harness.config.recipe import ModelSpec, Recipe, TaskSpec
from harness.config.trials import Trial
from harness.data import augmentation, tasks, tokenization, vocabulary
from harness.data.examples import NO_LABEL, Raw, Rows
from harness.data.tokenization import Task, TokenizedSplit
from harness.models import methods, normalisation, pretrained, token_hash
from harness.models.pretrained import Network
from harness.records import early_signals
from harness.records.record import Curves, Measured, Reason, StepMode
from harness.training import fitting, philox, replay, telemetry
from harness.training import lanes as remedies
from harness.training.capture import Captures
from harness.training.checkpoints import Checkpoint, StateKept
from harness.training.compiled import CompiledSteps
from harness.training.lanes import Mixture
from harness.training.optimizers import lane_optimizer
from harness.training.transfer import copied, lane_rows, to_device

Progress = Callable[[int, int], None]
# Under `padding: batch` a batch is sorted by length and cut in so many parts, each padded to its own longest text,
# rounded up so that lanes often share a width. The sum over the parts is the batch's loss; on phrases of 2 to 60
# tokens two parts save a third of the work; more cost as much again in the embeddings' dense gradients.
_PARTS = 2
_WIDTH_STEP = 4
# Calls with one layout from which on a recording of them pays: each saves a fiftieth of what recording takes, or more.
_RECORDING_PAYS = 100
# One-sided 5 % point of the normal distribution: "was above the majority" must be more than luck.
_Z95 = 1.645


@dataclass(frozen=True)
class LaneResult:
    """What one trial gave, and the trained parameters that its result is of, in the network's order."""

    measured: Measured
    curves: Curves
    weights: np.ndarray  # [P] float32


def train(
    pack: Sequence[Trial],
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    record: bool = True,
    signals: Callable[[np.ndarray], None] | None = None,
    evaluated: Callable[[Evaluation], None] | None = None,
    compiled: bool = False,
) -> list[LaneResult]:
    """Train the trials of a pack together and return their results in the same order.

    The trials must share their recipes' `shape`. `progress(step, steps)` is called after every update. With a
    checkpoint, training goes on from it and is kept in it when it is due and where `progress` raises StateKept; and
    with `record` the results have what the diagnosis reads, and `signals` is given `early`'s signals of each lane so
    far [L, t, K] whenever one more of its shares is reached; `evaluated` is given each evaluation. No result differs by
    a bit for any of these. `compiled` has the steps of whole batches compiled, which changes their last bits.
    Raises HarnessError for data or a model that can't be used; a lane that diverges is a result, not an error.
    """
    if len({trial.recipe.shape for trial in pack}) != 1:
        raise ValueError("the trials of a pack share their shape")
    _keep_memory()
    with _numerics(device, threads, pack[0].recipe.precision):
        started = time.monotonic()
        run = _Run(pack, torch.device(device), record, compiled)
        if checkpoint is not None and (kept := checkpoint.read(run.made_of_sha256())):
            run.restore(kept[0])
            started -= kept[1]
        for step in range(run.optimizer.done, run.steps):
            if run.stopped:
                break
            run.update(step)
            if checkpoint is not None and checkpoint.due:
                checkpoint.write(run.state(), time.monotonic() - started)
            if signals is not None and (found := run.signals()) is not None:
                signals(found)
            if evaluated is not None:
                for one in run.evaluations():
                    evaluated(one)
            if progress is not None:
                try:
                    progress(step + 1, run.steps)
                except StateKept:
                    if checkpoint is not None:
                        checkpoint.write(run.state(), time.monotonic() - started)
                    raise
        return run.results(time.monotonic() - started)


def lane_step(trial: Trial, lanes: int, device: str, threads: int) -> tuple[float, int]:
    """Seconds that one update takes in a pack of so many lanes, over the lanes; and the updates of an epoch."""
    _keep_memory()
    with _numerics(device, threads, trial.recipe.precision):
        run = _Run([trial] * lanes, torch.device(device))
        run.recording = False
        times = []
        for _ in range(4):
            started = time.perf_counter()
            run.update(0)
            float(run.log.losses[-1][0])  # waits for the device
            times.append(time.perf_counter() - started)
        return sorted(times[1:])[1] / lanes, run.epoch_steps


def lr_range(
    pack: Sequence[Trial], low: float, high: float, *, device: str, threads: int, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A learning-rate range test of each lane over the recipe's epochs: rates [S] and training losses [S, L], nats.

    The rate of update s of S is low · (high/low)^(s/(S-1)), without warm-up or schedule; a loss is that of the step's
    batch before its update. Source: Smith (2017), with the exponential form of Gugger (2018).
    """
    _keep_memory()
    with _numerics(device, threads, pack[0].recipe.precision):
        run = _Run(pack, torch.device(device), record=False)
        rates = low * (high / low) ** (np.arange(run.steps) / max(1, run.steps - 1))
        run.optimizer.range_test = lambda step: float(rates[step])
        for step in range(run.steps):
            run.update(step)
            if progress is not None:
                progress(step + 1, run.steps)
        return rates, torch.stack(run.log.losses).cpu().numpy()


def start(trial: Trial) -> np.ndarray:
    """The weights that a trial starts from, [P] float32: the pretrained ones, and the head of its seed."""
    return _Run([trial], torch.device("cpu"), record=False).weights[0].numpy()


def losses_at(
    trial: Trial,
    weights: Iterable[np.ndarray],
    examples: int,
    *,
    lanes: int,
    device: str,
    threads: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Training loss [N] and its gradient's norm [N] at each of N weights [P], so many `lanes` of a pack at a time.

    Over the first `examples` of the training data, without dropout and what else is random in training. `weights` are
    drawn as they are needed; `progress(done)` counts them.
    """
    still: dict[str, object] = dict.fromkeys(("dropout", "mixout", "mixup", "neftune_alpha", "r_drop"), 0.0)
    still |= {"augment": "none", "averaging": "none"}
    plain = trial.model_copy(update={"recipe": trial.recipe.model_copy(update=still)})
    _keep_memory()
    with _numerics(device, threads, trial.recipe.precision):
        run = _Run([plain] * lanes, torch.device(device), record=False)
        run.recording = False
        count = min(examples, len(run.training))
        found: list[tuple[np.ndarray, np.ndarray]] = []
        points, done = iter(weights), 0
        while chosen := list(islice(points, lanes)):
            idle = [chosen[-1]] * (lanes - len(chosen))  # of the last pack, so that the run need not be built again
            with torch.no_grad():
                run.weights.copy_(torch.from_numpy(np.stack([*chosen, *idle])))
            total = torch.zeros(lanes, device=run.device)
            run.gradient.zero_()
            run._begin(torch.arange(count).expand(lanes, -1))
            for part in torch.split(torch.arange(count), trial.recipe.batch_size):
                total += run._batch(run.lanes, part.expand(lanes, -1), count, None, 0, add=True)
            norms = torch.linalg.vector_norm(run.gradient.double(), dim=1)
            found.append((total.cpu().numpy()[: len(chosen)], norms.cpu().numpy()[: len(chosen)]))
            done += len(chosen)
            if progress is not None:
                progress(done)
        return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])


def versions() -> dict[str, str]:
    """The versions of what computes: python, torch, transformers."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def numerics(device: str, threads: int, precision: str) -> tuple[bool, str]:
    """What is in force while a pack trains: torch's deterministic algorithms, and the precision of its float32."""
    with _numerics(device, threads, precision):
        return torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()


@lru_cache(maxsize=1)
def _raw(task: TaskSpec) -> Raw:
    """The task's texts, where copies of them are changed; what is tokenised as it is needs them once."""
    return tasks.load(task)


def prepared(task: TaskSpec, model: ModelSpec, max_length: int) -> Task:
    """The task's splits, tokenised for the model; raises HarnessError when data or tokenizer can't be had."""
    return _prepared(task, model, max_length, token_hash.tokenizer_sha256(model))


@lru_cache(maxsize=2)  # a worker trains pack after pack of the same task
def _prepared(task: TaskSpec, model: ModelSpec, max_length: int, tokenizer_sha256: str | None) -> Task:
    found = tokenization.tokenise(tasks.load(task), pretrained.tokenizer(model), max_length)
    vocabulary.check_share(found.unknown_share, model.name, allowed=task.allow_unknown)
    return replace(found, tokenizer_sha256=token_hash.tokenizer_sha256(model))  # a first time may have fetched it


def network(recipe: Recipe, task: Task) -> Network:
    """The network that a recipe trains on a task."""
    # A product with a single column takes another kernel when a lane is alone, whose last bits differ; so the head of a
    # regression has a second output that nothing reads.
    outputs = max(2, task.num_labels)
    return pretrained.network(recipe.model, outputs, recipe.peft_config, tokens=recipe.task.kind == "tokens")


def stream(purpose: str, seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A random stream of its own for (purpose, seed): the three parts of one seed are unrelated to each other."""
    return torch.Generator(device).manual_seed(_key(purpose, seed))


def _key(purpose: str, seed: int) -> int:
    """A number of 63 bits for (purpose, seed)."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@cache
def _keep_memory() -> None:
    """Have glibc keep what is freed: a step on a CPU frees and takes the same megabytes a thousand times."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the most that is taken


@contextmanager
def _numerics(device: str, threads: int, precision: str) -> Iterator[None]:
    """Fix what else decides the last bits, and put it back afterwards."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # a kernel more for every new tensor; none is read
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = filled


# ----------------------------------------------------------------------------------- what changes a forward pass

Site = tuple[
    int, float
]  # where dropout stands in a forward pass: how many numbers it draws there, the model's own rate


class _Bf16(TorchFunctionMode):
    """Linear layers that take and give bf16, as in `torch.autocast`, which this is to be used with.

    Under vmap a linear layer comes apart before autocast sees it: the product is made in bf16, and the sum with the
    bias, and all that follows it, in float32.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.linear, torch.addmm, torch.baddbmm):
            args, kwargs = tree_map_only(Tensor, lambda one: one.to(torch.bfloat16), (args, kwargs))
        return func(*args, **(kwargs or {}))


class _Indexed(TorchFunctionMode):
    """Looks words up by indexing, whose gradient adds a word's rows up one after the other.

    CUDA's own kernel for up to 3,072 words of all lanes together adds them in chunks of 32 from the first lane's first
    word on (`embedding_backward_feature_kernel`), so that a lane's last bits hang on its place.
    """

    MOST = 3072

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.embedding:
            words, table = args[:2]
            return table[words]
        return func(*args, **(kwargs or {}))


class _NoDropout(TorchFunctionMode):
    """Drops nothing, and notes where a forward pass of a lane would draw: how many numbers, at which rate."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Site] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            self.sites.append((args[0].numel(), _rate(*args[1:], **(kwargs or {}))))
            return args[0]
        return func(*args, **(kwargs or {}))


def _rate(p: float = 0.5, training: bool = True, inplace: bool = False, input: object = None) -> float:
    """The rate that `F.dropout` was called with beside its input."""
    return float(p) if training else 0.0


class _ApplyMasks(TorchFunctionMode):
    """Every call of dropout, wherever it stands in the model, takes its mask from the lane's pool [draws].

    A recipe's rate replaces all of the model's own, as the study sets them alike; `model` leaves each as it is.
    """

    def __init__(self, masks: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.masks, self.scale, self.used = masks, scale, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            x = args[0]
            mask = self.masks[self.used : self.used + x.numel()].view(x.shape)
            self.used += x.numel()
            # Never in bf16, where the scale would be rounded; as a rule it is added to float32 next.
            kept = x.float() * mask
            return kept * self.scale if mask.dtype == torch.bool else kept
        return func(*args, **(kwargs or {}))


def _counts(device: torch.device) -> bool:
    """Whether dropout's numbers come from a counter there."""
    return device.type != "cpu"


class _Masks:
    """The dropout masks of each lane: one draw a lane and step for all places of the model.

    A keep decision takes 16 random bits, so a rate is rounded to 1/65536 and the scale is that of the rounded rate. On
    a CPU they come from a stream a lane, where drawing 64 bits at a time costs a fifth of `bernoulli_`; elsewhere from
    a counter (`philox`), which draws for all lanes in one launch.
    """

    def __init__(self, rates: Sequence[float | Literal["model"]], seeds: Sequence[int], device: torch.device) -> None:
        self.cuts = [None if rate == "model" else round(rate * 65536) for rate in rates]  # None: each place its own
        self.device = device
        self.counted = _counts(device)
        self.streams = [] if self.counted else [stream("dropout", seed) for seed in seeds]
        self.keys = torch.tensor([_key("dropout", seed) for seed in seeds], device=device)  # [L]
        self.limits = torch.tensor([cut or 0 for cut in self.cuts], device=device)  # [L]
        self.scales = torch.tensor([_scale(cut or 0) for cut in self.cuts], device=device)  # [L]
        self._buffers: dict[tuple[int, int], Tensor] = {}

    @property
    def active(self) -> bool:
        return any(cut != 0 for cut in self.cuts)

    def draw(self, lanes: Sequence[int], sites: Sequence[Site], update: int, call: int, *, whole: bool) -> Tensor:
        """Masks [lanes, draws] of an update's call: bool, or scaled float32.

        The latter on a CPU, where that multiplies fastest, and where places differ in their rates. With `whole` they
        are of all lanes, and bool ones are written where the last such were, for the next call to overwrite.
        """
        draws = sum(count for count, _ in sites)
        if self.counted:
            if None in self.cuts:
                return self._counted_by_site(lanes, sites, update, call)
            keys, limits, out = self.keys, self.limits, None
            if whole:
                out = self._buffer(len(lanes), -(-draws // philox.DECISIONS))
            else:
                chosen = to_device(torch.tensor(lanes), self.device)
                keys, limits = keys[chosen], limits[chosen]
            return philox.keep(keys, limits, update, call, draws, out)
        kept = torch.empty(len(lanes), draws)
        bits = torch.empty((draws + 3) // 4, dtype=torch.int64)
        for row, lane in enumerate(lanes):
            bits.random_(-(2**63), None, generator=self.streams[lane])
            drawn, cut = bits.view(torch.int16)[:draws], self.cuts[lane]
            if cut is not None:
                torch.ge(drawn, cut - 32768, out=kept[row])
                continue
            start = 0
            for count, rate in sites:
                here, own = slice(start, start + count), round(rate * 65536)
                torch.ge(drawn[here], own - 32768, out=kept[row, here])
                kept[row, here].mul_(_scale(own))
                start += count
        return kept.mul_(self.scales[lanes, None])

    def _counted_by_site(self, lanes: Sequence[int], sites: Sequence[Site], update: int, call: int) -> Tensor:
        """Scaled masks [lanes, draws] where lanes leave each place its rate: the same numbers against several cuts."""
        chosen = to_device(torch.tensor(lanes), self.device)
        own = to_device(torch.tensor([self.cuts[lane] is None for lane in lanes]), self.device)
        keys, draws, start = self.keys[chosen], sum(count for count, _ in sites), 0
        masks = torch.empty(len(lanes), draws, device=self.device)
        known: dict[int, tuple[Tensor, Tensor]] = {}
        for count, rate in sites:
            cut = round(rate * 65536)
            if cut not in known:
                limits = torch.where(own, cut, self.limits[chosen])
                scales = torch.where(own, _scale(cut), self.scales[chosen])
                known[cut] = philox.keep(keys, limits, update, call, draws), scales[:, None]
            kept, scale = known[cut]
            torch.mul(kept[:, start : start + count], scale, out=masks[:, start : start + count])
            start += count
        return masks

    def _buffer(self, lanes: int, counters: int) -> Tensor:
        if (lanes, counters) not in self._buffers:
            self._buffers[lanes, counters] = torch.empty(lanes, counters, dtype=torch.int64, device=self.device)
        return self._buffers[lanes, counters]

    def memory(self) -> set[int]:
        """Where masks of all lanes are written, as `data_ptr`."""
        return {buffer.data_ptr() for buffer in self._buffers.values()}


def _scale(cut: int) -> float:
    """What is kept at a rate of cut / 65536 is multiplied by."""
    return 65536 / (65536 - cut) if cut < 65536 else 0.0


# ----------------------------------------------------------------------------------------------------------- a run


@dataclass
class _Log:
    """What is kept of each step and evaluation, on the device until it is asked for."""

    losses: list[Tensor] = field(default_factory=list)  # S × [L]
    rates: list[list[float]] = field(default_factory=list)  # S × L
    norms: list[Tensor] = field(default_factory=list)  # S × [L]
    eval_steps: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)  # E × [L, N, C]


class _Data:
    """A split on the device, padded to a multiple of some tokens that is no more than the model reads."""

    def __init__(self, split: TokenizedSplit, device: torch.device, pad: int, multiple: int, most: int | None) -> None:
        width = split.input_ids.shape[1]
        more = min(math.ceil(width / multiple) * multiple, most or sys.maxsize) - width
        wide = {"input_ids": pad, "token_type_ids": 0, **({} if split.sentences is None else {"labels": NO_LABEL})}

        def moved(name: str) -> Tensor:
            values = torch.from_numpy(getattr(split, name))
            return (F.pad(values, (0, more), value=wide[name]) if name in wide else values).to(device)

        self.input_ids, self.token_type_ids = moved("input_ids"), moved("token_type_ids")  # [N, T]
        self.lengths = torch.from_numpy(split.lengths)  # [N], read by the host
        self.labels = moved("labels")  # [N], or of tokens [N, T]
        self.multiple = multiple if multiple > 1 else _WIDTH_STEP
        words = split.sentences
        # Where each sentence's words begin among all of them, [N + 1]; of other tasks an example is one.
        self.begins = torch.from_numpy(
            np.append(0, np.cumsum(np.ones(len(self.lengths), int) if words is None else words))
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def width(self, rows: Tensor) -> int:
        """The longest text of these rows, rounded up to a width that batches share."""
        longest = int(self.lengths[rows].max())
        return min(self.input_ids.shape[1], math.ceil(longest / self.multiple) * self.multiple)


class _Run:
    """The state of a pack in training: flat weights [L, P] with a view per parameter, and the optimizer over them."""

    def __init__(
        self, pack: Sequence[Trial], device: torch.device, record: bool = True, compiled: bool = False
    ) -> None:
        self.recipe = pack[0].recipe  # for what all lanes share
        self.recipes = [trial.recipe for trial in pack]
        self.device = device
        task = prepared(self.recipe.task, self.recipe.model, self.recipe.max_length)
        for recipe in self.recipes:
            tasks.check_recipe(recipe, task.train.labels, task.metric)
        self.task = task
        self.tokens = self.recipe.task.kind == "tokens"
        self.split, self.behind, self.words = self._augmented(pack)
        self.majority: Majority = metrics.majority(task.metric, task.validation.targets, task.num_labels)
        self.network = network(self.recipe, task)
        fitting.check(self.network, task, self.recipe.model.name, [self.split])
        padded = (device, task.pad_token_id, self.recipe.pad_to_multiple_of, self.network.positions)
        self.training, self.validation = _Data(self.split, *padded), _Data(task.validation, *padded)
        self.test = None if task.test is None else _Data(task.test, *padded)
        self.module = self.network.module.to(device)
        self.epoch_steps = tasks.epoch_steps(task.train.labels, self.recipe)
        self.steps = self.recipe.max_steps or self.epoch_steps * self.recipe.epochs

        self.weights, self.views = self._stack([trial.seeds.init_seed for trial in pack])
        self.lanes = self.views | self._settings()  # what differs from lane to lane
        self.gradient = lane_rows(self.weights.shape, self.weights)
        self.gradient_views = self._cut(self.gradient)
        self.parts = self._parts()
        self._reinitialise([trial.seeds.init_seed for trial in pack])
        self.optimizer = lane_optimizer(self.weights, self._decayed(), self.recipes, self.steps, self.parts)
        self.orders = [stream("order", trial.seeds.order_seed) for trial in pack]
        self.masks = _Masks([r.dropout for r in self.recipes], [t.seeds.dropout_seed for t in pack], device)
        self.recording = True
        self.captures = Captures() if device.type == "cuda" and os.environ.get("HARNESS_CAPTURE") != "off" else None
        self.compiled = CompiledSteps(self.recipe.precision, self.network.compiled) if compiled else None
        self.steps_called: set[tuple[object, ...]] = set()  # keys of the recordings there may be of a step
        self.part_gradient: Tensor | None = None  # [L, P], of a captured part of a batch
        self.layout = replay.layout(list(self.lanes.values()))
        self.sites: dict[tuple[int, int], list[Site]] = {}  # (batch, width) -> where a forward pass draws
        self.log = _Log()
        self.recorder = None
        if record and not self.tokens:  # what it keeps is of one vector an example
            self.recorder = telemetry.Recorder(list(self.views), self.network.head, self.parts.sizes, self.steps)
        ends = [*range(self.epoch_steps, self.steps, self.epoch_steps), self.steps]
        self.told = np.empty((len(pack), 0, len(early_signals.SIGNALS)))  # [L, t, K]: the signals at the shares reached
        self.averages = remedies.Averages(self.recipes, self.weights, ends)
        self.choices = [remedies.Choice(recipe) for recipe in self.recipes]
        self.standing: list[list[int]] = []  # E × L: the evaluation that a lane's result would be of, as a number
        self.said = 0  # of the evaluations, by `evaluations`
        self.stops: dict[int, int] = {}  # lane -> the update after which it stopped early
        self.kept: dict[int, tuple[int, Tensor]] = {}  # lane -> (updates done, weights [P]) that its result is of
        self.mixout = remedies.Mixout(
            self.parts, self.recipes, [stream("mixout", trial.seeds.dropout_seed, device) for trial in pack]
        )
        if self.mixout.lanes:
            self.mixed = copied(self.weights)  # [L, P]
            self.mixed_views = {name: view.requires_grad_() for name, view in self._cut(self.mixed).items()}
        self.mixup = None
        if self.recipe.mixup:
            if self.network.causal:
                raise HarnessError(
                    "mixup goes with an encoder, where all words of both texts are read",
                    got=f"{self.recipe.model.name}, which answers at the first text's last word",
                    allowed="mixup: 0 with a decoder",
                    fix="drop mixup or name another model",
                )
            self.mixup = remedies.Mixup(self.recipes, [stream("mixup", trial.seeds.dropout_seed) for trial in pack])
        self.noise = None
        if self.recipe.neftune_alpha:
            streams = [stream("neftune", trial.seeds.dropout_seed, device) for trial in pack]
            self.noise = remedies.Noise(self.recipes, streams, remedies.embedding(self.module).embedding_dim)
        self.alphas = torch.tensor([recipe.r_drop for recipe in self.recipes], device=device)  # [L]
        self.targets = None
        if self.recipe.soft_targets:
            self.targets = remedies.Targets(self.recipes, task.train.labels, task.num_labels, device)

    def _augmented(self, pack: Sequence[Trial]) -> tuple[TokenizedSplit, Tensor, list[str | None]]:
        """The training split with each lane's changed copies behind it, and how to find and name them.

        Lanes have the examples in common; a lane's copies C stand `behind` [L, 1] rows further on than they would if
        there were no other lane's. Lanes that draw the same texts share them. The last is the hash, per lane, of the
        words or translators that changed them.
        """
        blocks: dict[tuple[object, ...], int] = {}  # what decides a lane's texts -> its place among the copies
        found: list[tuple[Rows, str | None]] = []
        places = []
        for trial in pack if self.recipe.copies else ():
            key = (augmentation.settings(trial.recipe), trial.seeds.order_seed)
            if key not in blocks:
                blocks[key] = len(found)
                raw = _raw(self.recipe.task)
                found.append(augmentation.copies(raw, trial.recipe, trial.seeds.order_seed, str(self.device)))
            places.append(blocks[key])
        if not places:
            return self.task.train, torch.zeros(len(pack), 1, dtype=torch.int64), [None] * len(pack)
        tokenizer = pretrained.tokenizer(self.recipe.model)
        split = tokenization.with_copies(self.task, [rows for rows, _ in found], tokenizer)
        behind = torch.tensor(places)[:, None] * (len(self.task.train.labels) * self.recipe.copies)
        return split, behind, [found[place][1] for place in places]

    def _rows(self, order: Tensor) -> Tensor:
        """Where examples of the lanes' epochs [L, B] stand in the training split: copies each lane has its own."""
        if not self.recipe.copies:
            return order
        return torch.where(order < len(self.task.train.labels), order, order + self.behind)

    # ------------------------------------------------------------------------------------------------- weights

    def _stack(self, init_seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        flat = lane_rows((len(init_seeds), self.network.parameters), torch.empty(0, device=self.device))  # [L, P]
        views = self._cut(flat)
        for lane, seed in enumerate(init_seeds):
            for name, value in self.network.initialised(stream("init", seed)).items():
                views[name][lane].copy_(value)
        return flat, {name: view.requires_grad_() for name, view in views.items()}

    def _settings(self) -> dict[str, Tensor]:
        """What the module is given of each lane beside its parameters, by name, [L]."""
        if self.recipe.method != "lora":
            return {}
        scales = [r.lora_alpha / r.lora_rank for r in self.recipes]
        return {methods.LORA_SCALE: torch.tensor(scales, device=self.device)}

    def _shared(self, lanes: int) -> dict[str, Tensor]:
        """Frozen matrices as if each lane had its own, [lanes, *shape], without a copy; on a CPU alone.

        So each lane's product is one by itself there, whose bits can't depend on the pack; a GPU multiplies all lanes
        at once, which is faster.
        """
        if self.device.type != "cpu":
            return {}
        return {name: value.expand(lanes, *value.shape) for name, value in self.network.frozen.items()}

    def _cut(self, flat: Tensor) -> dict[str, Tensor]:
        """Views [L, *shape] into flat [L, P], in the module's order."""
        views, start = {}, 0
        for name, value in self.network.pretrained.items():
            views[name] = flat[:, start : start + value.numel()].view(len(flat), *value.shape).detach()
            start += value.numel()
        return views

    def _decayed(self) -> Tensor:
        """[P], 1 where weight decay applies: not on biases and not on the scales of normalisations."""
        scales = normalisation.scales(self.module)
        parts = []
        for name, value in self.network.pretrained.items():
            kept = name.endswith("bias") or name in scales or methods.is_scale(name)
            parts.append(torch.full((value.numel(),), float(not kept), device=self.device))
        return torch.cat(parts)

    def _parts(self) -> remedies.Parts:
        slots = remedies.slots(list(self.views), self.network.head)
        columns = remedies.linear_columns(self.module)
        return remedies.Parts(
            slots=tuple(slots.values()),
            sizes=tuple(view[0].numel() for view in self.views.values()),
            columns=tuple(columns.get(name, 0) for name in self.views),
            values=tuple(self.network.pretrained[name] for name in self.views),
            device=self.device,
        )

    @torch.no_grad()
    def _reinitialise(self, init_seeds: Sequence[int]) -> None:
        config: Any = self.module.config
        std = getattr(config, "initializer_range", pretrained.HEAD_STD)
        for lane, (recipe, seed) in enumerate(zip(self.recipes, init_seeds, strict=True)):
            # A stream of its own, so that the head is that of the same seed without it.
            remedies.reinitialise(recipe, self.parts, self.views, lane, self.module, std, stream("reinit", seed))

    # ------------------------------------------------------------------------------------------------- the state

    def made_of_sha256(self) -> str:
        """A hash of what decides the results beside the recipes: texts, labels, tokens, weights, settings."""
        config: Any = self.module.config
        parts = (
            self.task.sha256,
            self.network.sha256,
            config.to_json_string(),
            "recorded" * (self.recorder is not None),
        )
        digest = hashlib.sha256("\n".join(parts).encode())
        for split in (self.split, *self.task.splits[1:]):
            for values in (split.input_ids, split.token_type_ids, split.lengths):
                digest.update(values.tobytes())
        return digest.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """What the updates to come and the results depend on, after an update; not a copy. S updates, E evaluations."""
        return {
            "weights": self.weights,  # [L, P]
            **self.optimizer.state(),
            "order": self.order,  # [L, N]
            **{
                f"{name}_streams": torch.stack([one.get_state() for one in streams])  # [L, bytes]
                for name, streams in self._streams().items()
            },
            "losses": torch.stack(self.log.losses),  # [S, L]
            "rates": torch.tensor(self.log.rates, dtype=torch.float64),  # [S, L]
            "norms": torch.stack(self.log.norms),  # [S, L]
            "eval_steps": torch.tensor(self.log.eval_steps, dtype=torch.int64),  # [E]
            "logits": torch.from_numpy(np.array(self.log.logits, dtype=np.float32)),  # [E, L, N, C]
            **({"averages": self.averages.rows} if self.averages.lanes else {}),  # [A, P]
            **(self.recorder.state() if self.recorder else {}),
            **{f"kept.{lane}.{done}": weights for lane, (done, weights) in self.kept.items()},  # [P]
        }

    def _streams(self) -> dict[str, Sequence[torch.Generator]]:
        """What is drawn from while a pack trains, each one stream a lane."""
        found = {"order": self.orders, "mixout": self.mixout.streams}
        if self.masks.streams:
            found["dropout"] = self.masks.streams
        more = {"mixup": self.mixup, "neftune": self.noise}
        return found | {name: one.streams for name, one in more.items() if one is not None}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of a run that was made of the same."""
        self.weights.copy_(state["weights"])
        for name, value in self.optimizer.state().items():
            value.copy_(state[name])
        if self.averages.lanes:
            self.averages.rows.copy_(state["averages"])
        self.order = state["order"].clone()
        for name, streams in self._streams().items():
            for generator, kept in zip(streams, state[f"{name}_streams"], strict=True):
                generator.set_state(kept.clone())
        self.log = _Log(
            losses=list(state["losses"].to(self.device, copy=True)),
            rates=state["rates"].tolist(),
            norms=list(state["norms"].to(self.device, copy=True)),
            eval_steps=state["eval_steps"].tolist(),
            logits=list(state["logits"].clone().numpy()),
        )
        if self.recorder:
            self.recorder.restore(state, self.device)
        self.optimizer.done = len(self.log.losses)
        for done, logits in zip(self.log.eval_steps, self.log.logits, strict=True):
            self._choose(done, logits, None)
        for name, weights in state.items():
            if name.startswith("kept."):
                _, lane, at = name.split(".")
                self.kept[int(lane)] = int(at), weights.to(self.device, copy=True)

    # ------------------------------------------------------------------------------------------------ one step

    def update(self, step: int) -> None:
        """One batch for every lane: forward, backward, clip, AdamW; then an evaluation where one is due."""
        if step % self.epoch_steps == 0:
            self.order = torch.stack([self._epoch(generator) for generator in self.orders])  # [L, N]
        start = step % self.epoch_steps * self.recipe.batch_size
        rows = self._rows(self.order[:, start : start + self.recipe.batch_size])  # [L, B]
        lanes = self.lanes
        if self.mixout.lanes:
            with torch.no_grad():
                self.mixout.mix(self.weights, self.mixed)
            lanes = lanes | self.mixed_views
        batch = self._batch if self.recipe.padding == "dataset" else self._batch_by_length
        micro = self.recipe.batch_size // self.recipe.gradient_accumulation
        size = (1 if self.tokens else rows.shape[1]) * self.recipe.forward_passes
        losses: Tensor | None = None
        self._begin(rows)
        mixture = self.mixup.draw(rows) if self.mixup else None
        parts = torch.split(rows, micro, dim=1)  # [L, b]; one, of the whole batch, without accumulation
        mixtures = mixture.split(micro) if mixture else [None] * len(parts)
        for number, (part, own) in enumerate(zip(parts, mixtures, strict=True)):
            of_part = batch(lanes, part, size, own, number, add=number > 0)
            losses = of_part if losses is None else losses + of_part
        assert losses is not None
        if self.tokens:  # the mean over the words of the batch, of which each lane has its own number
            labels = self.training.labels[to_device(rows, self.device)]
            words = (labels != NO_LABEL).sum((1, 2)).clamp(min=1)  # [L]
            losses = losses / words
            self.gradient.div_(words[:, None])
        self.log.losses.append(losses)
        self.log.rates.append(self.optimizer.rates())
        with torch.no_grad():
            self.mixout.back(self.gradient)
            recorder, flat = self.recorder, (self.weights, self.gradient)
            with recorder.update(step + 1, *flat, self.optimizer) if recorder else nullcontext():
                self.log.norms.append(self.optimizer.step(self.gradient))
            self.averages.update(self.weights, step + 1)
        done = step + 1
        if self._due(done):
            weights, lanes = self.weights, self.lanes
            if self.averages.lanes:
                weights = self.averages.evaluated(self.weights, done)
                lanes = lanes | self._cut(weights)
            self.log.eval_steps.append(done)
            self.log.logits.append(self._evaluate(lanes, self.validation))
            self._choose(done, self.log.logits[-1], weights)

    def _begin(self, rows: Tensor) -> None:
        """Tell the targets the rows [L, B] of a whole batch, before its parts are looked at."""
        if self.targets is not None:
            self.targets.begin(self.training.labels[to_device(rows, self.device)])

    def _epoch(self, generator: torch.Generator) -> Tensor:
        """The order of an epoch's examples, [N]; oversampled, the rarer classes are filled up by drawing again."""
        if not self.recipe.oversample:
            return torch.randperm(len(self.task.train.labels) * (1 + self.recipe.copies), generator=generator)
        labels = torch.from_numpy(self.task.train.labels).repeat(1 + self.recipe.copies)
        rows = [torch.nonzero(labels == label)[:, 0] for label in torch.unique(labels)]
        most = max(map(len, rows))
        more = [one[torch.randint(len(one), (most - len(one),), generator=generator)] for one in rows]
        filled = torch.cat([*rows, *more])
        return filled[torch.randperm(len(filled), generator=generator)]

    def _due(self, done: int) -> bool:
        """Whether an evaluation follows so many updates."""
        return tasks.due(self.recipe, done, self.epoch_steps, self.steps)

    def _choose(self, done: int, logits: np.ndarray, weights: Tensor | None) -> None:
        """See for each lane whether this evaluation [L, N, C] is its best, and whether it stops; None when restoring.

        What a lane that stopped does from then on is thrown away, so that the others go on as they are.
        """
        now, before = len(self.standing), self.standing[-1] if self.standing else [0] * len(self.recipes)
        self.standing.append([now] * len(self.recipes))
        for lane, (recipe, choice) in enumerate(zip(self.recipes, self.choices, strict=True)):
            if lane in self.stops:
                self.standing[-1][lane] = before[lane]
            if not recipe.selects_checkpoint or lane in self.stops:
                continue
            better = choice.see(self._value(recipe, logits[lane]))
            if recipe.keep_best and not better:
                self.standing[-1][lane] = before[lane]
            if choice.stopped:
                self.stops[lane] = done
            if weights is not None and (better if recipe.keep_best else choice.stopped):
                self.kept[lane] = done, weights[lane].clone()

    def _value(self, recipe: Recipe, logits: np.ndarray) -> float | None:
        """What an evaluation [N, C] is chosen by."""
        if recipe.early_stopping_on == "loss":
            return self._dev_loss(logits)
        dev = self.task.validation
        return metrics.score(self.task.metric, logits, dev.targets, dev.sentences).value

    @property
    def stopped(self) -> bool:
        """Whether every lane stopped early."""
        return len(self.stops) == len(self.recipes)

    def _batch(
        self, lanes: dict[str, Tensor], rows: Tensor, size: int, mixture: Mixture | None, call: int, *, add: bool
    ) -> Tensor:
        """The loss of each lane's rows [L, B] at the task's width, over `size`, [L]; its gradient is written or added.

        `call` tells the parts of one update apart.
        """
        width = self.training.input_ids.shape[1]
        inputs, labels, more = self._for_step(lanes, rows, list(range(len(rows))), width, mixture, call)
        names, trained = list(inputs), len(self.views)

        def step(given: Sequence[Tensor]) -> list[Tensor]:
            views, inputs, (labels, *rest) = self._named(given, names)
            losses = self._losses(views, inputs, labels, dict(zip(more, rest, strict=True))) / size
            return [losses.detach(), *torch.autograd.grad(losses.sum(), given[:trained], materialize_grads=True)]

        batches_left = (self.steps - self.optimizer.done - 1) * self.recipe.gradient_accumulation
        arguments = [*inputs.values(), labels, *more.values()]
        given, key = [*lanes.values(), *arguments], self._key(" ".join(["step", *more]), lanes, arguments, size)
        function, pays = self._compiled_or_recorded(key, step, given, rows, size, batches_left)
        self.steps_called.add(key)
        if self.captures is not None and pays:
            fixed = {one.data_ptr() for one in lanes.values()} | self.masks.memory()
            return self._replayed(key, function, given, fixed, add)
        losses, *gradients = function(given)
        _write(self.gradient_views, gradients, add)
        return losses

    def _replayed(self, key: object, step: replay.Function, given: list[Tensor], fixed: set[int], add: bool) -> Tensor:
        """As `_batch` by a CUDA graph of the step and of writing its gradient; the losses [L]."""
        assert self.captures is not None
        whole = self.gradient
        if self.recipe.gradient_accumulation > 1:  # a part's gradient lies beside the sum of the parts before it
            whole = self.part_gradient = copied(whole) if self.part_gradient is None else self.part_gradient

        def write(given: Sequence[Tensor]) -> list[Tensor]:
            losses, *gradients = step(given)
            _write(self._cut(whole), gradients, add=False)
            return [losses]

        losses = self.captures.of((key, given[0].data_ptr()), write, given, fixed, [whole])(given)[0].clone()
        if whole is not self.gradient:
            self.gradient.add_(whole) if add else self.gradient.copy_(whole)
        return losses

    def _for_step(
        self, views: dict[str, Tensor], rows: Tensor, lanes: list[int], width: int, mixture: Mixture | None, call: int
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """What a step reads of some lanes' rows [lanes, b] at a width: inputs, labels, and what else there is by name.

        With R-Drop all rows stand there twice, [lanes, 2b], so that one pass is two that differ by what is drawn.
        """
        rows = rows.repeat(1, self.recipe.forward_passes)
        if mixture is not None:
            mixture = Mixture(mixture.others.repeat(1, self.recipe.forward_passes), mixture.shares)
        inputs = self._inputs(self.training, rows, width, mixture)
        more = {}
        if mixture is not None:
            more["others"] = self._inputs(self.training, mixture.others, width)["input_ids"]  # [lanes, B, T]
            more["other_labels"] = self._labels(mixture.others, lanes, width)
            more["shares"] = to_device(mixture.shares, self.device)  # [lanes]
        if self.masks.active:
            sites, whole = self._drawing(inputs, views), self.recipe.padding == "dataset"
            more["masks"] = self.masks.draw(lanes, sites, self.optimizer.done, call, whole=whole)  # [lanes, draws]
            more["scales"] = self.masks.scales[lanes]
        if self.noise is not None:
            lengths = to_device(self._lengths(self.training, rows, mixture), self.device)
            noise = self.noise.draw(lanes, lengths, width)
            more["noise"] = F.pad(noise, (0, 0, self.network.virtual, 0))  # [lanes, B, T, D]
        if self.recipe.r_drop:
            more["alphas"] = self.alphas[lanes]
        return inputs, self._labels(rows, lanes, width), more

    def _labels(self, rows: Tensor, lanes: list[int], width: int) -> Tensor:
        """The labels of some lanes' rows [lanes, B], of tokens [lanes, B, width]; or targets [lanes, B, C], where the
        recipes have soft ones.
        """
        labels = self.training.labels[to_device(rows, self.device)]
        if self.tokens:
            return labels[..., :width]
        return labels if self.targets is None else self.targets.of(labels, lanes)

    def _batch_by_length(
        self, of_lanes: dict[str, Tensor], rows: Tensor, size: int, mixture: Mixture | None, call: int, *, add: bool
    ) -> Tensor:
        """As `_batch`, each lane's rows sorted by length and cut in parts, each at the width of its longest text."""
        losses, total = torch.zeros(len(rows), device=self.device), torch.zeros((), device=self.device)
        read = rows[..., None] if mixture is None else torch.stack([rows, mixture.others], dim=2)  # [L, B, 1 or 2]
        by_length = torch.argsort(self.training.lengths[read].amax(dim=2), dim=1, stable=True)
        sorted_read = read.gather(1, by_length[..., None].expand_as(read))
        parts = torch.split(sorted_read, math.ceil(rows.shape[1] / _PARTS), dim=1)  # [L, b, 1 or 2]
        for number, part in enumerate(parts, start=call * _PARTS):
            groups: dict[int, list[int]] = {}  # width -> lanes; a lane's width depends on its own rows alone
            for lane, row in enumerate(part):
                groups.setdefault(self.training.width(row), []).append(lane)
            for width, lanes in groups.items():
                whole = len(lanes) == len(rows)
                views = of_lanes if whole else {name: view[lanes] for name, view in of_lanes.items()}
                own = mixture and Mixture(part[lanes, :, -1], mixture.shares[lanes])
                given = self._for_step(views, part[lanes, :, 0], lanes, width, own, number)
                loss = self._losses(views, *given) / size  # [lanes]
                losses[lanes] += loss.detach()
                total = total + loss.sum()
        gradients = torch.autograd.grad(total, [of_lanes[name] for name in self.views], materialize_grads=True)
        _write(self.gradient_views, gradients, add)
        return losses

    def _call(
        self,
        what: str,
        function: replay.Function,
        lanes: dict[str, Tensor],
        arguments: list[Tensor],
        calls_left: int,
        size: int = 0,
    ) -> list[Tensor]:
        """What the function gives for lanes and arguments; played back once that pays.

        They lie as `self.lanes` do, and `size` is a number that the function takes as a constant.
        """
        given = [*lanes.values(), *arguments]
        function, _ = self._recorded(self._key(what, lanes, arguments, size), function, given, calls_left)
        return function(given)

    def _key(self, what: str, lanes: dict[str, Tensor], arguments: list[Tensor], size: int) -> tuple[object, ...]:
        """What a recording of a function of lanes and arguments depends on, the function by name."""
        kind = (self.task.num_labels, self.task.label_names is None)
        stride = next(iter(lanes.values())).stride(0)  # all else of how they lie is as `self.layout` says
        return (what, self.recipe.precision, *kind, size, self.layout, stride, replay.layout(arguments))

    @property
    def step_mode(self) -> StepMode:
        """How most steps of this run reached the device."""
        played = [self.network.recordings.get(key) for key in self.steps_called]
        compiled = self.compiled is not None and self.compiled.used
        if self.captures is not None and any(self.captures.known.values()):
            return "compiled cuda graph" if compiled else "cuda graph"
        return "compiled" if compiled else "recording" if any(played) else "operations"

    @property
    def step_mode_reason(self) -> str | None:
        """Why steps were not compiled or captured, where that was asked for or tried."""
        reasons = [tried.reason for tried in (self.compiled, self.captures) if tried is not None]
        return "; ".join(filter(None, reasons)) or None

    def _compiled_or_recorded(
        self,
        key: tuple[object, ...],
        step: replay.Function,
        given: list[Tensor],
        rows: Tensor,
        size: int,
        calls_left: int,
    ) -> tuple[replay.Function, bool]:
        """As `_recorded`; of a whole batch, the compiled step where one is asked for and can be had.

        Whether a step is compiled must not depend on how often this process called it: bits depend on it.
        """
        whole = rows.shape[1] * self.recipe.gradient_accumulation == self.recipe.batch_size and (
            self.tokens or size == self.recipe.batch_size * self.recipe.forward_passes
        )
        compiled = self.compiled.of(key, step, given) if self.compiled is not None and whole else None
        return self._recorded(key, step, given, calls_left) if compiled is None else (compiled, True)

    def _recorded(
        self, key: tuple[object, ...], function: replay.Function, given: list[Tensor], calls_left: int
    ) -> tuple[replay.Function, bool]:
        """The function's recording, or itself where there can't be one or it doesn't pay; and whether it does."""
        known = self.network.recordings
        if key not in known:
            self.network.calls[key] += 1  # those of the worker's packs before count too
            if not self.recording or self.network.calls[key] + calls_left < _RECORDING_PAYS:
                return function, False
            known[key] = replay.record(function, given)
        return known[key] or function, True

    def _named(
        self, given: Sequence[Tensor], names: Sequence[str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Sequence[Tensor]]:
        """The lanes' tensors and the module's inputs by name, of what a recordable function is given; and the rest."""
        count = len(self.lanes)
        views = dict(zip(self.lanes, given[:count], strict=True))
        inputs = dict(zip(names, given[count : count + len(names)], strict=True))
        return views, inputs, given[count + len(names) :]

    def _losses(
        self, views: dict[str, Tensor], inputs: dict[str, Tensor], labels: Tensor, more: dict[str, Tensor]
    ) -> Tensor:
        """The loss of each lane's rows, summed over them, [lanes]."""
        self.module.train()
        views = views | self._shared(len(labels))
        with _Indexed() if self._few_words(inputs["input_ids"]) else nullcontext():
            losses: Tensor = vmap(self._loss)(views, inputs, labels, more)
        return losses

    def _few_words(self, words: Tensor) -> bool:
        return self.device.type == "cuda" and words.numel() <= _Indexed.MOST

    def _loss(
        self, view: dict[str, Tensor], inputs: dict[str, Tensor], labels: Tensor, more: dict[str, Tensor]
    ) -> Tensor:
        with ExitStack() as around:
            around.enter_context(_ApplyMasks(more["masks"], more["scales"]) if "masks" in more else _NoDropout())
            if "others" in more:
                around.enter_context(remedies.mixed_words(self.module, more["others"], more["shares"]))
            if "noise" in more:  # on what is mixed
                around.enter_context(remedies.noisy_words(self.module, more["noise"]))
            logits = self._logits(view, inputs)  # [B, C]
        loss = self._against(logits, labels)
        if "others" in more:
            share = more["shares"]
            loss = share * loss + (1 - share) * self._against(logits, more["other_labels"])
        if "alphas" in more:
            term = more["alphas"] * self._between_passes(logits, labels)
            # The gradient is that of both, the value that of the loss alone: a curve of it can be read as any other.
            loss = loss + (term - term.detach())
        return loss

    def _between_passes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far the two passes of R-Drop lie apart, [], from both's logits [2B, C] and labels.

        Divided by 2B as the loss, the sum is the mean of the two losses + α/2 · (KL(p‖q) + KL(q‖p)), as the method's
        code (github.com/dropreg/R-Drop) gives it, or α times the squared difference of a regression; with α near 0 it
        is training without it. The paper (Wu et al. 2021, arXiv:2106.14448, eq. 4) adds the two losses up instead:
        its α is twice this one.
        """
        first, second = logits.chunk(2)
        if self.task.label_names is None:
            return 2 * F.mse_loss(first[:, 0], second[:, 0], reduction="sum")
        apart = remedies.divergence(first, second)  # [B], of tokens [B, T]
        return (apart * (labels.chunk(2)[0] != NO_LABEL) if self.tokens else apart).sum()

    def _against(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits [B, C], summed."""
        if self.tokens:
            flat = logits.reshape(-1, logits.shape[-1])
            return F.cross_entropy(flat, labels.reshape(-1), ignore_index=NO_LABEL, reduction="sum")
        if self.task.label_names is None:
            return F.mse_loss(logits[:, 0], labels, reduction="sum")
        if self.targets is not None:
            return remedies.soft_cross_entropy(logits, labels)
        return F.cross_entropy(logits, labels, reduction="sum")

    def _logits(self, view: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
        with self._precise():
            logits: Tensor = functional_call(self.module, methods.given(view), args=(), kwargs=inputs).logits
        if self.tokens:
            logits = logits[:, self.network.virtual :]
        return logits[..., : self.task.num_labels].float()

    @contextmanager
    def _precise(self) -> Iterator[None]:
        if self.recipe.precision != "bf16":
            yield
            return
        with torch.autocast(self.device.type, dtype=torch.bfloat16), _Bf16():
            yield

    def _inputs(self, data: _Data, rows: Tensor, width: int, mixture: Mixture | None = None) -> dict[str, Tensor]:
        lengths, rows = to_device(self._lengths(data, rows, mixture), self.device), to_device(rows, self.device)
        types = data.token_type_ids[rows, :width] if self.recipe.token_type_ids else None
        return self.network.inputs(data.input_ids[rows, :width], lengths, types)

    def _lengths(self, data: _Data, rows: Tensor, mixture: Mixture | None) -> Tensor:
        """The tokens of each row's text, or of the longer of two that are mixed."""
        own = data.lengths[rows]
        return own if mixture is None else torch.maximum(own, data.lengths[mixture.others])

    def _drawing(self, inputs: dict[str, Tensor], views: dict[str, Tensor]) -> list[Site]:
        """Where a forward pass of a lane draws: found out once for each width of a batch."""
        batch, width = inputs["input_ids"].shape[1:]
        if (batch, width) not in self.sites:
            self.module.train()  # in evaluation a model calls it with a rate of 0
            with torch.no_grad(), _NoDropout() as counted:
                self._logits({k: v[0] for k, v in views.items()}, {k: v[0] for k, v in inputs.items()})
            self.sites[batch, width] = counted.sites
        return self.sites[batch, width]

    # ----------------------------------------------------------------------------------------------- evaluation

    @torch.no_grad()
    def _evaluate(self, lanes: dict[str, Tensor], data: _Data) -> np.ndarray:
        """Logits of every lane's weights on a split, [L, N, C] float32; of tokens N counts words, by their first."""
        self.module.eval()
        size = self.recipe.eval_batch_size
        trim = self.recipe.padding == "batch"
        # Sorting by length makes trimmed batches short; it is the same order for every lane.
        order = torch.argsort(data.lengths, stable=True) if trim else torch.arange(len(data))
        found = np.empty((len(self.weights), int(data.begins[-1]), self.task.num_labels), dtype=np.float32)
        batches = torch.split(order, size)
        evaluations_left = (self.steps - self.optimizer.done) // (self.recipe.eval_steps or self.epoch_steps)
        recorder = self.recorder if data is self.validation else None
        evaluated = self._evaluated if recorder else self._answered
        what = "logits and vectors" if recorder else "logits"
        looked_at: list[Tensor] = []
        for rows in batches:
            inputs = self._inputs(data, rows, data.width(rows) if trim else data.input_ids.shape[1])
            names = list(inputs)

            def forward(given: Sequence[Tensor], names: list[str] = names) -> list[Tensor]:
                views, inputs, _ = self._named(given, names)
                if not (shared := self._shared(len(self.weights))):
                    return list(vmap(evaluated, in_dims=(0, None))(views, inputs))
                each = {name: value.expand(len(self.weights), *value.shape) for name, value in inputs.items()}
                return list(vmap(evaluated)(views | shared, each))

            calls_left = evaluations_left * (1 if trim else len(batches))
            logits, *read = self._call(what, forward, lanes, list(inputs.values()), calls_left)  # [L, B, C], [L, B, H]
            places = rows
            if self.tokens:  # [L, B, T, C]
                labels = data.labels[rows.to(self.device), : logits.shape[2]]
                logits = logits[:, labels != NO_LABEL]
                places = torch.cat([torch.arange(int(data.begins[row]), int(data.begins[row + 1])) for row in rows])
            found[:, places.numpy()] = logits.cpu().numpy()
            looked_at += [vectors[:, rows < telemetry.MOST_VECTORS] for vectors in read]
        if recorder:
            recorder.evaluation(found, torch.cat(looked_at, dim=1) if looked_at else None)
        return found

    def _answered(self, view: dict[str, Tensor], inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (self._logits(view, inputs),)

    def _evaluated(self, view: dict[str, Tensor], inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The logits [B, C], and the vectors [B, H] that the head reads."""
        with telemetry.vectors(self.module, self.network.causal) as found:
            return self._logits(view, inputs), *found

    # -------------------------------------------------------------------------------------------------- results

    def signals(self) -> np.ndarray | None:
        """The signals of each lane so far [L, t, K], when one more share was reached; None else and without recording.

        The device is waited for 40 times a run at most, and not between. A lane that stopped early has NaN from there.
        """
        done, first = self.optimizer.done, self.told.shape[1]
        if self.recorder is None or early_signals.reached(done, self.steps) == first:
            return None
        losses = torch.stack(self.log.losses).cpu().numpy()  # [S, L]
        new = np.full(
            (len(self.recipes), early_signals.reached(done, self.steps) - first, len(early_signals.SIGNALS)), np.nan
        )
        evaluations = np.array(self.log.eval_steps)
        for lane, rows in enumerate(new):
            made = self.stops.get(lane, done)
            recorded = self.recorder.of(lane, made, len(evaluations))
            known = early_signals.signals_since(first, losses[:made, lane], self.steps, evaluations, recorded)
            rows[: len(known)] = known
        self.told = np.concatenate([self.told, new], axis=1)
        return self.told

    def evaluations(self) -> list[Evaluation]:
        """The evaluations since the last call."""
        found, dev = [], self.task.validation
        for number in range(self.said, len(self.log.eval_steps)):
            scores = [
                metrics.score(self.task.metric, self.log.logits[place][lane], dev.targets, dev.sentences)
                for lane, place in enumerate(self.standing[number])
            ]
            done = self.log.eval_steps[number]
            stopped = [self.stops.get(lane, self.steps) <= done for lane in range(len(scores))]
            found.append(
                Evaluation(
                    share=done / self.steps,
                    scores=np.array([self.majority.value if one.value is None else one.value for one in scores]),
                    risen=np.array([self._above_chance(one) for one in scores]),
                    last=all(stopped),
                )
            )
        self.said = len(self.log.eval_steps)
        return found

    def results(self, wall_seconds: float) -> list[LaneResult]:
        """The result of each lane, in the pack's order."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        losses = torch.stack(self.log.losses).cpu().numpy()  # [S, L]
        norms = torch.stack(self.log.norms).cpu().numpy()  # [S, L]
        last = self.weights
        if self.averages.lanes:
            last = self.averages.evaluated(last, self.optimizer.done)
        own = copied(last)  # [L, P]: the weights that each result is of
        for lane, (_, kept_weights) in self.kept.items():
            own[lane] = kept_weights
        weights = own.cpu().numpy()
        tested = None if self.test is None else self._evaluate(self.lanes | self._cut(own), self.test)  # [L, M, C]
        found, regression = [], self.task.label_names is None
        for lane in range(len(self.recipes)):
            steps = self.stops.get(lane, self.steps)
            curves, scores = self._curves(lane, losses[:steps, lane], norms[:steps, lane])
            kept = self.kept.get(lane)
            at = len(scores) - 1 if kept is None else curves.eval_step.tolist().index(kept[0])
            final, values = scores[at], curves.dev_score
            best = int(np.nanargmax(values)) if np.isfinite(values).any() else None
            bad = np.flatnonzero(~(np.isfinite(curves.train_loss) & np.isfinite(curves.grad_norm)))
            measured = Measured(
                outcome="failed" if final.at_or_below_majority else "ok",
                reason=self._reason(scores[: at + 1]) if final.at_or_below_majority else None,
                metric=self.task.metric,
                final_score=final.value,
                best_score=None if best is None else float(values[best]),
                best_step=None if best is None else int(curves.eval_step[best]),
                majority_score=self.majority.value,
                correct=final.correct,
                majority_correct=self.majority.correct,
                dev_examples=len(self.validation),
                train_examples=len(self.task.train.labels),
                steps=steps,
                final_train_loss=_finite(float(np.mean(curves.train_loss[-self.epoch_steps :], dtype=np.float64))),
                final_dev_loss=_finite(float(curves.dev_loss[at])),
                label_entropy=None if regression else metrics.label_entropy(self.task.train.targets),
                label_variance=float(self.task.train.labels.var(dtype=np.float64)) if regression else None,
                diverged_step=int(bad[0]) + 1 if bad.size else None,
                weights_sha256=hashlib.sha256(weights[lane].tobytes()).hexdigest(),
                data_sha256=self.task.sha256,
                model_sha256=self.network.sha256,
                logits_check=self.network.logits_check,
                tokens_sha256=token_hash.tokens_sha256(self.task),
                tokenizer_sha256=self.task.tokenizer_sha256,
                parameters=self.network.all_parameters,
                trained_parameters=self.network.parameters,
                augmentation_sha256=self.words[lane],
                unknown_share=self.task.unknown_share,
                wall_seconds=wall_seconds,
                lane_seconds=wall_seconds / len(self.recipes),
                peak_memory_bytes=peak,
                stopped_step=self.stops.get(lane),
                kept_step=kept[0] if kept and self.recipes[lane].keep_best else None,
                step_mode=self.step_mode,
                step_mode_reason=self.step_mode_reason,
            )
            curves = replace(curves, logits=self.log.logits[at][lane])
            if self.task.test is not None and tested is not None:
                test = self.task.test
                score = metrics.score(self.task.metric, tested[lane], test.targets, test.sentences).value
                measured = measured.model_copy(update={"test_score": score, "test_examples": len(test.labels)})
                curves = replace(curves, test_logits=tested[lane], test_labels=test.targets)
                if test.sentences is not None:
                    curves = replace(curves, test_sentences=test.sentences)
            recorded = None
            if self.recorder:
                recorded = self.recorder.of(lane, steps, len(scores))
            found.append(LaneResult(measured, replace(curves, recording=recorded), weights[lane]))
        return found

    def _curves(self, lane: int, losses: np.ndarray, norms: np.ndarray) -> tuple[Curves, list[metrics.Score]]:
        labels, sentences = self.task.validation.targets, self.task.validation.sentences
        steps = [step for step in self.log.eval_steps if step <= len(losses)]
        logits = [evaluated[lane] for evaluated in self.log.logits[: len(steps)]]  # E × [N, C]
        scores = [metrics.score(self.task.metric, one, labels, sentences) for one in logits]
        curves = Curves(
            train_loss=losses,
            lr=np.array([rates[lane] for rates in self.log.rates[: len(losses)]]),
            grad_norm=norms,
            eval_step=np.array(steps),
            dev_loss=np.array([self._dev_loss(one) for one in logits], dtype=np.float32),
            dev_score=np.array([math.nan if score.value is None else score.value for score in scores]),
            logits=logits[-1],
            labels=labels,
        )
        if sentences is not None:
            curves = replace(curves, sentences=sentences)
        return curves, scores

    def _dev_loss(self, logits: np.ndarray) -> float:
        values, labels = torch.from_numpy(logits), torch.from_numpy(self.task.validation.targets)
        loss = F.mse_loss(values[:, 0], labels) if self.task.label_names is None else F.cross_entropy(values, labels)
        return float(loss)

    def _reason(self, scores: list[metrics.Score]) -> Reason | None:
        """Why a failed run failed, where it can be told."""
        if scores[-1].value is None:
            return "diverged"
        if self.majority.correct is not None and any(map(self._above_chance, scores)):
            return "collapsed"
        return "constant" if scores[-1].constant else None

    def _above_chance(self, score: metrics.Score) -> bool:
        """Whether a score is above the majority's: by more than chance leaves (95 %) where right answers count."""
        if self.majority.correct is None or score.correct is None:
            return score.value is not None and not score.at_or_below_majority
        n, right = len(self.validation), self.majority.correct
        return score.correct > right + _Z95 * math.sqrt(right * (n - right) / n)


def _write(views: Mapping[str, Tensor], gradients: Sequence[Tensor], add: bool) -> None:
    """Put the gradients [L, *shape] into the views of their parameters, or add them to what is there."""
    for view, gradient in zip(views.values(), gradients, strict=True):
        view.add_(gradient) if add else view.copy_(gradient)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
