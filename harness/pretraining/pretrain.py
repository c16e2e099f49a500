"""Pretraining a language model: the run itself, its state on the disk, and the folder that it gives."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from harness.common import watchdog
from harness.common.text import count_noun
from harness.data.embedded import answers
from harness.data.embedded.language import SPECIAL_TOKENS, VOCABULARY, dataset, pretraining_pairs
from harness.models import pretrained
from harness.pretraining import corpus, networks, objectives, page
from harness.pretraining.objectives import Causal, LanguageScore, Masked, Pairs, SentenceSource, Singles, TokenTable
from harness.pretraining.settings import PretrainError, Settings, check
from harness.pretraining.state import Order, PretrainingRun, State, held

SCHEMA_VERSION = 1
EMBEDDED_MASKED_SHARE = 0.2  # instead of BERT's 15 %, the embedded texts being this short
WEIGHT_DECAY = 0.01  # Devlin et al. 2019, appendix A.2
CLIP_NORM = 1.0
LOSS_WINDOW = 100
LONGEST = 128
VOCABULARY_SIZE = 8_000
LOOKS = 20  # at the held-out texts, spread over the run
MOST_HELD_OUT = 1_000  # rows of them that are looked at
MINUTES = 10.0
_KEEPING_SECONDS = 120.0  # after a signal, until the step has ended and its state is kept

_MadeOf = tuple[tuple[str, str], ...]


class PretrainingStopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run after a step; its state is kept."""

    def __init__(self, step: int, terminated: bool) -> None:
        """After which step, and whether by SIGTERM."""
        super().__init__(f"stopped after step {step}")
        self.step, self.terminated = step, terminated


@dataclass(frozen=True, eq=False)
class PretrainResult:
    """What a pretraining run gave.

    `losses` is the training loss (nats) of each step's batch, shape (steps,); `final_loss` is the mean of its last 100;
    `held_out` the scores on texts that were not trained on, by the steps before them; `wall_seconds` covers training
    alone, and all parts of a run that was stopped.
    """

    folder: Path
    final_loss: float
    losses: NDArray[np.float64]
    held_out: tuple[tuple[int, LanguageScore], ...]
    wall_seconds: float


@dataclass(frozen=True, eq=False)
class _Job:
    """A network and all that it is trained with."""

    network: Any
    tokenizer: Any
    objective: objectives.Objective
    train: SentenceSource
    held_out: SentenceSource
    shown: SentenceSource  # held-out texts one by one
    facts: page.Facts
    device: str


def pretrain(
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    minutes: float = MINUTES,
    progress: Callable[[int, int, float], None] | None = None,
) -> PretrainResult:
    """Pretrain a model and write it to a Hugging Face folder, all at once at the end.

    The same settings on the same machine and versions give the same weights, bit for bit. Ctrl-C saves the state and
    raises Stopped; the same call resumes from there, to the same bits.

    Args:
        out: The folder to write.
        settings: What is trained on what, and how.
        overwrite: Whether a folder that holds anything is replaced.
        minutes: How often the state is saved in `<out>.unfinished`.
        progress: Called after every step with the step (from 1), the number of steps and the step's loss in nats.

    Raises:
        PretrainError: A setting is impossible, `out` holds anything and `overwrite` is off, another process writes it,
            or the state was saved under other settings.
    """
    check(settings)
    _refuse_to_overwrite(out, overwrite)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    unfinished = out.absolute().with_name(f"{out.absolute().name}.unfinished")
    try:
        with held(unfinished, out):
            rebuilt = _embedded_decoder if settings.objective == "causal" else _embedded
            job = rebuilt(settings) if settings.rebuilds else _own(settings, unfinished)
            made_of = _made_of(job)
            state = State(unfinished / "state.safetensors", settings, made_of, minutes)
            losses, held_out, wall_seconds = _train(job, settings, state, progress)
            result = PretrainResult(out, float(losses[-LOSS_WINDOW:].mean()), losses, held_out, wall_seconds)
            _write(job, settings, made_of, result, overwrite)
            shutil.rmtree(unfinished)
    finally:
        torch.set_num_threads(threads_before)
    return result


# ---------------------------------------------------------------------------------------------------------- its parts


