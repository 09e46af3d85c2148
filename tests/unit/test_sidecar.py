"""What the sidecar says, and that it can be relied on."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watcher.config import Profile
from watcher.domain import EngineAbout, Failure, Job, Published, Review, Source, Stamp
from watcher.pipeline import sidecar

SCHEMA = json.loads(files("watcher.pipeline").joinpath("sidecar.schema.json").read_text())
ABOUT = EngineAbout("modnet", "onnx", "onnxruntime 1.18", "cpu", "a" * 64)
NOW = 1_700_000_000.25


def valid(content: bytes) -> dict:
    parsed = json.loads(content)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(parsed, SCHEMA, cls=jsonschema.Draft202012Validator)
    return parsed


def written(frame, *, path: str = "a.matte.png", **more) -> bytes:
    published = Published("matte", path, "png", frame.width, frame.height, 123, "b" * 64)
    settings = {
        "engine": ABOUT,
        "profile": ("portrait", Profile()),
        "review": Review(0.25, 0.01, ("nothing_found",)),
        "timings": {"decode": 0.0125},
        "now": NOW,
        **more,
    }
    return sidecar.sidecar(frame, [(published, ".matte.png")], **settings)


@pytest.fixture
def frame(frame_of):
    return frame_of(np.zeros((4, 6, 3), np.uint8), name="sub/a.jpg")


def test_a_sidecar_keeps_its_schema(frame):
    told = valid(written(frame, warnings=["odd\nname"], supersedes=[".old.png"]))
    assert told["source"]["path"] == "sub/a.jpg" and told["source"]["width"] == 6
    assert told["timings_ms"] == {"decode": 12.5}
    assert told["created"] == "2023-11-14T22:13:20.250Z"
    assert told["profile"]["settings"]["refine"] == "closed_form"
    assert told["warnings"] == ["odd\\nname"]


def test_a_report_keeps_its_schema(frame):
    failure = Failure("InputRejected", "this is a text file", "Export it again.")
    told = valid(sidecar.report(frame.job, failure, now=NOW))
    assert (told["error"], told["attempts"]) == ("InputRejected", 1)


@pytest.mark.parametrize("missing", ["source", "outputs", "schema", "engine", "created"])
def test_the_schema_notices_what_is_missing(frame, missing):
    told = json.loads(written(frame))
    del told[missing]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, SCHEMA)


@pytest.mark.parametrize(
    "name", ["a.jpg", "ünï/人.jpg", "back\\slash.jpg", "b\udcff\udc80.jpg", "new\nline.jpg", "\x7f"]
)
def test_every_name_can_be_told_and_read_back(name):
    job = Job(1, Source("hot", name, Stamp(5, 1_600_000_000_123_456_789)), 2, 1)
    content = sidecar.report(job, Failure("E", "r", "m"), now=NOW)
    told = valid(content)
    assert told["source"]["path"].isprintable()
    assert told["source"]["mtime_ns"] == 1_600_000_000_123_456_789
    assert sidecar.owner_in(content) == ("hot", name)


def test_a_record_gives_back_what_publishing_needs(frame):
    record = sidecar.record_in(written(frame, supersedes=[".old.png"]))
    assert record == sidecar.Record(
        ("hot", "sub/a.jpg"), (sidecar.Written(".matte.png", 123, "b" * 64),), (".old.png",)
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"schema": 2}',
        b'{"schema": 1, "source": 7}',
        b"\xff\xfe",
        b"[" * 9999,
    ],
)
def test_what_is_not_ours_is_nobodys(content):
    assert sidecar.record_in(content) is None


@pytest.mark.parametrize("suffix", ["/../../etc/passwd", "", "a/b", "x\0", 7, None])
def test_a_record_that_leads_elsewhere_is_not_ours(frame, suffix):
    told = json.loads(written(frame))
    told["outputs"][0]["suffix"] = suffix
    assert sidecar.record_in(json.dumps(told).encode()) is None
    told["outputs"][0]["suffix"] = ".matte.png"
    assert sidecar.record_in(json.dumps(told).encode()) is not None
    told["supersedes"] = [suffix]
    assert sidecar.record_in(json.dumps(told).encode()) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_upset_the_reading_of_sidecars(content):
    assert sidecar.record_in(content) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(["schema", "source", "outputs", "supersedes"]), value=json_values)
def test_no_value_in_a_sidecar_upsets_its_reading(frame, place, value):
    told = {**json.loads(written(frame)), place: value}
    record = sidecar.record_in(json.dumps(told).encode())
    if record is not None:
        suffixes = [output.suffix for output in record.outputs] + list(record.supersedes)
        assert not any("/" in suffix or not suffix for suffix in suffixes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 5000), byte=st.integers(0, 255))
def test_no_flipped_byte_in_a_sidecar_upsets_its_reading(frame, at, byte):
    content = bytearray(written(frame))
    content[at % len(content)] = byte
    sidecar.record_in(bytes(content))
