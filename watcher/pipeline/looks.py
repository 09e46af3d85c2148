"""At which sizes is an engine asked about a photo, and which of its answers counts? Pure.

An engine that fails at one size often succeeds at another: groups need a larger one, a person who
fills the picture a smaller one. Which answer is right shows in how sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.amounts import Amounts, differ, differences, measured, mended, side_of
from watcher.pipeline.review import NOTHING_BELOW, UNCERTAIN_ABOVE
from watcher.pipeline.scale import resized

Field = NDArray[np.float32]
Size = tuple[int, int]
Box = tuple[int, int, int, int]
Fractions = tuple[float, float, float, float]
Policy = Literal["one", "doubt", "all"]

# Of the answers nearly as sure as the surest, those nearly as large as the largest: a person that
# a model does not see leaves no doubt behind. Measured on thirty pictures with truth: as good as
# choosing by the truth itself.
_ALIKE_SURE, _ALIKE_LARGE = 1.25, 0.92
# An alpha with less uncertainty than this is rarely wrong by more than its edges.
_DOUBT = 0.011
# Answers that differ by this share of their area: one of them is wrong.
_DISAGREE = 0.02
# No two of three come nearer than this: a person should look.
_CONFUSED = 0.08
# Where an answer differs by this much from two that agree, in a patch as wide as this share of the
# short side, it is mended.
_CONTRADICTS, _PATCH = 0.35, 0.01
# So that all looks for the best answer cost less than three times the first: its smaller look, which only bears witness
# between two, is this share of its size; so is the larger one, where an answer is this many times as unsure as doubt begins,
# which most often needs three looks. Measured: as good, on groups better.
_WITNESS, _VERY_UNSURE, _SPARED = 5 / 6, 1.5, 0.91
# A subject whose box is this small a share of the picture is looked at by itself, and so is the hint of one, where
# nothing was found.
_TINY = 0.06
# Of the box, to each side: a model wants to see what a person stands before.
_ROOM_TINY, _ROOM = 0.6, 0.06
# A strip of the picture this wide, beside a subject, may hold somebody else.
_BESIDE = 0.15
# Larger than this a small photo need not be blown up for the sake of someone tiny in it.
_ENLARGED = 2.0
# The short side of what is passed on, at most; full size is refinement's business.
_LARGEST = 1536
# Where few sizes are wanted, the sides of what is shown of a canvas are so many parts of it, or fewer.
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Look:
    """The part `box` of a photo that is scaled to `canvas` (width, height).

    `box`: left, top, right, bottom, in pixels of the canvas.
    """

    canvas: Size
    box: Box

    @classmethod
    def whole(cls, canvas: Size) -> Look:
        return cls(canvas, (0, 0, *canvas))

    @property
    def size(self) -> Size:
        """(width, height) of what the engine is shown."""
        left, top, right, bottom = self.box
        return right - left, bottom - top

    def of(self, photo: Size) -> Box:
        """The box in pixels of a photo of this (width, height); never empty."""
        (wide, high), (width, height) = photo, self.canvas
        left, top = self.box[0] * wide // width, self.box[1] * high // height
        return (
            left,
            top,
            max(left + 1, -(-self.box[2] * wide // width)),
            max(top + 1, -(-self.box[3] * high // height)),
        )


@dataclass(frozen=True, eq=False)
class View:
    """What the engine said of a look, hxw, 0..1; smaller than asked for where it ran out of memory.

    Nobody writes into `alpha`: what is said of it below is found out once, when it is asked for.
    """

    look: Look
    alpha: Field

    @cached_property
    def whole(self) -> Field:
        """As an alpha of the whole photo; there is nothing outside a box."""
        return _pasted(self.alpha, self.look)

    @cached_property
    def amounts(self) -> Amounts:
        """Of the whole photo."""
        return measured(self.whole)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What all views together amount to: an alpha of the whole photo, hxw, 0..1.

    `disagree`: they contradict each other. `cached`: it was known before, nothing was computed.
    """

    alpha: Field
    disagree: bool
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Canvases:
    """What a model makes of a photo: (width, height) at its usual size, a smaller and a larger one.

    `multiple`: both sides of whatever it is shown are multiples of this. `few`: what it is shown comes in few sizes, since
    it prepares for each at some cost; else of a part that is wanted no more than that part.
    """

    photo: Size
    usual: Size
    smaller: Size | None = None
    larger: Size | None = None
    multiple: int = 32
    few: bool = False


