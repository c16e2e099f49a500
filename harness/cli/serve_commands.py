"""The command that shows a results folder in a browser."""

from __future__ import annotations

import secrets
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.common.errors import HarnessError, describe_os_error
from harness.common.extras import install_command

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="The folder that holds the results folders.")] = (
        Path("results")
    ),
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Where to listen; another than 127.0.0.1 asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port; 0: any that is free.")] = 8321,
) -> None:
    """Show all studies of a results folder in a browser, running ones live; it only reads. Ctrl-C ends it."""
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise HarnessError(f"`harness serve` needs {' and '.join(missing)}", fix=f"Run {install_command('serve')}")
    import uvicorn

    from harness.serve.app import application

    if not results.is_dir():
        raise HarnessError(f"{results} is not there: nothing was trained here", fix="Name a folder of results folders")
    token = None if host in _LOOPBACK else secrets.token_urlsafe(18)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise HarnessError(
                f"cannot listen on {host}, port {port}: {describe_os_error(error)}", fix="Choose another with --port"
            ) from None
        name = f"[{host}]" if ":" in host else socket.gethostname() if host == "0.0.0.0" else host
        address = f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        Console(highlight=False).print(f"{results}: {address} (Ctrl-C ends it)", soft_wrap=True)
        config = uvicorn.Config(application(results, token), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
