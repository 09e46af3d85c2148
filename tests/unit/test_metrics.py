"""The measures against a second implementation, written from the paper with loops and no library."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from watcher.metrics import scores, unknown_band

LEVELS = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.32, 0.5, 0.75, 0.9, 1.0])
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


# --- The second implementation ----------------------------------------------------------------


def slow_gradient(alpha):
    sigma, cut = 1.4, 1e-2
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * cut)))

    def gauss(x):
        return math.exp(-x * x / (2 * sigma * sigma)) / (sigma * math.sqrt(2 * math.pi))

    span = range(-half, half + 1)
    weights = {(y, x): gauss(y) * -x * gauss(x) / sigma**2 for y in span for x in span}
    norm = math.sqrt(sum(w * w for w in weights.values()))
    height, width = alpha.shape
    out = np.zeros(alpha.shape)
    for row in range(height):
        for column in range(width):
            gx = gy = 0.0
            for (y, x), w in weights.items():
                at = alpha[min(max(row + y, 0), height - 1), min(max(column + x, 0), width - 1)]
                turned = alpha[min(max(row + x, 0), height - 1), min(max(column + y, 0), width - 1)]
                gx += w / norm * at
                gy += w / norm * turned
            out[row, column] = math.sqrt(gx * gx + gy * gy)
    return out


def slow_parts(mask):
    """The connected parts of a mask, 4 neighbours, in the order of their first pixel by rows."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    parts = []
    for start in sorted(left):
        if start not in left:
            continue
        part, queue = set(), deque([start])
        left.discard(start)
        while queue:
            y, x = queue.popleft()
            part.add((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.discard(near)
                    queue.append(near)
        parts.append(part)
    return parts


def slow_connectivity(predicted, truth):
    """None where two parts are equally large: the paper does not say which one counts."""
    levels = {}
    for step in range(1, 11):
        threshold = step / 10
        parts = slow_parts((predicted >= threshold - 1e-6) & (truth >= threshold - 1e-6))
        sizes = sorted((len(part) for part in parts), reverse=True)
        if len(sizes) > 1 and sizes[0] == sizes[1]:
            return None
        largest = max(parts, key=len, default=set())
        for place in np.ndindex(truth.shape):
            if place not in levels and place not in largest:
                levels[place] = (step - 1) / 10
    total = 0.0
    for place in np.ndindex(truth.shape):
        level = levels.get(place, 1.0)
        phi = []
        for matte in (predicted, truth):
            distance = float(matte[place]) - level
            phi.append(1 - (distance if distance >= 0.15 else 0.0))
        total += abs(phi[0] - phi[1])
    return total / 1000


# --- Tests ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.data())
def test_every_measure_agrees_with_the_second_implementation(data):
    shape = data.draw(SHAPES)
    predicted, truth = (data.draw(arrays(np.float32, shape, elements=LEVELS)) for _ in range(2))
    found = scores(predicted, truth)
    pairs = [(float(p), float(t)) for p, t in zip(predicted.ravel(), truth.ravel(), strict=True)]
    absolute = sum(abs(p - t) for p, t in pairs)
    assert found.sad == pytest.approx(absolute / 1000)
    assert found.mad == pytest.approx(absolute / len(pairs))
    assert found.mse == pytest.approx(sum((p - t) ** 2 for p, t in pairs) / len(pairs))
    gradient = ((slow_gradient(predicted) - slow_gradient(truth)) ** 2).sum() / 1000
    # OpenCV holds the filter in single precision.
    assert found.grad == pytest.approx(gradient, rel=1e-5, abs=1e-9)
    connectivity = slow_connectivity(predicted, truth)
    # A distance that lies on the tolerance may fall to either side by rounding.
    if connectivity is not None:
        assert found.conn == pytest.approx(connectivity, abs=2e-4)


def test_the_truth_itself_is_perfect():
    truth = np.random.default_rng(1).random((20, 30), np.float32)
    found = scores(truth, truth)
    assert (found.sad, found.mad, found.mse, found.grad, found.conn) == (0, 0, 0, 0, 0)


def test_only_the_region_counts():
    truth = np.zeros((10, 10), np.float32)
    predicted = truth.copy()
    predicted[0, 0] = 1.0
    region = np.zeros((10, 10), bool)
    region[5:] = True
    assert scores(predicted, truth, region).sad == 0
    assert scores(predicted, truth, ~region).pixels == 50
    assert scores(predicted, truth, ~region).sad == pytest.approx(0.001)


def test_a_detached_piece_costs_connectivity_where_a_soft_edge_costs_none():
    truth = np.zeros((40, 40), np.float32)
    truth[5:35, 5:20] = 1.0
    piece, edge = truth.copy(), truth.copy()
    piece[10:20, 30:35] = 1.0
    edge[5:35, 20] = 0.1
    assert scores(piece, truth).conn == pytest.approx(0.05)
    assert scores(edge, truth).conn == 0


def test_the_band_is_the_edge_and_its_surroundings():
    truth = np.zeros((100, 100), np.float32)
    truth[:, 50:] = 1.0
    band = unknown_band(truth, width=5)
    assert band[:, 45:55].all()
    assert not band[:, :45].any()
    assert not band[:, 55:].any()
    assert not unknown_band(np.ones((9, 9), np.float32)).any()


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ValueError, match="3 x 2 against 2 x 3"):
        scores(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="empty"):
        scores(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), np.zeros((2, 2), bool))
