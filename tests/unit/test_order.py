"""What travels to a renderer comes out as it went in."""

from __future__ import annotations

import json

import numpy as np
import pytest

from watcher.config import BUILT_IN, Output, Profile
from watcher.domain import Metadata
from watcher.pipeline import parcel
from watcher.pipeline.looks import Answer
from watcher.pipeline.order import order_of, values_of
from watcher.pipeline.pages import KEPT_BYTES
from watcher.pipeline.render import Style
from watcher.pipeline.rooms import Room

PROFILES = [
    *BUILT_IN.values(),
    Profile(
        outputs=(
            Output(kind="composite", suffix=".jpg", picture="/srv/a b/ä.png", quality=80),
            Output(kind="cutout", name="{stem}-{kind}.tif", alpha="premultiplied", depth=16, pack="lzw"),
        ),
        edges=(),
        refine="guided",
        decontaminate=False,
    ),
]


@pytest.fixture
def room():
    made = Room(KEPT_BYTES)
    yield made
    made.close()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("deep", [False, True])
def test_an_order_arrives_as_it_was_sent(frame_of, room, profile, deep):
    levels = np.arange(7 * 5 * 3, dtype=np.uint16 if deep else np.uint8).reshape(7, 5, 3)
    frame = frame_of(
        levels[:, ::-1] if deep else levels,  # in pieces
        name="ü \udcfe.jpg",
        opacity=levels[..., 0],
        profile=b"icc" * 99,
        metadata=Metadata(exif=b"", xmp=b"x", dpi=(300.0, 299.5)),
    )
    answer, style = (
        Answer(np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), True),
        Style("h", "p", profile),
    )
    fields, parts, size = parcel.packed(values_of(frame, answer, style))
    assert size <= room.size
    room.fill(parts)
    got, said, asked = order_of(parcel.unpacked(json.loads(json.dumps(fields)), room.memory))
    assert asked == style
    assert np.array_equal(got.pixels, frame.pixels) and got.pixels.dtype == frame.pixels.dtype
    assert got.opacity is not None and np.array_equal(got.opacity, levels[..., 0])
    assert np.array_equal(got.proxy, frame.proxy)
    assert (got.profile, got.metadata) == (frame.profile, frame.metadata)
    assert got.job.source.relpath == frame.job.source.relpath
    assert got.job.source.stamp.mtime_ns == frame.job.source.stamp.mtime_ns
    assert np.array_equal(said.alpha, answer.alpha) and said.disagree
    del got, said


@pytest.mark.parametrize(
    "field",
    [
        {"at": 10**12, "shape": [5], "dtype": "uint8"},
        {"at": 0, "shape": [1 << 40], "dtype": "uint8"},
        {"at": -8, "shape": [4], "dtype": "uint8"},
        {"at": -8, "bytes": 4},
        {"at": 0, "shape": [4], "dtype": "object"},
        {"there": 0, "shape": [4], "dtype": "uint8"},
        {"something": 1},
    ],
)
def test_a_field_that_does_not_add_up_is_refused(room, field):
    with pytest.raises((ValueError, TypeError, LookupError)):
        parcel.unpacked({"a": field}, room.memory)