def _embedded(settings: Settings) -> _Job:
    """What rebuilds the embedded model."""
    tokenizer = networks.build_tokenizer()
    network = networks.build_bert(networks.embedded_config(), _init_rng(settings))
    padding, specials = VOCABULARY.index("[PAD]"), len(SPECIAL_TOKENS)
    pairs, entailed = pretraining_pairs(settings.pairs), [pair for pair in dataset("validation") if pair.entailed]
    train, held_out = (TokenTable(networks.encode(part, tokenizer), specials, padding) for part in (pairs, entailed))
    words = torch.arange(specials, len(VOCABULARY))
    masked = Masked(VOCABULARY.index("[MASK]"), words, EMBEDDED_MASKED_SHARE)
    facts = page.Facts((), train.count, held_out.count, int((train.tokens != padding).sum()), None, ())
    return _Job(network, tokenizer, masked, train, held_out, held_out, facts, "cpu")


def _embedded_decoder(settings: Settings) -> _Job:
    """What rebuilds the embedded decoder."""
    tokenizer = networks.build_decoder_tokenizer()
    network = networks.build_gpt2(networks.decoder_config(), _init_rng(settings))
    padding, specials = tokenizer.pad_token_id, len(answers.SPECIAL_TOKENS)
    texts = answers.pretraining_texts(settings.pairs)
    entailed = [answers.conclusion(pair) for pair in dataset("validation") if pair.entailed]
    train, held_out = (
        TokenTable(networks.encode_texts(part, tokenizer), specials, padding) for part in (texts, entailed)
    )
    facts = page.Facts((), train.count, held_out.count, int((train.tokens != padding).sum()), None, ())
    return _Job(network, tokenizer, Causal(), train, held_out, held_out, facts, "cpu")


def _own(settings: Settings, scratch: Path) -> _Job:
    """What pretrains on texts of one's own, their tokens in `scratch`."""
    causal, longest = settings.objective == "causal", _longest(settings)
    sources, texts = corpus.sources(settings.texts), _texts(settings)
    drawn: tuple[str, ...] = ()
    if settings.start is not None:
        tokenizer = networks.tokenizer_of(settings.start)
        network, drawn = networks.load(settings.start, causal=causal, pairs=settings.next_sentence, seed=settings.seed)
        _check_fit(network, tokenizer, settings.start)
    else:
        if settings.train_tokenizer is None:
            tokenizer = networks.build_tokenizer()
            tokenizer.model_max_length = longest
        else:
            size = settings.vocab_size or VOCABULARY_SIZE
            tokenizer = corpus.train_tokenizer(texts, settings.train_tokenizer, size, causal, longest)
        network = networks.build(
            tokenizer, settings.shape, longest, _init_rng(settings), causal=causal, pairs=settings.next_sentence
        )
    frame = networks.frame_of(tokenizer, causal)
    around = len(frame.before + frame.after) + (len(frame.between) if settings.next_sentence else 0)
    if longest <= around + 1:
        raise PretrainError(
            f"--max-length must be >= {around + 2}, to leave room beside the special tokens", got=longest
        )
    encoded = corpus.encode(
        texts, tokenizer, room=longest - around, held_out=settings.share, by_document=settings.next_sentence,
        words=settings.whole_words, scratch=scratch,
    )  # fmt: skip
    one_by_one = Singles(encoded.held_out, frame)
    sides: tuple[SentenceSource, SentenceSource] = (Singles(encoded.train, frame), one_by_one)
    if settings.next_sentence:
        if not len(encoded.train.followed()):
            raise PretrainError(
                "--next-sentence requires two documents or more, each of several sentences, with blank lines "
                "between them",
                got=f"{count_noun(len(encoded.train), 'sentence')} in "
                f"{count_noun(len(set(encoded.train.document.tolist())), 'document')}",
                fix="Leave --next-sentence out",
            )
        train, held_out = (Pairs(part, part.followed(), frame, longest) for part in (encoded.train, encoded.held_out))
        sides = (train, held_out)
    words = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)))
    masked = Masked(tokenizer.mask_token_id, words, whole_words=settings.whole_words)
    facts = page.Facts(
        sources, len(encoded.train), len(encoded.held_out), int(encoded.train.starts[-1]), encoded.unknown, drawn
    )
    return _Job(network, tokenizer, Causal() if causal else masked, *sides, one_by_one, facts, _device())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _init_rng(settings: Settings) -> torch.Generator:
    return torch.Generator().manual_seed(3 * settings.seed)


