"""Which look comes next, and which answer counts: pure, from alphas drawn by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.engine.card import card_folders, load_card, sizes_of
from watcher.pipeline.amounts import difference
from watcher.pipeline.looks import Canvases, Look, View, concluded, next_look

PHOTO = (1600, 1200)
CANVASES = Canvases(PHOTO, (672, 512), (512, 384), (1024, 768))
# The smaller size of the best: five sixths, in steps of 32.
WITNESS = (416, 320)
SMALLER = {"doubt": (512, 384), "all": WITNESS}


def person(canvas, *, box=(0.3, 0.2, 0.7, 1.0), soft=0.02, level=1.0):
    """A person in `box`, with a share `soft` of doubtful pixels."""
    width, height = canvas
    alpha = np.zeros((height, width), np.float32)
    part = slice(int(box[1] * height), int(box[3] * height)), slice(int(box[0] * width), int(box[2] * width))
    alpha[part] = level
    doubtful = alpha[part]
    doubtful[: max(1, int(soft * doubtful.shape[0]))] *= 0.5
    return alpha


def chosen(views):
    return concluded(views).alpha


def disagree(views):
    return concluded(views).disagree


def whole(alpha):
    return View(Look.whole((alpha.shape[1], alpha.shape[0])), alpha)


SURE = whole(person(CANVASES.usual))
UNSURE = whole(person(CANVASES.usual, soft=0.05))


@pytest.mark.parametrize("view", [SURE, UNSURE])
def test_one_look_is_one_look(view):
    assert next_look([view], CANVASES, "one") is None


@pytest.mark.parametrize("policy", ["one", "doubt", "all"])
def test_a_model_that_takes_one_size_is_asked_once(policy):
    assert next_look([UNSURE], Canvases(PHOTO, (672, 512)), policy) is None


def test_a_sure_answer_is_enough_where_only_doubt_asks_for_more():
    assert next_look([SURE], CANVASES, "doubt") is None


def test_a_doubtful_answer_is_compared_with_one_of_a_smaller_size():
    for policy in ("doubt", "all"):
        assert next_look([UNSURE], CANVASES, policy) == Look.whole(SMALLER[policy])


def test_where_two_answers_differ_a_larger_size_decides():
    for policy in ("doubt", "all"):
        other = whole(person(SMALLER[policy], box=(0.3, 0.2, 0.5, 1.0)))
        assert next_look([UNSURE, other], CANVASES, policy) == Look.whole(CANVASES.larger)


def test_where_they_agree_only_the_best_looks_closer_at_the_subject():
    other = whole(person(CANVASES.smaller, soft=0.05))
    assert next_look([UNSURE, other], CANVASES, "doubt") is None
    other = whole(person(WITNESS, soft=0.05))
    look = next_look([UNSURE, other], CANVASES, "all")
    assert look is not None and look.canvas == CANVASES.larger
    left, top, right, bottom = look.box
    assert left <= 0.3 * 1024 and right >= 0.7 * 1024 and top <= 0.2 * 768 and bottom == 768
    assert look.size[0] < 0.6 * 1024 and look.size[0] % 32 == look.size[1] % 32 == 0


def test_the_best_looks_closer_first_where_nobody_else_has_room():
    first, larger = (
        whole(person(size, box=(0.1, 0.2, 0.9, 1.0), soft=0.05)) for size in (CANVASES.usual, CANVASES.larger)
    )
    look = next_look([first], CANVASES, "all")
    assert look is not None and look.canvas == CANVASES.larger
    assert next_look([first, larger], CANVASES, "all") is None
    assert next_look([first], CANVASES, "doubt") == Look.whole(CANVASES.smaller)


def test_the_best_spares_at_the_larger_size_where_three_looks_are_likely():
    first = whole(person(CANVASES.usual, soft=0.2))
    other = whole(person(WITNESS, box=(0.3, 0.2, 0.5, 1.0)))
    spared = next_look([first, other], CANVASES, "all")
    assert spared == Look.whole((928, 704))
    assert next_look([first, other, whole(person(spared.canvas))], CANVASES, "all") is None
    other = whole(person(CANVASES.smaller, box=(0.3, 0.2, 0.5, 1.0)))
    assert next_look([first, other], CANVASES, "doubt") == Look.whole(CANVASES.larger)


def test_a_larger_size_that_is_little_larger_is_not_spared_below_the_usual_one():
    first = whole(person(CANVASES.usual, soft=0.2))
    other = whole(person(WITNESS, box=(0.3, 0.2, 0.5, 1.0)))
    canvases = Canvases(PHOTO, CANVASES.usual, CANVASES.smaller, CANVASES.usual)
    assert next_look([first, other], canvases, "all") == Look.whole(CANVASES.usual)


def test_what_is_doubtful_and_has_no_outline_is_asked_about_at_a_smaller_size():
    haze = whole(np.full(CANVASES.usual[::-1], 0.05, np.float32))
    assert next_look([haze], CANVASES, "all") == Look.whole(WITNESS)


def test_a_sure_answer_that_the_closer_look_contradicts_is_put_to_a_third():
    closer = next_look([SURE], CANVASES, "all")
    assert closer is not None and closer.canvas == CANVASES.larger
    agrees, differs = (View(closer, np.full(closer.size[::-1], level, np.float32)) for level in (1.0, 0.0))
    third = next_look([SURE, differs], CANVASES, "all")
    assert third is not None and third.canvas == WITNESS
    third = next_look([SURE, agrees], CANVASES, "all")
    assert third is None or third.canvas == WITNESS


def test_a_third_look_that_decides_between_two_leaves_out_what_neither_saw_anybody_in():
    closer = next_look([SURE], CANVASES, "all")
    assert closer is not None
    nobody = View(closer, np.zeros(closer.size[::-1], np.float32))
    third = next_look([SURE, nobody], CANVASES, "all")
    assert third is not None and third.canvas == WITNESS and third.size[0] < 0.7 * third.canvas[0]
    left, top, right, bottom = third.of(PHOTO)
    assert left < 0.3 * 1600 and right > 0.7 * 1600 and top < 0.2 * 1200 and bottom == 1200
    wider = View(Look.whole(CANVASES.larger), person(CANVASES.larger, box=(0.1, 0.2, 0.95, 1.0)))
    both = next_look([SURE, wider], CANVASES, "all")
    assert both is not None and both.of(PHOTO)[0] < 0.1 * 1600 and both.of(PHOTO)[2] > 0.95 * 1600


def test_so_is_one_that_it_contradicts_in_a_patch_only():
    """A hand is no 2 % of a person, but somebody will look at it."""
    closer = whole(person(CANVASES.larger))
    assert next_look([SURE, closer], CANVASES, "all") is None
    closer.alpha[400:440, 500:540] = 0.0
    assert difference(SURE.alpha, closer.alpha) < 0.02
    third = next_look([SURE, closer], CANVASES, "all")
    assert third is not None and third.canvas == WITNESS


def test_someone_tiny_gets_a_closer_look_and_room_around():
    tiny = whole(person(CANVASES.usual, box=(0.5, 0.6, 0.55, 0.7)))
    look = next_look([tiny], CANVASES, "doubt")
    assert look is not None
    left, top, right, bottom = look.of(PHOTO)
    assert left < 0.5 * 1600 and right > 0.55 * 1600 and top < 0.6 * 1200 and bottom > 0.7 * 1200
    assert (right - left) * (bottom - top) < 0.2 * 1600 * 1200
    closer = View(look, np.ones(look.size[::-1], np.float32))
    assert next_look([tiny, closer], CANVASES, "all") is None


@pytest.mark.parametrize("photo", [(1600, 1200), (1200, 1600), (300, 200), (6000, 1000), (64, 64)])
@pytest.mark.parametrize(("policy", "most"), [("doubt", 3), ("all", 24)])
def test_an_engine_that_prepares_for_each_size_sees_few(photo, policy, most):
    card = load_card("modnet", card_folders(None))
    canvases = Canvases(photo, *sizes_of(*photo, card), few=True)
    places = [
        (x / 20, y / 20, (x + w) / 20, 1.0) for x in range(0, 15, 3) for y in range(0, 15, 3) for w in (1, 5)
    ]
    sizes = set()
    for box in places:
        for soft in (0.0, 0.05, 0.5):
            views, look = [], Look.whole(canvases.usual)
            while look is not None:
                sizes.add(look.size)
                left, top, right, bottom = look.of(photo)
                assert 0 <= left < right <= photo[0] and 0 <= top < bottom <= photo[1]
                views.append(View(look, person(look.size, box=box, soft=soft * (1 + len(views)))))
                look = next_look(views, canvases, policy)
    assert len(sizes) <= most


def test_it_sees_someone_tiny_from_near_in_the_usual_size():
    canvases = replace(CANVASES, few=True)
    tiny = whole(person(CANVASES.usual, box=(0.5, 0.6, 0.55, 0.7)))
    look = next_look([tiny], canvases, "doubt")
    assert look is not None and look.size == CANVASES.usual
    left, top, right, bottom = look.of(PHOTO)
    assert left < 0.5 * 1600 and right > 0.55 * 1600 and top < 0.6 * 1200 and bottom > 0.7 * 1200
    assert (right - left) * (bottom - top) < 0.25 * 1600 * 1200


def test_the_surest_answer_counts_unless_it_misses_somebody():
    both = whole(person(CANVASES.larger, box=(0.1, 0.2, 0.9, 1.0), soft=0.02))
    half = whole(person(CANVASES.usual, box=(0.1, 0.2, 0.5, 1.0), soft=0.019))
    fog = whole(person(CANVASES.smaller, box=(0.0, 0.0, 1.0, 1.0), soft=0.3))
    assert half.amounts.uncertain < both.amounts.uncertain * 1.25
    assert chosen([half, both, fog]) is both.alpha
    assert chosen([fog, both]) is both.alpha


def test_two_that_agree_outvote_a_third_however_sure_it_is():
    small, usual = whole(person(CANVASES.smaller, soft=0.1)), whole(person(CANVASES.usual, soft=0.1))
    stray = whole(person(CANVASES.larger, box=(0.0, 0.0, 0.9, 1.0), soft=0.0))
    assert chosen([usual, small, stray]).shape != stray.alpha.shape
    assert chosen([usual, stray]) is stray.alpha


def test_a_patch_that_two_others_deny_is_mended_and_a_strand_is_not():
    small, usual, fine = (
        whole(person(canvas, soft=soft))
        for canvas, soft in ((CANVASES.smaller, 0.05), (CANVASES.usual, 0.05), (CANVASES.larger, 0.03))
    )
    fine.alpha[500:540, 500:540] = 0.0
    fine.alpha[100:154, 400:402] = 1.0
    result = chosen([usual, small, fine])
    assert result.shape == fine.alpha.shape
    assert result[500:540, 500:540].min() > 0.99
    assert result[100:140, 400:402].min() == 1.0
    assert fine.alpha[520, 520] == 0.0, "what the engine said stays as it was"


def group(canvas, people, *, soft=0.02):
    """Several people, each as the left and right end of a box."""
    parts = [person(canvas, box=(left, 0.2, right, 1.0), soft=soft) for left, right in people]
    return whole(np.max(parts, axis=0))


def test_somebody_whom_two_see_is_there_though_they_differ_about_another():
    usual = group(CANVASES.usual, [(0.05, 0.3), (0.7, 0.9)], soft=0.05)
    small = group(CANVASES.smaller, [(0.05, 0.3), (0.4, 0.6)], soft=0.05)
    fine = group(CANVASES.larger, [(0.4, 0.6), (0.7, 0.95)])
    result = chosen([usual, small, fine])
    assert result.shape == fine.alpha.shape
    for middle in (0.2, 0.5, 0.8):
        assert result[500, int(middle * 1024)] > 0.99
    assert fine.alpha[500, 200] == 0.0, "what the engine said stays as it was"


def test_somebody_whom_only_the_best_sees_stays_where_the_others_differ():
    usual = group(CANVASES.usual, [(0.05, 0.3)], soft=0.05)
    small = group(CANVASES.smaller, [(0.7, 0.9)], soft=0.05)
    fine = group(CANVASES.larger, [(0.05, 0.3), (0.4, 0.6), (0.7, 0.9)])
    assert np.array_equal(chosen([usual, small, fine]), fine.alpha)


def test_of_three_that_all_differ_each_is_believed_in_what_it_sees_but_not_a_fog():
    """Three people, of whom each size misses another; an engine misses far more often than it invents."""
    seen = {
        CANVASES.usual: ((0.05, 0.3), (0.4, 0.6)),
        CANVASES.smaller: ((0.4, 0.6), (0.7, 0.95)),
        CANVASES.larger: ((0.05, 0.3), (0.7, 0.95)),
    }
    views = [whole(person((w, h), box=(0, 0, 0, 0))) for w, h in seen]
    for view, people in zip(views, seen.values(), strict=True):
        for left, right in people:
            view.alpha[:] += person((view.alpha.shape[1], view.alpha.shape[0]), box=(left, 0.2, right, 1.0))
    assert disagree(views)
    found = chosen(views)
    for place in (0.15, 0.5, 0.8):
        assert found[int(0.7 * found.shape[0]), int(place * found.shape[1])] == 1
    assert found[:, int(0.35 * found.shape[1])].max() == 0
    fog = whole(np.maximum(views[1].alpha, 0.5))
    found = chosen([views[0], fog, views[2]])
    assert found[:, int(0.35 * found.shape[1])].max() == 0


def test_answers_of_which_no_two_agree_are_told():
    boxes = ((0.1, 0.2, 0.4, 1.0), (0.3, 0.2, 0.7, 1.0), (0.6, 0.2, 0.9, 1.0))
    canvases = (CANVASES.usual, CANVASES.smaller, CANVASES.larger)
    apart = [whole(person(canvas, box=box)) for canvas, box in zip(canvases, boxes, strict=True)]
    assert disagree(apart)
    assert not disagree(apart[:2]), "of two, one may simply be the better"
    assert not disagree([*apart[:2], whole(person(CANVASES.larger, box=boxes[1]))])


def test_nobody_stays_nobody_however_foggy_the_closer_look():
    nobody = whole(np.zeros((512, 672), np.float32))
    look = Look((2000, 1500), (320, 320, 640, 640))
    fog = View(look, np.full((320, 320), 0.4, np.float32))
    assert not chosen([nobody, fog]).any()
    somebody = View(look, person((320, 320)))
    assert chosen([nobody, somebody]).any()


def test_a_closer_look_lands_where_it_was_taken():
    view = View(Look((1000, 800), (320, 160, 640, 480)), np.ones((160, 160), np.float32))
    alpha = chosen([view])
    assert alpha.shape == (800, 1000)
    assert alpha[160:480, 320:640].min() == 1 and alpha.sum() == 320 * 320


def test_a_closer_look_at_someone_tiny_needs_no_canvas_of_the_photos_size():
    view = View(Look((18_000, 12_000), (6000, 6000, 6512, 6512)), np.ones((512, 512), np.float32))
    alpha = chosen([view])
    assert alpha.shape == (1536, 2304)
    assert alpha[768:833, 768:833].min() == 1


def test_pictures_without_anybody_do_not_differ():
    empty = np.zeros((8, 8), np.float32)
    assert difference(empty, empty) == 0.0
    assert difference(empty, np.ones((16, 16), np.float32)) == 1.0


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    st.tuples(st.floats(0, 0.98), st.floats(0, 0.98), st.floats(0.01, 0.5), st.floats(0.01, 0.5)),
    st.sampled_from(["doubt", "all"]),
)
def test_a_look_lies_within_the_photo_and_ends(photo, where, policy):
    card = load_card("modnet", card_folders(None))
    usual, smaller, larger, multiple = sizes_of(*photo, card)
    canvases = Canvases(photo, usual, smaller, larger, multiple)
    left, top, width, height = where
    box = (left, top, min(1.0, left + width), min(1.0, top + height))
    views, look = [], Look.whole(usual)
    while look is not None:
        assert len(views) < 4
        x0, y0, x1, y1 = look.of(photo)
        assert 0 <= x0 < x1 <= photo[0] and 0 <= y0 < y1 <= photo[1]
        assert min(look.size) >= 1
        views.append(View(look, person(look.size, box=box)))
        look = next_look(views, canvases, policy)
    assert chosen(views).ndim == 2


def test_the_card_of_bshm_sees_the_whole_photo_and_is_asked_once():
    for name in ("bshm", "bshm-onnx", "u2netp"):
        assert sizes_of(6000, 4000, load_card(name, card_folders(None)))[1:3] == (None, None)
    modnet = load_card("modnet", card_folders(None))
    assert sizes_of(6000, 4000, modnet)[1:3] == ((576, 384), (1120, 736))
    assert sizes_of(512, 768, modnet)[1:3] == ((384, 576), (736, 1120))
