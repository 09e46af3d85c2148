"""Weights that no card can know: believed once, recorded, verified ever after."""

from __future__ import annotations

import hashlib
import json

import pytest

from watcher.engine import provenance, weights
from watcher.engine.card import Card
from watcher.engine.launch import prepare
from watcher.errors import EngineUnavailable, HostError

LICENCE = {"weights": "x", "code": "x", "attribution": "x", "commercial": True, "url": "https://example.org"}
CONTENT = b"a frozen graph"


def card(*sources):
    held = {"file": "w.pb", "sources": list(sources)}
    return Card.model_validate(
        {"name": "mine", "title": "x", "engine": "fake", "licence": LICENCE, "weights": held}
    )


def local(path):
    return card({"kind": "file", "path": str(path)})


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "own.pb"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_what_comes_first_is_recorded_and_said(graph, cache, caplog):
    mine, digest = local(graph), hashlib.sha256(CONTENT).hexdigest()
    assert weights.state(mine, cache) is weights.State.UNRECORDED
    assert weights.expected_sha256(mine, cache) is None
    assert weights.ensure(mine, cache, offline=True) == graph
    assert weights.expected_sha256(mine, cache) == digest
    assert f"sha256 {digest} of w.pb recorded, will be verified from now on" in caplog.text
    record = json.loads((cache / "mine" / "w.pb.json").read_text())
    assert record == {"version": 1, "sha256": digest, "size": len(CONTENT), "source": f"found at {graph}"}
    assert weights.state(mine, cache) is weights.State.OK
    assert prepare(mine, graph).weights_sha256 == digest


def test_what_comes_later_must_be_the_same(graph, cache):
    weights.ensure(local(graph), cache)
    graph.write_bytes(CONTENT[::-1])
    with pytest.raises(EngineUnavailable, match=r"own\.pb: its sha256 is wrong"):
        weights.ensure(local(graph), cache)
    graph.write_bytes(CONTENT)
    assert weights.ensure(local(graph), cache) == graph


def test_a_record_is_written_once_and_not_with_every_look(graph, cache, caplog):
    weights.ensure(local(graph), cache)
    before = (cache / "mine" / "w.pb.json").stat().st_mtime_ns
    caplog.clear()
    weights.ensure(local(graph), cache)
    assert (cache / "mine" / "w.pb.json").stat().st_mtime_ns == before
    assert caplog.text == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "x"}', '{"version": 2}'])
def test_a_record_that_cannot_be_read_is_not_taken_for_none(graph, cache, text):
    """Else whoever spoils the record has the next file believed."""
    weights.ensure(local(graph), cache)
    record = cache / "mine" / "w.pb.json"
    record.write_text(text)
    graph.write_bytes(CONTENT[::-1])
    assert weights.state(local(graph), cache) is weights.State.DAMAGED
    with pytest.raises(EngineUnavailable, match=r"w\.pb\.json: cannot be read") as caught:
        weights.ensure(local(graph), cache)
    assert str(record) in caught.value.remedy


def test_a_cache_that_cannot_be_written_is_the_machines_fault(graph, cache):
    cache.write_text("a file where a folder should be")
    with pytest.raises(HostError, match="cannot write the weights"):
        weights.ensure(local(graph), cache)


def converted(cache, *, from_sha256):
    """A card whose weights were made from those of `other`, with file and record in place."""
    mine = card({"kind": "converted", "model": "other"})
    place = weights.place(mine, cache)
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    record = provenance.Provenance(
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        source="converted from other",
        converted_from=provenance.Origin(model="other", file="o.pb", sha256=from_sha256),
    )
    provenance.write(place, record)
    assert provenance.read(place) == record
    return mine


def test_converted_weights_travel_with_their_record(cache):
    mine = converted(cache, from_sha256="a" * 64)
    assert weights.state(mine, cache) is weights.State.OK
    assert weights.ensure(mine, cache, offline=True).read_bytes() == CONTENT
    provenance.place(weights.place(mine, cache)).unlink()
    with pytest.raises(EngineUnavailable, match="without its record"):
        weights.ensure(mine, cache)


def test_converted_weights_of_another_original_are_refused(cache):
    mine = converted(cache, from_sha256="a" * 64)
    original = cache / "other" / "o.pb"
    original.parent.mkdir()
    for sha256, state in (("a" * 64, weights.State.OK), ("b" * 64, weights.State.DAMAGED)):
        provenance.write(original, provenance.Provenance(sha256=sha256, size=1, source="x"))
        assert weights.state(mine, cache) is state
    with pytest.raises(EngineUnavailable, match="converted from other weights of other") as caught:
        weights.ensure(mine, cache)
    assert caught.value.remedy == "Run `hotmatte models convert other` again."