def _texts(settings: Settings) -> Callable[[], corpus.Documents]:
    """What is read, document by document, as often as it is called."""
    if not settings.texts:
        pairs = pretraining_pairs(settings.pairs)
        return lambda: ((pair.premise, pair.hypothesis) for pair in pairs)
    return lambda: (document for path in settings.texts for document in corpus.documents(path, settings.column))


def _longest(settings: Settings) -> int:
    """The tokens of a row at most: as asked, or 128, or fewer where the model to go on from reads fewer."""
    if settings.start is None:
        return settings.max_length or LONGEST
    reads = pretrained.longest(networks.config_of(settings.start)) or math.inf
    if settings.max_length is not None and settings.max_length > reads:
        raise PretrainError(
            f"--max-length must be at most {reads}, what {settings.start} reads", got=settings.max_length
        )
    return settings.max_length or int(min(LONGEST, reads))


def _made_of(job: _Job) -> _MadeOf:
    """What decides the result beside the settings: the texts' and the first weights' hashes, versions, the device."""
    weights = hashlib.sha256()
    for name, value in job.network.named_parameters():
        weights.update(name.encode())
        weights.update(value.detach().contiguous().numpy().tobytes())
    tokenizer = hashlib.sha256(json.dumps(job.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
    name = torch.cuda.get_device_name() if job.device == "cuda" else "cpu"
    return (
        *((f"text {source.path}", source.sha256) for source in job.facts.sources),
        ("vocabulary", tokenizer),
        ("first weights", weights.hexdigest()),
        ("torch", torch.__version__),
        ("transformers", transformers.__version__),
        ("device", name),
    )


# ------------------------------------------------------------------------------------------------------------ the run


def _train(
    job: _Job, settings: Settings, state: State, progress: Callable[[int, int, float], None] | None
) -> tuple[NDArray[np.float64], tuple[tuple[int, LanguageScore], ...], float]:
    """Train to the last step, from where the state left off; losses [steps], scores, seconds."""
    # Streams of their own, so that a change of one (another batch size, say) leaves what the others draw as it was.
    order_rng, mask_rng = (torch.Generator().manual_seed(3 * settings.seed + stream) for stream in (1, 2))
    order = Order(job.train.count, settings.batch_size, order_rng)
    network = job.network.to(job.device)
    # Without dropout the embedded model is better: one this small on data this plentiful underfits.
    network.train(not settings.rebuilds if settings.dropout is None else settings.dropout)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, betas=(0.9, settings.beta2), weight_decay=WEIGHT_DECAY
    )
    steps = settings.steps
    losses = np.full(steps, np.nan)
    scores: list[tuple[int, LanguageScore]] = []
    every = max(10, steps // LOOKS)

    with torch.random.fork_rng(devices=[0] if job.device == "cuda" else []), _listening() as heard:
        torch.manual_seed(2**63 + settings.seed)  # of dropout, which knows no other generator
        run = PretrainingRun(network, optimizer, order, mask_rng, losses, scores)
        done, before = state.restore(run)
        if done == 0:
            _look(job, settings, 0, scores)
        started = time.perf_counter()
        for step in range(done, steps):
            rows = job.train.rows(order.next(), mask_rng)
            inputs, labels = job.objective.draw(rows, mask_rng)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * schedule(step, steps, settings.warmup_steps)
            loss = objectives.loss(network, rows, inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses[step] = loss.item()
            if (step + 1) % every == 0 or step + 1 == steps:
                _look(job, settings, step + 1, scores)
            if progress is not None:
                progress(step + 1, steps, float(losses[step]))
            if step + 1 < steps and (heard or state.due):
                state.keep(run, step + 1, before + time.perf_counter() - started, told=bool(heard))
            if heard and step + 1 < steps:
                raise PretrainingStopped(step + 1, signal.SIGTERM in heard)
        seconds = before + time.perf_counter() - started
    network.cpu().eval()
    return losses, tuple(scores), seconds


def _look(job: _Job, settings: Settings, step: int, scores: list[tuple[int, LanguageScore]]) -> None:
    """Score the network on the held-out texts, where there are any."""
    score = objectives.score(
        job.network, job.held_out, job.objective, most=MOST_HELD_OUT, batch_size=settings.batch_size
    )
    if score is not None:
        scores.append((step, score))


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Give the factor on the learning rate for a step from 0: up in a line to 1 after the warm-up, down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (steps - step) / (steps - warmup_steps)


@contextmanager
def _listening() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM, so that they end a run between two steps; a second one ends it at once."""
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, hear)
    try:
        with watchdog.current().training(_KEEPING_SECONDS):
            yield heard
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def _check_fit(network: Any, tokenizer: Any, start: str) -> None:
    """Refuse a tokenizer with more tokens than the network has places for."""
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise PretrainError(
            f"{start} has no embedding for some tokens: its tokenizer has {len(tokenizer)} tokens, its model "
            f"{rows} embeddings",
            fix="Use a model folder with its own tokenizer",
        )


# ---------------------------------------------------------------------------------------------------------- the folder


def _refuse_to_overwrite(out: Path, overwrite: bool) -> None:
    """Refuse a file, and a folder that holds anything unless it may be replaced."""
    if out.exists() and not out.is_dir():
        raise PretrainError(f"cannot write the model to {out}: it is a file, not a folder", fix="Move it")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise PretrainError(
            f"cannot write the model to {out}: the folder is not empty",
            fix="Name another folder, or allow it to be overwritten",
        )


def _provenance(settings: Settings, made_of: _MadeOf, result: PretrainResult) -> dict[str, object]:
    """What pretraining.json says: how the folder was made."""
    facts: dict[str, object] = {"schema_version": SCHEMA_VERSION, "made_by": "harness pretrain"}
    if settings.objective == "masked" and settings.start is None and not settings.next_sentence:
        facts["pooler"] = "drawn from N(0, 0.02) by the seed and not trained: masked language modelling does not use it"
        facts["segments"] = (
            "all texts were seen with token_type_ids of zero; the second segment's embedding is not trained"
        )
    fields: tuple[str, ...] = ("steps", "batch_size", "lr", "beta2", "warmup_steps", "pairs", "seed", "threads")
    given = settings.model_dump(mode="json")
    if not settings.rebuilds:
        fields = tuple(name for name in Settings.model_fields if name != "pairs" or not settings.texts)
        facts["made_of"] = dict(made_of)
    facts |= {"objective": "causal"} if settings.objective == "causal" else {}
    facts |= {name: given[name] for name in fields}
    return facts | {
        "final_loss": _known(result.final_loss),
        "scores": [
            {"step": step, **{name: _known(value) for name, value in asdict(score).items()}}
            for step, score in result.held_out
        ],
        "wall_seconds": round(result.wall_seconds, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _network_words(network: Any) -> str:
    """As "BERT, 4 layers × 256, 4 heads"."""
    config = network.config
    kind = {"bert": "BERT", "gpt2": "GPT-2"}.get(config.model_type, config.model_type)
    return f"{kind}, {config.num_hidden_layers} layers × {config.hidden_size}, {config.num_attention_heads} heads"


def _write(job: _Job, settings: Settings, made_of: _MadeOf, result: PretrainResult, overwrite: bool) -> None:
    """Write the folder beside its place and rename it there, so that nobody ever reads half of it."""
    out = result.folder.absolute()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made, replaced = Path(scratch) / "made", Path(scratch) / "replaced"
        transformers.logging.disable_progress_bar()  # of a second
        job.network.save_pretrained(made)
        job.tokenizer.save_pretrained(made)
        provenance = _provenance(settings, made_of, result)
        (made / "pretraining.json").write_text(json.dumps(provenance, indent=2, allow_nan=False) + "\n")
        shown = objectives.examples(job.network, job.tokenizer, job.shown, job.objective)
        page.write(
            made,
            page.Made(
                out, _network_words(job.network), job.network.num_parameters(), settings, job.facts, result.losses,
                result.held_out, shown, result.wall_seconds, dict(made_of)["device"],
            ),
        )  # fmt: skip
        for file in made.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone; a package's files are for everyone
        _refuse_to_overwrite(out, overwrite)  # minutes have gone by
        if out.exists():
            out.rename(replaced)
        try:
            made.rename(out)
        except OSError:
            if replaced.exists():
                shutil.move(replaced, out)
            raise
