"""A web server of somebody who wants to be told: a real one, that may refuse, hang or drip."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any


class Receiver(http.server.ThreadingHTTPServer):
    """Answers with what `answers` has next, 204 after that; remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.answers: list[str] = []
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.ended = threading.Event()

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[Receiver]:
        server = cls()
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def said(self) -> list[dict[str, Any]]:
        """The messages that came."""
        return [json.loads(body) for _, _, body in list(self.got)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Door(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        answer = self.server.answers.pop(0) if self.server.answers else "204"
        if answer == "hang":
            self.server.ended.wait(30)
            return
        if answer == "drip":
            while not self.server.ended.wait(0.05):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    break
            return
        self.send_response(int(answer))
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
