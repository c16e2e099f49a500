"""The web application: JSON of a results folder, its report pages, and a page that shows them. It writes nothing."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harness.common.text import without_controls
from harness.serve.studies import Library, as_json

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_RUNS = 500  # in one answer
_STATIC = Path(__file__).parent / "static"
_FILES = {"app.js": "text/javascript", "style.css": "text/css"}
_COOKIE = "harness_token"
# The reports are whole pages with scripts and pictures inside; nothing is fetched from elsewhere.
_POLICY = "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def application(results: Path, token: str | None = None, hosts: Iterable[str] = LOOPBACK) -> ASGIApp:
    """The application that shows a results folder.

    Args:
        results: The folder that holds the results folders.
        token: What a browser must know, by `?token=…` once and then by a cookie; None: nothing.
        hosts: The names that it may be called by where there is no token, so that no page of another site reads it.
    """
    return Guard(_application(results), token, tuple(hosts))


def _application(results: Path) -> Starlette:
    library = Library(results)

    def front(request: Request) -> Response:
        return FileResponse(_STATIC / "index.html", media_type="text/html")

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        return FileResponse(_STATIC / name, media_type=_FILES[name]) if name in _FILES else _missing()

    def studies(request: Request) -> Response:
        summaries = [study.summary() for study in library.studies()]
        return JSONResponse(
            {"results": without_controls(str(results)), "studies": summaries, "unreadable": library.unreadable()}
        )

    def study(request: Request) -> Response:
        chosen = library.find(request.path_params["study"])
        return _missing() if chosen is None else JSONResponse(chosen.detail())

    def curves(request: Request) -> Response:
        chosen = library.find(request.path_params["study"])
        found = None if chosen is None else chosen.curves(request.path_params["trial"])
        return _missing() if found is None else JSONResponse(found)

    def runs(request: Request) -> Response:
        given = request.query_params
        rows = library.runs(*(given.get(name, "") for name in ("query", "verdict", "study", "order")))
        first = int(given["first"]) if given.get("first", "").isdecimal() else 0
        part = rows[first : first + MOST_RUNS]
        return JSONResponse({"total": len(rows), "first": first, "runs": [as_json(run) for run in part]})

    def report(request: Request) -> Response:
        chosen = library.find(request.path_params["study"])
        if chosen is None:
            return _missing()
        folder = (chosen.folder / "report").resolve()
        path = (folder / request.path_params["path"]).resolve()
        return FileResponse(path) if path.is_relative_to(folder) and path.is_file() else _missing()

    return Starlette(
        routes=[
            Route("/", front),
            Route("/static/{name}", static),
            Route("/api/studies", studies),
            Route("/api/studies/{study}", study),
            Route("/api/studies/{study}/curves/{trial}", curves),
            Route("/api/runs", runs),
            Route("/studies/{study}/report/{path:path}", report),
        ]
    )


def _missing() -> Response:
    return PlainTextResponse("There is nothing of that name here.", status_code=404)


class Guard:
    """Lets through who may read, and nothing that would write."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: tuple[str, ...]) -> None:
        """Stand before `app`."""
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = {
                    "Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff",
                    "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
                }  # fmt: skip
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This server only shows.", status_code=405)
        if self.token is None:
            known = request.url.hostname in self.hosts
            return None if known else PlainTextResponse("This name is not known here.", status_code=421)
        if _same(request.query_params.get("token"), self.token):
            rest = urlencode([pair for pair in parse_qsl(request.url.query) if pair[0] != "token"])
            response = RedirectResponse(request.url.path + (f"?{rest}" if rest else ""), status_code=303)
            response.set_cookie(_COOKIE, self.token, httponly=True, samesite="strict")
            return response
        if _same(request.cookies.get(_COOKIE), self.token):
            return None
        return PlainTextResponse("Open the address with ?token=… that `harness serve` printed.", status_code=403)


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), token.encode())
