"""Answers of engines: every bit comes back, and only where it would be computed again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from watcher.cache import Cache
from watcher.domain import EngineAbout, Frame, Job, Metadata, Source, Stamp
from watcher.pipeline.answers import Answers, Tally, packed, unpacked
from watcher.pipeline.looks import Answer

ABOUT = EngineAbout("modnet", "onnx", "onnxruntime 1.20", "cpu", "a" * 64)


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.floats(width=32, allow_nan=True),
    ),
    st.booleans(),
)
def test_every_bit_comes_back(alpha, disagree):
    found = unpacked(packed(Answer(alpha, disagree)))
    assert found is not None
    assert found.alpha.tobytes() == alpha.tobytes()
    assert (found.alpha.shape, found.alpha.dtype) == (alpha.shape, np.float32)
    assert (found.disagree, found.cached) == (disagree, True)
    assert found.alpha.flags.writeable


def test_what_is_soft_only_at_its_edges_takes_a_fraction_of_its_size():
    y, x = np.mgrid[:512, :768].astype(np.float32)
    alpha = np.clip((200 - np.hypot(y - 256, x - 384)) / 8 + 0.5, 0, 1).astype(np.float32)
    assert len(packed(Answer(alpha, False))) < alpha.nbytes / 20


@given(st.binary(max_size=300))
def test_nonsense_is_no_answer(body):
    assert unpacked(body) is None


@pytest.mark.parametrize(
    "head", ['{"shape": [9, 9], "disagree": 0}', '{"shape": [100000, 100000]}', "[]", "{}"]
)
def test_an_answer_of_another_shape_is_none(head):
    body = packed(Answer(np.zeros((3, 4), np.float32), False))
    assert unpacked(head.encode() + b"\n" + body.partition(b"\n")[2]) is None


@pytest.fixture
def frame() -> Frame:
    pixels = np.zeros((4, 6, 3), np.uint8)
    job = Job(1, Source("in", "a.jpg", Stamp(1, 1)), 1, 1)
    return Frame(job, Path("a.jpg"), pixels, None, None, Metadata(), pixels[:2, :3].copy(), "c" * 64, "jpeg")


@pytest.fixture
def make(tmp_path):
    cache = Cache(tmp_path, most=10**6)

    def answers(about: EngineAbout = ABOUT, **identity: str) -> Answers:
        return Answers(
            cache, identity={"card": "{}", "code": "1", **identity}, about=lambda: about, tally=Tally()
        )

    return answers


def test_a_photo_is_known_by_its_bytes_not_by_its_name(make, frame):
    other = replace(
        frame,
        job=Job(9, Source("elsewhere", "b.jpg", Stamp(2, 2)), 3, 4),
        path=Path("b.jpg"),
        warnings=("x",),
    )
    assert make().key(frame, "doubt") == make().key(other, "doubt")


def test_whatever_may_change_an_answer_makes_another_key(make, frame):
    proxy = frame.proxy.copy()
    proxy[0, 0, 0] = 1
    keys = [
        make().key(frame, "doubt"),
        make().key(frame, "all"),
        make().key(replace(frame, sha256="d" * 64), "doubt"),
        make().key(replace(frame, proxy=proxy), "doubt"),
        make().key(replace(frame, proxy=frame.proxy.reshape(3, 2, 3)), "doubt"),
        make(card='{"name": "other"}').key(frame, "doubt"),
        make(code="2").key(frame, "doubt"),
        *(
            make(replace(ABOUT, **{name: "other"})).key(frame, "doubt")
            for name in ("model", "engine", "framework", "device", "weights_sha256")
        ),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_an_engine_that_goes_on_elsewhere_gets_other_keys_from_then_on(tmp_path, frame):
    about = [ABOUT]
    answers = Answers(Cache(tmp_path, most=10**6), identity={}, about=lambda: about[0], tally=Tally())
    before, again = (answers.key(frame, "doubt") for _ in range(2))
    about[0] = replace(ABOUT, device="cuda")
    assert before == again != answers.key(frame, "doubt")


def test_questions_are_counted(make, frame):
    answers = make()
    key = answers.key(frame, "doubt")
    assert answers.find(key) is None
    answers.keep(key, Answer(np.ones((2, 3), np.float32), False))
    assert answers.find(key).alpha.all()
    assert (answers._tally.asked, answers._tally.found) == (2, 1)
