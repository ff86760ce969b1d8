"""mode=serve: a page to look at finished runs, side by side, on this machine only.

A page names runs by ids and gets parts of itself; no file of a run is handed out, and no address of a request is a
path. Requests that come by another name than this machine's own, as a page of others could send them, are refused.
"""

from __future__ import annotations

import csv
import errno
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from markupsafe import Markup
from omegaconf import DictConfig

from dlma.errors import Stopped, UserError
from dlma.ranges import Port
from dlma.report import serve_page
from dlma.runs import pages
from dlma.runs.library import Library, ListedRun

UNREADABLE = (UserError, OSError, ValueError, LookupError, csv.Error, pa.ArrowException)
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def serve(cfg: DictConfig, /, *, folder: str, host: str, port: Port) -> None:
    """Answer requests until Ctrl-C.

    folder: with runs, or sweeps of them; host: a name or an address of this machine's loopback; port: 0 is any free one
    """
    root = Path(folder).expanduser()
    if not folder.strip() or not root.is_dir():
        raise UserError(f"mode.folder={folder}: no such folder")
    server = Server(root, host, port)
    with server:
        try:
            found, skipped = server.library.look()
            first = f"runs: {len(found)} in {root}, at {server.url} (Ctrl-C ends it)"
            print("\n".join([first, *skipped]), flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            return
        except Stopped as stop:
            if stop.number != signal.SIGINT:
                raise


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, as only it can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Server(ThreadingHTTPServer):
    """The runs of a folder, on a port of the loopback. Raises UserError where it may not listen there."""

    daemon_threads = True
    block_on_close = False  # a request that hangs does not keep the process

    def __init__(self, root: Path, host: str, port: int) -> None:
        if not is_loopback(host):
            raise UserError(f"mode.host={host}: answers may be harmful, and this machine alone is served: 127.0.0.1")
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.library = Library(root)
        self.page = serve_page.frame(str(root))
        try:
            super().__init__((host.strip("[]"), port), Handler)
        except OSError as reason:
            raise UserError(_not_there(host, port, reason)) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def handle_error(self, request, client_address) -> None:
        """A browser that goes before its answer has come is no fault."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _not_there(host: str, port: int, reason: OSError) -> str:
    if reason.errno == errno.EADDRINUSE:
        return f"mode.port={port}: is taken by another program; mode.port=0 takes a free one"
    return f"mode.host={host} mode.port={port}: cannot be listened on ({reason.strerror or reason})"


class Query:
    """What a request asks for, after its address. Raises ValueError for what no page asks."""

    def __init__(self, query: str, library: Library) -> None:
        self.values = parse_qs(query, max_num_fields=1000)
        self.page = int(self.text("page", "0"))
        self.which = self.text("which", "all")
        if self.page < 0 or self.which not in pages.WHICH:
            raise ValueError(f"which: one of {', '.join(pages.WHICH)}; page: from 0 on")
        found = [library.run(name) for name in self.values.get("run", [])]
        self.runs: list[ListedRun] = [run for run in found if run is not None]

    def text(self, name: str, default: str = "") -> str:
        """The value of a setting."""
        return self.values.get(name, [default])[0]


class Handler(BaseHTTPRequestHandler):
    """One request: the page, or a part of it."""

    server: Server
    timeout = 60  # seconds that a connection may say nothing

    def do_GET(self) -> None:
        """Answer it."""
        address = urlsplit(self.path)
        if not is_loopback(urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""):
            return self._say(403, "only for this machine")
        if address.path == "/":
            return self._reply(200, self.server.page)
        make = PARTS.get(address.path)
        if make is None:
            return self._say(404, "no such page")
        try:
            asked = Query(address.query, self.server.library)
        except ValueError as reason:
            return self._say(400, f"not asked by a page: {reason}")
        return self._reply(200, _made(make, asked, self.server.library).encode("utf-8", "replace"))

    def _say(self, code: int, line: str) -> None:
        self._reply(code, serve_page.complaint(line).encode())

    def _reply(self, code: int, content: bytes) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": "text/html; charset=utf-8"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Requests are not listed."""


def _made(make: Callable[[Query, Library], Markup], asked: Query, library: Library) -> Markup:
    """A part; what cannot be read any more is said in its place."""
    try:
        return make(asked, library)
    except UNREADABLE as reason:
        return serve_page.complaint(f"cannot be read: {(str(reason).splitlines() or [type(reason).__name__])[0]}")


def _runs(asked: Query, library: Library) -> Markup:
    found, skipped = library.look()
    return serve_page.runs(found, skipped, alert=asked.text("alert"), find=asked.text("find"))


def _answers(asked: Query, library: Library) -> Markup:
    if not asked.runs:
        return serve_page.complaint("No run is ticked.")
    shown = serve_page.columns([(run, pages.answers(run.folder)) for run in asked.runs], asked.text("arms", "own"))
    columns = [one.answers for one in shown[: serve_page.COLUMNS]]
    category = asked.text("category")
    prompts = pages.chosen(columns, which=asked.which, category=category, find=asked.text("find"))
    known = pages.categories(columns)
    return serve_page.answers(shown, prompts, asked.page, category=category, categories=known)


def _tokens(asked: Query, library: Library) -> Markup:
    if not asked.runs:
        return serve_page.complaint("No run is ticked.")
    found = ((run, rows) for run in asked.runs if (rows := pages.token_rewards(run.folder)))
    run, rows = next(found, (asked.runs[0], []))
    if not rows:
        return serve_page.complaint("None of these runs read a pair token by token.")
    page = min(asked.page, (len(rows) - 1) // serve_page.PAIRS)
    inside = rows[page * serve_page.PAIRS : (page + 1) * serve_page.PAIRS]
    questions = pages.questions(run.folder, [row.id for row in inside])
    return serve_page.tokens(run.name, inside, questions, page, len(rows))


def _curves(asked: Query, library: Library) -> Markup:
    if not asked.runs:
        return serve_page.complaint("No run is ticked.")
    return serve_page.curves(asked.runs, asked.text("metric"))


PARTS: dict[str, Callable[[Query, Library], Markup]] = {
    "/runs": _runs,
    "/answers": _answers,
    "/tokens": _tokens,
    "/curves": _curves,
}
