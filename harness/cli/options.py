"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import completion

SweepName = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="A name in sweeps/, a shipped sweep, or a path to a YAML file.",
        autocompletion=completion.sweeps,
    ),
]
StartedSweep = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP|DIR",
        help="A sweep that was started, or its results folder.",
        autocompletion=completion.started,
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="paper, embedded, …; default: the largest that fits this machine."),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting of the file; may repeat.",
        autocompletion=completion.keys,
    ),
]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="The folder that holds the results folders.")]
References = Annotated[
    list[str],
    typer.Option(
        "--reference", metavar="AXIS=VALUE", help="Compare the other values of an axis with this; may repeat."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Threads = Annotated[int, typer.Option("--threads", min=1, metavar="N", help="CPU threads per worker.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Number of workers; default: one per GPU, else one per core."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Allow Python code that comes with a model; a sweep file cannot ask for it."
    ),
]
Lanes = Annotated[
    int | None, typer.Option("--pack", min=1, metavar="N", help="Trials trained together; default: as many as fit.")
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="A running Ray cluster: auto or host:port.")
]
Notice = Annotated[
    float,
    typer.Option("--notice", min=0, metavar="SECONDS", help="Time after SIGTERM in which running packs may finish."),
]
HangMinutes = Annotated[
    float,
    typer.Option(
        "--hang-minutes",
        min=0.01,
        metavar="MINUTES",
        help="Kill a worker that makes no step for this long; not with --in-process.",
    ),
]
CheckpointMinutes = Annotated[
    float | None,
    typer.Option(
        "--checkpoint-minutes",
        min=0.001,
        metavar="MINUTES",
        help="Save the state of running packs this often, to resume from after a kill.",
    ),
]
WorkersPerGpu = Annotated[
    int,
    typer.Option(
        "--workers-per-gpu", min=1, metavar="N", help="Workers that share a GPU: small models leave most of it idle."
    ),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="Stop by then (2h, 90m, 30s or 1:30:00) and save the state of running packs; re-run to resume.",
    ),
]
InProcess = Annotated[
    bool,
    typer.Option(
        "--in-process", help="Train in this process, without Ray: one pack, or one recipe of a search, at a time."
    ),
]
Compiled = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the training step: minutes of compilation, then faster steps and other last bits; "
        "default: as the sweep was started, a new one without.",
    ),
]
Where = Annotated[
    list[str],
    typer.Option("--where", metavar="KEY=VALUE", help="Select a recipe, for example bias_correction=on; may repeat."),
]
TrialId = Annotated[
    str | None,
    typer.Option(
        "--trial", metavar="ID", help="The trial's id, or the beginning of it.", autocompletion=completion.trials
    ),
]
