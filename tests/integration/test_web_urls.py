"""image_url through the whole service, on a network that lies: redirects, rebinding, what changed meanwhile.

The service is the real one. Only the way out is ours: a public address leads to a server on
loopback, and names resolve as the test wants, differently each time if need be.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from daemonrig import DaemonRig
from webrig import PHOTO, WebRig

PUBLIC = "93.184.215.14"
# As Python starts: name -> answers, one for each question, the last one for ever.
NETWORK = """
import json, os, socket
resolve, connect = socket.getaddrinfo, socket.create_connection
names, asked = json.loads(os.environ["NAMES"]), {}

def getaddrinfo(host, port, *rest, **more):
    if host not in names:
        return resolve(host, port, *rest, **more)
    asked[host] = asked.get(host, 0) + 1
    answers = names[host][min(asked[host], len(names[host])) - 1]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

def create_connection(address, *rest, **more):
    host, port = address[:2]
    return connect(("127.0.0.1" if host == "93.184.215.14" else host, port), *rest, **more)

socket.getaddrinfo, socket.create_connection = getaddrinfo, create_connection
"""
NAMES = {
    "photos.example": [[PUBLIC]],
    "inside.example": [["10.0.0.1"]],
    "both.example": [[PUBLIC, "127.0.0.1"]],
    "rebinding.example": [[PUBLIC], ["127.0.0.1"]],
    "turning.example": [["127.0.0.1"], [PUBLIC]],
}


class Photos(http.server.BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"], self.headers["If-None-Match"]))
        if self.path.startswith("/to/"):
            self.answer(302, b"", Location=self.path.removeprefix("/to/"))
        elif self.path == "/dripping":
            self.drip()
        elif self.path.startswith("/busy/"):
            status, _, after = self.path.removeprefix("/busy/").partition("/")
            self.answer(int(status), b"", **({"Retry-After": unquote(after)} if after else {}))
        elif self.headers["If-None-Match"] == self.server.etag:
            self.answer(304, b"")
        else:
            self.answer(200, PHOTO.read_bytes(), ETag=self.server.etag)

    def drip(self) -> None:
        """A byte now and then, until whoever asked has gone."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.server.dripping.set()
        with contextlib.suppress(OSError):
            while not self.server.ending.wait(0.1):
                self.wfile.write(b"x")
            return
        self.server.left.set()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Photos)
    server.daemon_threads = False
    server.asked, server.etag = [], '"1"'
    server.dripping, server.left, server.ending = threading.Event(), threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.ending.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    daemon = DaemonRig(tmp_path_factory.mktemp("urls"), cache={"size_mb": 64})
    rig = WebRig(daemon, {"fetch_urls": True})
    try:
        daemon.start()
        (daemon.root / "sitecustomize.py").write_text(NETWORK)
        daemon.env = {"PYTHONPATH": str(daemon.root), "NAMES": json.dumps(NAMES)}
        rig.start()
        yield rig
    finally:
        rig.close()
        daemon.close()


def ask(web: WebRig, url: str) -> httpx.Response:
    with web.client() as client:
        return client.post("/v1.0/removebg", data={"image_url": url, "size": "preview"})


def refused(web: WebRig, url: str) -> str:
    answer = ask(web, url)
    error = answer.json()["errors"][0]
    assert (answer.status_code, error["code"]) == (400, "invalid_image_url")
    return str(error["detail"])


def test_a_photo_at_a_public_address_is_matted_and_not_transferred_twice(web: WebRig, site: Any) -> None:
    url = f"http://photos.example:{site.server_address[1]}/photo.png"
    assert ask(web, url).headers["content-type"] == "image/png"
    assert ask(web, url).status_code == 200
    assert [condition for path, _, condition in site.asked if path == "/photo.png"] == [None, '"1"']
    site.etag = '"2"'
    assert ask(web, url).status_code == 200
    assert ask(web, url).status_code == 200
    conditions = [condition for path, _, condition in site.asked if path == "/photo.png"]
    assert conditions == [None, '"1"', '"1"', '"2"']


def test_a_redirect_to_another_public_address_is_followed(web: WebRig, site: Any) -> None:
    port = site.server_address[1]
    assert ask(web, f"http://photos.example:{port}/to/http://photos.example:{port}/b.png").status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "inside.example", "0x7f000001"]
)
def test_a_redirect_does_not_lead_inside(web: WebRig, site: Any, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.settimeout(0.2)
        target = f"http://{host}:{secret.getsockname()[1]}/latest/meta-data"
        assert "inside this network" in refused(
            web, f"http://photos.example:{site.server_address[1]}/to/{target}"
        )
        with pytest.raises(TimeoutError):
            secret.accept()


def test_a_redirect_to_a_file_is_none(web: WebRig, site: Any) -> None:
    url = f"http://photos.example:{site.server_address[1]}/to/file:///etc/passwd"
    assert "not an http" in refused(web, url)


def test_a_name_that_means_something_else_the_second_time_gains_nothing(web: WebRig, site: Any) -> None:
    """What was checked is what is connected to; the next fetch is checked anew."""
    url = f"http://rebinding.example:{site.server_address[1]}/r.png"
    assert ask(web, url).status_code == 200
    seen = len(site.asked)
    assert "127.0.0.1" in refused(web, url)
    assert len(site.asked) == seen


def test_what_is_kept_of_an_address_is_not_given_out_where_the_address_is_refused(
    web: WebRig, site: Any
) -> None:
    url = f"http://turning.example:{site.server_address[1]}/t.png"
    assert "inside this network" in refused(web, url)
    assert ask(web, url).status_code == 200


def test_one_address_inside_among_public_ones_refuses_them_all(web: WebRig, site: Any) -> None:
    seen = len(site.asked)
    assert "127.0.0.1" in refused(web, f"http://both.example:{site.server_address[1]}/a.png")
    assert len(site.asked) == seen


@pytest.mark.parametrize(
    ("status", "after", "told"),
    [
        (429, "77", "77"),
        (503, "Fri, 31 Dec 2100 23:59:59 GMT", "3600"),
        (502, "", "5"),
        (500, "soon", "5"),
        (504, "0", "1"),
    ],
)
def test_a_server_that_has_no_time_is_a_reason_to_come_again_and_it_says_when(
    web: WebRig, site: Any, status: int, after: str, told: str
) -> None:
    answer = ask(web, f"http://photos.example:{site.server_address[1]}/busy/{status}/{quote(after)}")
    error = answer.json()["errors"][0]
    assert (answer.status_code, error["code"]) == (503, "url_unavailable")
    assert f"the server answers {status}" in error["detail"]
    assert answer.headers["Retry-After"] == told


def test_a_download_ends_when_whoever_asked_for_it_leaves(web: WebRig, site: Any) -> None:
    """Well before the minute that a download may take: its place is somebody else's."""
    form = f"image_url=http://photos.example:{site.server_address[1]}/dripping"
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as asking:
        head = f"POST /v1.0/removebg HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(form)}\r\n"
        asking.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}".encode())
        assert site.dripping.wait(30)
    assert site.left.wait(30)