def next_look(views: Sequence[View], canvases: Canvases, policy: Policy) -> Look | None:
    """What to ask after what was said so far (the first view is the usual one); None: that is enough."""
    first, seen = views[0].amounts, [view.look.canvas for view in views[1:]]
    doubt = first.uncertain / _DOUBT
    if policy == "all":
        canvases = _spared(canvases, very_unsure=doubt >= _VERY_UNSURE)
    if policy == "one" or canvases.smaller is None or canvases.larger is None:
        return None
    unsure = doubt >= 1
    if not seen:
        if (box := _tiny(first)) is not None:
            return _closer(box, canvases)
        if unsure and (policy == "doubt" or _beside(first)):
            return Look.whole(canvases.smaller)
        # Wanted by the best anyway, and most often nothing is left to ask then.
        return _larger(first, canvases) if policy == "all" else None
    if len(seen) > 1 or seen[0] not in (canvases.smaller, canvases.larger):
        return None
    apart = _differ(views[0].whole, views[1].whole)
    if seen[0] == canvases.larger:
        return _smaller(views, canvases) if apart else None
    if apart:
        return Look.whole(canvases.larger)
    return _larger(first, canvases) if policy == "all" else None


def concluded(views: Sequence[View]) -> Answer:
    """What counts once nothing is left to ask."""
    if len(views) == 1:  # of one there is nothing to choose
        return Answer(views[0].whole, disagree=False)
    apart = differences(*(view.whole for view in views)) if len(views) == 3 else ()
    return Answer(_chosen(views, apart), _confused(apart))


def _chosen(views: Sequence[View], apart: Sequence[float]) -> Field:
    """The answer that counts, as an alpha of the whole photo. `apart`: see `amounts.differences`; none where not three."""
    sure = [view.amounts.uncertain for view in views]
    area = [view.amounts.coverage for view in views]
    if area[0] < NOTHING_BELOW:
        # Nothing was found at first: what a closer look saw must be certain, or it is noise.
        found = [i for i in range(1, len(views)) if area[i] > 0 and sure[i] <= UNCERTAIN_ABOVE]
        return views[max(found, key=area.__getitem__, default=0)].whole
    heard = _heard(apart) if apart else range(len(views))
    surest = min(sure[i] for i in heard)
    kept = [i for i in heard if sure[i] <= _ALIKE_SURE * surest]
    largest = max(area[i] for i in kept)
    best = min((i for i in kept if area[i] >= _ALIKE_LARGE * largest), key=sure.__getitem__)
    return _mended([view.whole for view in views], best, apart) if apart else views[best].whole


def _confused(apart: Sequence[float]) -> bool:
    """Did the engine say something else at each of three sizes?"""
    return len(apart) == 3 and min(apart) > _CONFUSED


def _between(apart: Sequence[float], i: int, j: int) -> float:
    """Of the first and the second, the first and the third, the second and the third answer."""
    return apart[i + j - 1]


def _mended(wholes: Sequence[Field], best: int, apart: Sequence[float]) -> Field:
    """The best of three, but where the others say that a whole patch of it is wrong, what they say.

    Somebody they both see is taken over wherever it is: what an engine misses is far more often at
    fault than what it adds. What they both miss goes only if they agree about all of the photo.
    Where no two of the three agree about the photo, each of them misses something, and what one alone
    sees counts, unless it is fog. A patch, not a strand: what only the finest answer sees of hair is why
    it was chosen.
    """
    i, j = (other for other in range(3) if other != best)
    height, width = wholes[best].shape
    result = mended(
        np.ascontiguousarray(wholes[best]),
        resized(wholes[i], (width, height)),
        resized(wholes[j], (width, height)),
        _confused(apart),
        _between(apart, i, j) <= _DISAGREE,
        np.float32(_CONTRADICTS),
        UNCERTAIN_ABOVE,
        side_of(_PATCH, height, width),
    )
    return result if result.size else wholes[best]


def _heard(apart: Sequence[float]) -> Sequence[int]:
    """Of three answers all, or those two which agree and which the third contradicts."""
    for i in range(3):
        j, k = (other for other in range(3) if other != i)
        if min(_between(apart, i, j), _between(apart, i, k)) > _DISAGREE >= _between(apart, j, k):
            return j, k
    return range(3)


def _differ(one: Field, other: Field) -> bool:
    """Are two answers apart, by their areas or by a whole patch (an arm, a face)?"""
    return differ(one, other, by=_DISAGREE, contradicts=_CONTRADICTS, patch=_PATCH)


def _pasted(alpha: Field, look: Look) -> Field:
    (width, height), box = look.canvas, look.box
    if look.size == (width, height):
        return alpha
    scale = min(1.0, _LARGEST / min(width, height))
    whole = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), np.float32)
    left, top, right, bottom = (round(side * scale) for side in box)
    inside = whole[top : max(top + 1, bottom), left : max(left + 1, right)]
    inside[:] = alpha if inside.shape == alpha.shape else resized(alpha, (inside.shape[1], inside.shape[0]))
    return whole


