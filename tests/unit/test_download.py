"""Fetching by URL against a real server on loopback, which only the tests may reach."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher import download as module
from watcher.download import UrlLimits, download, is_public
from watcher.errors import InputNotReady, InputRejected

PHOTO = b"\xff\xd8" + bytes(range(256)) * 40 + b"\xff\xd9"


def anywhere(address: object) -> bool:
    return True


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        port = self.server.server_address[1]
        match self.path.partition("?")[0]:
            case "/a%20photo.jpg" | "/photo.jpg":
                self.answer(200, PHOTO)
            case "/moved":
                self.answer(302, b"", Location="/photo.jpg")
            case "/loop":
                self.answer(302, b"", Location="/loop")
            case "/inside":
                self.answer(302, b"", Location=f"http://127.0.0.2:{port}/photo.jpg")
            case "/file":
                self.answer(302, b"", Location="file:///etc/passwd")
            case "/busy":
                self.answer(503, b"")
            case "/endless":
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for _ in range(10_000):
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    self.close_connection = True
            case "/drip":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                while not self.server.done.wait(0.05):
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return
            case "/headers":
                self.drip(b"HTTP/1.1 200 OK\r\nX: ", b"x")
            case "/continues":
                self.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n")
            case "/chunk":
                self.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x")
            case "/trailers":
                self.drip(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"X: y\r\n"
                )
            case "/closing":
                self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\nConnection: close\r\n\r\n", b"x")
            case "/to-umlaut":
                self.answer(
                    302, b"", Location="/gr\u00c3\u00bcn.jpg"
                )  # UTF-8, as headers are written: in Latin-1
            case "/gr%C3%BCn.jpg" if self.path == "/gr%C3%BCn.jpg?f=%C3%BC" or "?" not in self.path:
                self.answer(200, PHOTO)
            case "/no-url":
                self.answer(302, b"", Location="http://[x/")
            case "/no-host":
                self.answer(302, b"", Location="http://a..b/photo.jpg")
            case "/short":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x")
                self.close_connection = True
            case _:
                self.answer(404, b"")

    def drip(self, first, then):
        self.close_connection = True
        try:
            self.wfile.write(first)
            while not self.server.done.wait(0.05):
                self.wfile.write(then)
        except OSError:
            return

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = False
    server.done = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.done.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_photo_arrives_whole_under_a_safe_name(site):
    found = download(f"{site}/a%20photo.jpg?size=full", allowed=anywhere)
    assert (found.content, found.name) == (PHOTO, "a photo.jpg")


def test_a_redirect_is_followed_and_said(site):
    assert download(f"{site}/moved", allowed=anywhere).url == f"{site}/photo.jpg"


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/loop", InputRejected, "redirect"),
        ("/file", InputRejected, "not an http"),
        ("/no-url", InputRejected, "which is no URL"),
        ("/no-host", InputRejected, "no name of a host"),
        ("/nothing", InputRejected, "404"),
        ("/busy", InputNotReady, "503"),
        ("/endless", InputRejected, "more than"),
        ("/short", InputNotReady, "cannot be fetched"),
    ],
)
def test_what_cannot_be_had_is_said(site, path, error, words):
    with pytest.raises(error, match=words):
        download(site + path, allowed=anywhere, limits=UrlLimits(max_mb=1.0))


def test_a_declared_size_is_refused_before_reading(site):
    with pytest.raises(InputRejected, match="the limit"):
        download(f"{site}/photo.jpg", allowed=anywhere, limits=UrlLimits(max_mb=0.001))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["drip", "closing", "headers", "continues", "chunk", "trailers"])
def test_dripping_bytes_do_not_prolong_the_time_wherever_they_drip(site, path):
    with pytest.raises(InputNotReady, match="cannot be fetched"):
        download(f"{site}/{path}", allowed=anywhere, limits=UrlLimits(timeout_s=0.5))


@pytest.mark.parametrize("path", ["grün.jpg", "grün.jpg?f=ü", "to-umlaut"])
def test_letters_that_urls_do_not_have_are_written_as_browsers_write_them(site, path):
    found = download(f"{site}/{path}", allowed=anywhere)
    assert (found.content, found.name) == (PHOTO, "grün.jpg")


@pytest.mark.parametrize("url", ["http://\ud800/", "http://1.1.1.1/\ud800"])
def test_half_a_character_is_said(url):
    with pytest.raises(InputRejected, match="half a character"):
        download(url)


@pytest.mark.parametrize("url", [f"http://{'a' * 64}.example/", "http://a..b/", "http://grün..b/"])
def test_what_cannot_be_the_name_of_a_host_is_said(url):
    with pytest.raises(InputRejected, match="no name of a host"):
        download(url, allowed=anywhere)


def test_an_address_inside_is_refused(site):
    with pytest.raises(InputRejected, match="inside this network"):
        download(f"{site}/photo.jpg")


def test_a_redirect_inside_is_refused(site):
    with pytest.raises(InputRejected, match=r"127\.0\.0\.2"):
        download(f"{site}/inside", allowed=lambda a: a == ipaddress.ip_address("127.0.0.1"))


def test_a_name_that_changes_its_mind_gains_nothing(site, monkeypatch):
    """Rebinding: public at the first question, inside at the second. There is no second question."""
    port = int(site.rpartition(":")[2])
    answers = [["127.0.0.1"], ["127.0.0.9"]]
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answers.pop(0)]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    # create_connection asks as well, but for the address that was checked.
    connect = socket.create_connection
    reached = []

    def connected(address, timeout):
        reached.append(address[0])
        monkeypatch.undo()
        return connect(address, timeout)

    monkeypatch.setattr(module.socket, "create_connection", connected)
    ok = ipaddress.ip_address("127.0.0.1")
    assert download(f"http://photos.example:{port}/photo.jpg", allowed=lambda a: a == ok).content == PHOTO
    assert (asked, reached) == (["photos.example"], ["127.0.0.1"])


def test_one_private_address_among_public_ones_refuses_them_all(monkeypatch):
    def resolve(host, port, **_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("93.184.215.14", "10.0.0.1")
        ]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    with pytest.raises(InputRejected, match=r"10\.0\.0\.1"):
        download("http://photos.example/a.jpg")


@pytest.mark.parametrize(
    "address",
    """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 224.0.0.1 255.255.255.255 100.64.0.1
    ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::a00:1""".split(),
)
def test_no_inside_address_is_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "http://", "http://a:99999/", "http://u:p@a/", "http://[::1", "//a/b", "http://a:0/"]
)
def test_odd_urls_are_refused_with_words(url):
    with pytest.raises(InputRejected):
        download(url)


@given(st.text(max_size=300))
def test_no_path_makes_a_dangerous_name(path):
    name = module._name(module.urlsplit("http://a/" + path.replace("[", "").replace("]", "")))
    assert name and len(name) <= 100
    assert "/" not in name and not name.startswith(".") and name.isprintable()
