"""Commands about data and models: look at a dataset, pretrain, run a saved model."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from harness.cli.arguments import NO_MODEL, kept_models, recipes_of_data
from harness.cli.console import Console
from harness.cli.data_views import print_data
from harness.cli.options import AsJson, Overrides, ProfileName, Results, Threads, TrialId, Trust
from harness.cli.progress import pretraining_progress, print_json, row_progress
from harness.common import hub, metrics
from harness.common.errors import HarnessError
from harness.common.text import count_noun
from harness.execution import interrupts, machine
from harness.execution.follow import duration
from harness.models import saved

# Panels of `harness pretrain --help`.
_TEXTS, _MODEL, _PREDICT = "Texts", "Model and tokenizer", "What is predicted"


def data(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK|SWEEP|FILES…", help="A GLUE task or a sweep, optionally with its files; or files alone."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="Model whose tokenizer counts tokens; default: the sweep's model."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Length above which texts are truncated; default: the sweep's, or 128."),
    ] = None,
    profile: ProfileName = None,
    overrides: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Summarise a dataset: split sizes, label balance, token lengths, truncation, duplicates, leakage, empty texts.

    Name the columns of your own files with --set task.text=review --set task.label=stars, as in a sweep.
    """
    from harness.data import summary as describing

    summaries, notes = [], []
    for recipe in recipes_of_data(words, model, max_length, profile, overrides):
        tokenizer = None
        if model is not None or recipe.model.name != NO_MODEL:
            from harness.models import pretrained

            try:
                tokenizer = pretrained.tokenizer(recipe.model)
            except HarnessError as error:
                if model is not None:
                    raise
                notes.append(f"Tokens are not counted: {error}")
        described = describing.describe(recipe.task, tokenizer, recipe.max_length)
        if described not in summaries:  # models with the same tokenizer see the same
            summaries.append(described)
    if as_json:
        print_json({"tasks": [asdict(described) for described in summaries], "notes": notes})
        return
    out = Console(width=None if sys.stdout.isatty() else 120)
    for described in summaries:
        print_data(out, described)
    for note in notes:
        out.print(Text(note), soft_wrap=True)


def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP|MODEL", help="The folder of a saved model; or a sweep, with --trial or --ensemble."
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Texts in .tsv, .csv or .jsonl with the task's columns; or words, for a token task."
        ),
    ],
    trial: TrialId = None,
    ensemble: Annotated[
        list[str],
        typer.Option("--ensemble", metavar="KEY=VALUE", help="Average all saved seeds of this cell; may repeat."),
    ] = [],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to this .tsv, .csv or .jsonl; default: print.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COL", help="Column of the texts; default: the task's.")] = None,
    text_pair: Annotated[str | None, typer.Option(metavar="COL", help="Column of the second texts.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COL", help="Column of labels to score against.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each class.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per forward pass.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one per core.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of a language model, in tokens.")] = 32,
    profile: ProfileName = None,
    results: Results = Path("results"),
    trust_remote_code: Trust = False,
) -> None:
    """Run inference with a saved model, or an ensemble of a cell's seeds: a label and its confidence for every row.

    For a token task the file has words, with or without tags, in the format of the task's own files; a language model
    answers prompts, a model for questions gives a part of each context, one for multiple choice the position of a
    choice, one for many labels those of each row, and answers are scored where --label names the expected ones.
    """
    hub.trust_remote_code(trust_remote_code)
    messages = Console(stderr=True)
    folders = kept_models(run, trial, ensemble, profile, results, messages)
    from harness.models import predict as predicting
    from harness.models import predict_completions, predict_labels, predict_spans

    hardware = machine.detect_hardware()
    options = predicting.PredictionOptions(
        tuple(folders), file, out, text, text_pair, label, batch_size, "cuda" if hardware.gpus else "cpu",
        threads or hardware.cores, probabilities, max_new_tokens,
    )  # fmt: skip
    kind = saved.read_card(folders[0]).trial.recipe.task.kind
    try:
        with row_progress(messages) as follow:
            of_kind = {
                "completion": predict_completions.run, "labels": predict_labels.run, "span": predict_spans.run,
            }  # fmt: skip
            ask = of_kind.get(kind, predicting.run)
            prediction = ask(options, follow)
    except BrokenPipeError:  # `| head` has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    many = f" by {len(folders)} models" if len(folders) > 1 else ""
    pace = prediction.rows / max(prediction.seconds, 1e-9)
    messages.print(
        f"{count_noun(prediction.rows, 'row')}{many} in {prediction.seconds:.1f} s on {options.device}: "
        f"{pace:,.0f} rows/s."
    )
    if prediction.shortened:
        prompts = count_noun(prediction.shortened, "prompt")
        messages.print(
            f"{prompts} lost the beginning: the model reads too few tokens for all of it and an answer; lower "
            "--max-new-tokens, or shorten what is asked.", soft_wrap=True,
        )  # fmt: skip
    if prediction.disagreeing is not None:
        what = "words" if kind == "tokens" else "rows"
        messages.print(f"The models disagree on {100 * prediction.disagreeing:.1f} % of the {what}.")
    if prediction.score is not None:
        told = "answers" if kind in ("completion", "span") else "labels"
        line = f"{metrics.words(prediction.metric)} against the file's {told}: {prediction.score:.4f}"
        won = predicting.gain(prediction)
        if won is not None:
            mean, low, high = prediction.score - won, min(prediction.members), max(prediction.members)
            line += f" together; one model alone {mean:.4f} on average ({low:.4f} to {high:.4f}): gain {won:+.4f}"
        f1 = metrics.words("squad_f1" if kind == "span" else "token_f1")
        line += f"; {f1} {prediction.token_f1:.4f}" if prediction.token_f1 is not None else ""
        messages.print(Text(f"{line}."), soft_wrap=True)
    if prediction.unscored is not None:
        messages.print(Text(f"Not scored: {prediction.unscored}."), soft_wrap=True)