def _tiny(first: Amounts) -> Fractions | None:
    """The box around a subject that is small in the picture, or around a hint of one."""
    box = first.faint if first.coverage >= NOTHING_BELOW else first.half
    if box is None or (box[2] - box[0]) * (box[3] - box[1]) > _TINY:
        return None
    return box


def _beside(first: Amounts) -> bool:
    """Is there room for somebody who was missed, beside the subject or where nothing was seen?"""
    box = first.faint
    return box is None or max(box[0], 1 - box[2]) > _BESIDE


def _closer(box: Fractions, canvases: Canvases) -> Look:
    """The box with room around it, at the size the model usually sees whole photos at."""
    (wide, high), (width, height) = canvases.photo, canvases.usual
    most = _ENLARGED * max(1.0, min(width, height) / min(wide, high))
    room = _ROOM_TINY * max((box[2] - box[0]) * wide, (box[3] - box[1]) * high)
    box = box[0] - room / wide, box[1] - room / high, box[2] + room / wide, box[3] + room / high
    across, down = min(1.0, box[2]) - max(0.0, box[0]), min(1.0, box[3]) - max(0.0, box[1])
    if canvases.few:
        scale = min(width / (across * wide), height / (down * high), most)
        canvas = max(width, round(wide * scale)), max(height, round(high * scale))
        return Look(canvas, _around(box, canvas, canvases.usual))
    scale = min(min(width, height) / min(across * wide, down * high), most)
    canvas = round(wide * scale), round(high * scale)
    return _look(box, canvas, canvases)


def _around(box: Fractions, canvas: Size, size: Size) -> Box:
    """A box of `size` in a `canvas` that is no smaller, with `box` in its middle where there is room."""
    left, top = (
        min(
            max(0, round((box[axis] + box[axis + 2]) / 2 * canvas[axis] - size[axis] / 2)),
            canvas[axis] - size[axis],
        )
        for axis in (0, 1)
    )
    return left, top, left + size[0], top + size[1]


def _larger(first: Amounts, canvases: Canvases) -> Look | None:
    """The subject at the larger size; what lies beside it costs time and adds only doubt."""
    box = first.faint
    if box is None or canvases.larger is None:
        return None
    box = box[0] - _ROOM, box[1] - _ROOM, box[2] + _ROOM, box[3] + _ROOM
    return _look(box, canvases.larger, canvases)


def _smaller(views: Sequence[View], canvases: Canvases) -> Look | None:
    """Where any of `views` saw somebody, at the smaller size: who decides between two need not see the sky.

    The first of them saw all of the photo, and whoever it missed it missed at a size that sees more than this one.
    """
    if canvases.smaller is None:
        return None
    boxes = [view.amounts.faint for view in views if view.amounts.faint is not None]
    if not boxes:
        return Look.whole(canvases.smaller)
    left, top = (min(box[side] for box in boxes) - _ROOM for side in (0, 1))
    right, bottom = (max(box[side] for box in boxes) + _ROOM for side in (2, 3))
    return _look((left, top, right, bottom), canvases.smaller, canvases)


def _spared(canvases: Canvases, *, very_unsure: bool) -> Canvases:
    """With less of a smaller canvas, and, where `very_unsure`, of a larger one, but not less of that than the usual one."""
    multiple = canvases.multiple

    def share(canvas: Size | None, part: float, least: Size) -> Size | None:
        if canvas is None:
            return None
        width, height = (
            max(side, round(part * long / multiple) * multiple)
            for long, side in zip(canvas, least, strict=True)
        )
        return width, height

    smaller = share(canvases.smaller, _WITNESS, (multiple, multiple))
    larger = share(canvases.larger, _SPARED, canvases.usual) if very_unsure else canvases.larger
    return replace(canvases, smaller=smaller, larger=larger)


def _look(box: Fractions, canvas: Size, canvases: Canvases) -> Look:
    left, right = _span(box[0], box[2], canvas[0], canvases)
    top, bottom = _span(box[1], box[3], canvas[1], canvases)
    return Look(canvas, (left, top, right, bottom))


def _span(low: float, high: float, length: int, canvases: Canvases) -> tuple[int, int]:
    """From `low` to `high` (shares of `length`), a multiple of pixels wide; all of it where none fits."""
    multiple = canvases.multiple
    step = math.ceil(length / _PARTS / multiple) * multiple if canvases.few else multiple
    start, end = max(0.0, low) * length, min(1.0, high) * length
    wanted = max(1, math.ceil((end - start) / step)) * step
    if wanted >= length:
        return 0, length - length % multiple if length >= multiple else length
    left = min(max(0, round((start + end - wanted) / 2)), length - wanted)
    return left, left + wanted
