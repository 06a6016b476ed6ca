"""A page in headless Chromium, which posts lines to the loopback server that it came from."""

from __future__ import annotations

import functools
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def browser() -> str | None:
    """The first Chromium on PATH, or None."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


def lines_of_page(folder: Path, page: str, timeout_s: float) -> tuple[tuple[str, ...], str | None]:
    """Serve ``folder``, open ``page`` of it, and collect what it posts until it posts "end".

    Returns:
        The lines, and why there may be too few, or None.
    """
    posted: queue.Queue[str] = queue.Queue()
    handler = functools.partial(_Handler, posted, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            url = f"http://127.0.0.1:{server.server_port}/{page}"
            command = [str(browser()), *_FLAGS, f"--user-data-dir={profile}", url]
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                return _collected(posted, process, time.monotonic() + timeout_s)
            finally:
                process.terminate()
                process.wait()
                server.shutdown()


def _collected(
    posted: queue.Queue[str], process: subprocess.Popen[bytes], deadline: float
) -> tuple[tuple[str, ...], str | None]:
    lines: list[str] = []
    while time.monotonic() < deadline:
        try:
            line = posted.get(timeout=1)
        except queue.Empty:
            if process.poll() is not None:
                return tuple(lines), f"the browser ended with code {process.returncode}"
            continue
        if line == "end":
            return tuple(lines), None
        if line.startswith("end: "):
            return tuple(lines), line.removeprefix("end: ")
        lines.append(line)
    return tuple(lines), "the page was not done in time"


class _Handler(SimpleHTTPRequestHandler):
    """Files of a folder, and a queue of what is posted."""

    def __init__(self, posted: queue.Queue[str], *args: object, **kwargs: object) -> None:
        self.posted = posted
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # as the server gives them

    def do_POST(self) -> None:  # the base class calls it by this name
        """Keep the body."""
        length = int(self.headers["Content-Length"])
        self.posted.put(self.rfile.read(length).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's
        """Print nothing."""