def pretrain(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The model folder to write.")],
    texts: Annotated[
        list[Path],
        typer.Option(
            "--texts",
            metavar="FILE",
            rich_help_panel=_TEXTS,
            help="A sentence a line, blank lines between documents; or .jsonl, .tsv, .csv. May repeat.",
        ),
    ] = [],
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=_TEXTS, help="Column of the texts in a table; default: text."),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(min=0, rich_help_panel=_TEXTS, help="Share of the texts held out for evaluation; default: 0.05."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME|DIR", rich_help_panel=_MODEL, help="Continue pretraining from this model."
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_MODEL, help="Number of layers, from scratch; default: 4.")
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_MODEL, help="Hidden size, from scratch; default: 256.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_MODEL, help="Attention heads, from scratch; default: 4.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=_MODEL, help="Tokens per text; default: 128.")
    ] = None,
    train_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="WordPiece|BPE",
            rich_help_panel=_MODEL,
            help="Train a tokenizer of this kind; default: the model's own.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", rich_help_panel=_MODEL, help="Vocabulary size of the trained tokenizer; default: 8000."
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="masked|causal", rich_help_panel=_PREDICT, help="Masked tokens, as BERT, or the next token, as GPT."
        ),
    ] = "masked",
    whole_word: Annotated[
        bool, typer.Option("--whole-word", rich_help_panel=_PREDICT, help="Mask whole words.")
    ] = False,
    next_sentence: Annotated[
        bool,
        typer.Option(
            "--next-sentence",
            rich_help_panel=_PREDICT,
            help="Also predict whether one sentence follows the other, as BERT did.",
        ),
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Number of updates.")] = 5000,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts per step; default: 128, with --texts 32.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate; default: 1e-3 embedded, 5e-4 from scratch, 5e-5 with --from."),
    ] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(min=0, help="Warm-up steps; default: a tenth, at most 500.")
    ] = None,
    dropout: Annotated[
        bool | None, typer.Option("--dropout/--no-dropout", help="Default: on, but for the embedded model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, order, masks and dropout.")] = 0,
    threads: Threads = 1,
    checkpoint_minutes: Annotated[
        float, typer.Option("--checkpoint-minutes", min=0.001, help="Save the state this often, to resume from.")
    ] = 10.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in DIR.")] = False,
) -> None:
    """Pretrain a language model on your texts; without options, rebuild the embedded one as it was shipped.

    It writes a model folder for `model:` in a sweep, with pretrain.md. Ctrl-C saves the state; re-run to resume.
    """
    for value, name, allowed in (
        (objective, "objective", ("masked", "causal")), (train_tokenizer, "train-tokenizer", ("WordPiece", "BPE"))
    ):  # fmt: skip
        if value is not None and value not in allowed:
            raise HarnessError(f"--{name} must be one of {', '.join(allowed)}", got=f"'{value}'")
    from harness.pretraining import pretrain as pretraining
    from harness.pretraining.settings import Settings

    settings: Any = {
        "texts": tuple(texts), "column": column, "held_out": held_out, "start": start, "layers": layers,
        "hidden": hidden, "heads": heads, "max_length": max_length, "train_tokenizer": train_tokenizer,
        "vocab_size": vocab_size, "objective": objective, "whole_words": whole_word, "next_sentence": next_sentence,
        "dropout": dropout, "steps": steps, "seed": seed, "threads": threads,
    }  # fmt: skip
    rebuilds = Settings(**settings).rebuilds
    settings["batch_size"] = batch_size or (32 if texts else 128)
    settings["lr"] = lr if lr is not None else 1e-3 if rebuilds else 5e-4 if start is None else 5e-5
    settings["warmup_steps"] = min(500, steps // 10) if warmup_steps is None else warmup_steps
    console = Console()
    with pretraining_progress(console) as progress:
        try:
            made = pretraining.pretrain(
                out, Settings(**settings), overwrite=overwrite, minutes=checkpoint_minutes, progress=progress
            )
        except pretraining.PretrainingStopped as stopped:
            console.print(f"Stopped after step {stopped.step} of {steps}; re-run the same command to resume.")
            raise (interrupts.Terminated if stopped.terminated else KeyboardInterrupt) from None
    line = f"{made.folder}: loss {made.final_loss:.3f} over the last {min(steps, 100)} steps"
    if made.held_out:
        score = made.held_out[-1][1]
        line += f", {score.loss:.3f} on held-out texts (perplexity {score.perplexity:,.1f})"
    console.print(Text(f"{line}, {duration(made.wall_seconds)}."), soft_wrap=True)
    console.print(Text(f"Report: {made.folder / 'pretrain.md'}"), soft_wrap=True)
