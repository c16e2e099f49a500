"""The command line: which commands there are, and how it ends where something is wrong."""

from __future__ import annotations

import inspect
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import harness
from harness.cli import (
    figure_commands,
    model_commands,
    report_commands,
    search_commands,
    serve_commands,
    start_commands,
    sweep_commands,
)
from harness.common.errors import HarnessError, describe_os_error
from harness.common.watchdog import Watchdog
from harness.execution import interrupts

# Bad options and arguments: click's class, or that of the copy of click that newer versions of typer hold.
_UsageError: Any = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """Turns bad input into one line and exit 2, Ctrl-C into exit 130 and SIGTERM during a sweep into 143."""

    def invoke(self, ctx: Any) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            print(f"harness: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except _UsageError as error:
            words = " ".join(filter(None, ("harness", ctx.invoked_subcommand)))
            fix = f"`{words} --help` lists what there is"
            if getattr(error, "option_name", None) in ("--seeds", "--seed", "--lr", "--epochs"):
                key = error.option_name.removeprefix("--")
                example = "seeds=1..5" if "seed" in key else f"{key}=…"
                fix = f"Settings of the file are changed by --set, as: --set {example}"
            unread = HarnessError(error.format_message().replace("Value error, ", "").rstrip("."), fix=fix)
            print(f"harness: {unread}", file=sys.stderr)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.filename is None:  # a broken pipe, say: no file's fault
                raise
            unusable = HarnessError(
                f"cannot read or write {error.filename}: {describe_os_error(error)}",
                fix="Free it, make room, or name another folder with --results",
            )
            print(f"harness: {unusable}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stopped:
            raise typer.Exit(143 if isinstance(stopped, interrupts.Terminated) else 130) from None


NARROW = 72  # columns of a terminal, below which frames and columns would cut the names of options off

app = typer.Typer(
    cls=_Commands,
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW else None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Is my fine-tuning recipe stable, and if not, what makes it so?",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stability-harness {harness.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Is my fine-tuning recipe stable, and if not, what makes it so?"""


# A command's name, its function, and what people type most often, which ends its help.
_GROUPS: dict[str, tuple[tuple[str, Callable[..., None], str], ...]] = {
    "Plan and train": (
        ("init", start_commands.init, "harness init mine"),
        ("plan", sweep_commands.plan, "harness plan rte_lr --set seeds=1..3"),
        ("sweep", sweep_commands.sweep, "harness sweep rte_lr --set seeds=1..3"),
        ("search", search_commands.search, "harness search search_rte"),
        ("lr-find", search_commands.find_lr, "harness lr-find rte_lr --where bias_correction=off"),
        ("status", sweep_commands.status, "harness status rte_lr"),
    ),
    "Read results": (
        ("report", report_commands.report, "harness report rte_lr"),
        ("open", report_commands.open_page, "harness open rte_lr"),
        ("serve", serve_commands.serve, "harness serve results"),
        ("card", report_commands.card, "harness card rte_lr"),
        ("figure", figure_commands.figure, "harness figure spread rte_lr --for acl --out spread.pdf"),
        ("table", figure_commands.table, "harness table cells rte_lr --columns mean,sd,failed --format latex"),
        ("diagnose", report_commands.diagnose, "harness diagnose rte_lr"),
        (
            "import",
            report_commands.import_runs,
            "harness import runs.csv --cell dataset,method --seed seed --metric test_acc --majority 0.527 --as mine",
        ),
        ("export", report_commands.export, "harness export rte_lr --to mlflow"),
    ),
    "Check results": (
        (
            "rerun",
            sweep_commands.rerun,
            "harness rerun rte_lr --seed 7 --where lr=6e-4 --where bias_correction=off --where epochs=3",
        ),
        ("verify", sweep_commands.verify, "harness verify rte_lr --retrain 2"),
        ("seal", sweep_commands.seal, "harness seal rte_lr"),
    ),
    "Data and models": (
        ("data", model_commands.data, "harness data rte"),
        ("keys", sweep_commands.keys, "harness keys"),
        ("predict", model_commands.predict, "harness predict rte_lr texts.tsv --trial ID --out answers.tsv"),
        ("pretrain", model_commands.pretrain, "harness pretrain my-model --texts sentences.txt"),
    ),
}


def _help(command: Callable[..., None], example: str) -> str:
    """A command's docstring, each paragraph one line that a terminal wraps at its own width, and an example."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join([*(" ".join(paragraph.split()) for paragraph in paragraphs), f"Example: {example}"])


for group, commands in _GROUPS.items():
    for name, command, example in commands:
        app.command(name, rich_help_panel=group, help=_help(command, example))(command)


def main() -> None:
    """Run the command line: 0 done, 1 trials crashed, missing or different, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    watchdog = Watchdog()
    watchdog.install()
    try:
        app()
    except SystemExit as end:
        if end.code in (130, 143):
            watchdog.end_stopped(end.code)
        watchdog.end_with(end.code)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed once more, it would meet Python half gone
