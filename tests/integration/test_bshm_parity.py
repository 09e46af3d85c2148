"""One set of weights, three runtimes, one alpha: TensorFlow 1.15.5, TensorFlow 2 and ONNX Runtime."""

from __future__ import annotations

import functools
import subprocess

import numpy as np
import pytest
from bshm import environments
from bshm.runtimes import GRAPH, RUNTIMES, card_and_weights

from watcher.engine import parity

pytestmark = [pytest.mark.bshm, pytest.mark.slow, pytest.mark.timeout(900)]

# (width, height); odd ones among them, up to a frame of 4K video.
NINE = (
    (1, 1),
    (3, 2),
    (31, 33),
    (64, 64),
    (320, 240),
    (641, 479),
    (853, 1279),
    (1920, 1080),
    (3840, 2160),
)


@functools.cache
def alphas(runtime):
    """All nine by one worker. In levels: 254 is opaque."""
    card, weights = card_and_weights(runtime)
    return tuple(parity.alphas(card, weights, NINE))


@pytest.mark.parametrize("index", range(len(NINE)), ids=lambda index: "{}x{}".format(*NINE[index]))
@pytest.mark.parametrize("runtime", RUNTIMES[1:])
def test_every_runtime_gives_the_alpha_of_tensorflow_1(runtime, index):
    reference, other = alphas("bshm-tf1")[index], alphas(runtime)[index]
    width, height = NINE[index]
    assert reference.shape == other.shape == (height, width)
    # One level is 1/255 of what the graph gives before 254 is made 1.0.
    assert np.abs(reference.astype(int) - other.astype(int)).max() <= 1


def test_the_comparison_would_see_a_difference():
    """Pictures with everything in them: empty, solid and soft, and another picture is another alpha."""
    large = alphas("bshm-tf1")[7]
    assert (large == 0).mean() > 0.1
    assert (large == 254).any()
    assert ((large > 20) & (large < 230)).mean() > 0.1
    assert parity.steps_apart(large, large[::-1]) > 100
    assert parity.steps_apart(np.uint8([[0]]), np.uint8([[255]])) == 255


def test_the_signature_graph_is_what_its_generator_writes(tmp_path):
    python = environments.demand(environments.tensorflow1)
    generator = environments.ROOT / "tests" / "bshm" / "signature.py"
    again = tmp_path / "again.pb"
    subprocess.run([python, generator, again], check=True, capture_output=True)
    assert again.read_bytes() == GRAPH.read_bytes()
