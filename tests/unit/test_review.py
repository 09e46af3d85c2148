"""When a person should look."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from watcher.pipeline.review import (
    LOOKS_DISAGREE,
    MOSTLY_UNCERTAIN,
    NOTHING_FOUND,
    TOUCHES_EVERY_BORDER,
    is_noise,
    review,
)
from watcher.web.page import WORDS


def portrait() -> np.ndarray:
    alpha = np.zeros((64, 48), np.float32)
    alpha[20:, 10:40] = 1
    alpha[20:, [9, 40]] = 0.5
    return alpha


def test_a_portrait_needs_nobody():
    found = review(portrait())
    assert found.flags == ()
    assert found.coverage == pytest.approx(portrait().mean(), abs=1e-6)
    assert 0 < found.uncertain < 0.03


@pytest.mark.parametrize("level", [0.0, 0.001])
def test_an_empty_matte_is_nothing_found(level):
    assert review(np.full((64, 48), level, np.float32)).flags == (NOTHING_FOUND,)


def test_little_and_foggy_is_noise_and_a_small_figure_is_not():
    figure = np.zeros((400, 400), np.float32)
    figure[100:130, 100:112] = 1.0
    assert review(figure).flags == (NOTHING_FOUND,) and not is_noise(review(figure))
    assert is_noise(review(figure * 0.4))
    assert not is_noise(review(portrait() * 0.4))


def test_fog_is_mostly_uncertain():
    fog = review(portrait() * 0.5)
    assert fog.flags == (MOSTLY_UNCERTAIN,) and fog.uncertain == pytest.approx(0.5, abs=0.1)


def test_a_matte_all_over_touches_every_border():
    assert review(np.ones((64, 48), np.float32)).flags == (TOUCHES_EVERY_BORDER,)


def test_a_close_up_cut_by_three_borders_is_fine():
    alpha = np.ones((64, 48), np.float32)
    alpha[0] = 0
    assert review(alpha).flags == ()


def test_looks_that_disagree_are_a_reason_only_where_something_was_found():
    assert review(portrait(), disagree=True).flags == (LOOKS_DISAGREE,)
    assert review(np.zeros((8, 8), np.float32), disagree=True).flags == (NOTHING_FOUND,)


def test_one_pixel_can_be_reviewed():
    assert review(np.ones((1, 1), np.float32)).coverage == 1


def test_every_flag_has_its_words_on_the_page_and_stands_in_the_sidecar_s_schema():
    flags = {NOTHING_FOUND, TOUCHES_EVERY_BORDER, MOSTLY_UNCERTAIN, LOOKS_DISAGREE}
    assert set(WORDS) == flags
    schema = json.loads(files("watcher.pipeline").joinpath("sidecar.schema.json").read_text())
    shown = schema["$defs"]["sidecar"]["properties"]["review"]["properties"]["flags"]
    assert set(shown["items"]["enum"]) == flags
