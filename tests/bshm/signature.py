"""Writes a small frozen graph with BSHM's signature: `python signature.py TARGET.pb`. Python 3.7 syntax.

Same names, types and habits as `tf_graph.pb` of damo/cv_unet_image-matting, none of its weights: any
height and width, an inner size that is a multiple of 32, a coarse stage at an eighth of it, a refining
stage, a cast that truncates (so that opaque is 254), and colours that come back with the alpha.

tests/data/bshm_signature.pb was written by it under TensorFlow 1.15.5; a test compares the bytes.
"""

import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
# What a sigmoid calls certain is a little less than 1, and less than 255 after truncation.
CERTAIN = 0.9999


class Draw:
    """Weights from one seed. RandomState: its stream is frozen over all versions of numpy."""

    def __init__(self, seed):
        self._random = np.random.RandomState(seed)

    def kernel(self, size, inward, outward):
        spread = np.sqrt(2.0 / (size * size * inward))
        return (self._random.randn(size, size, inward, outward) * spread).astype(np.float32)

    def vector(self, count, centre, spread):
        return (centre + spread * self._random.randn(count)).astype(np.float32)


def conv(planes, kernel, stride=1):
    return tf.nn.conv2d(planes, kernel, strides=[1, stride, stride, 1], padding="SAME")


def block(planes, draw, outward, stride):
    """Convolution, batch normalisation as inference sees it, rectifier."""
    raw = conv(planes, draw.kernel(3, int(planes.shape[-1]), outward), stride)
    normal, _, _ = v1.nn.fused_batch_norm(
        raw,
        scale=draw.vector(outward, 1.0, 0.1),
        offset=draw.vector(outward, 0.1, 0.1),
        mean=draw.vector(outward, 0.0, 0.1),
        variance=np.ones(outward, np.float32),
        is_training=False,
    )
    return tf.nn.relu(normal)


def inner_sides(sides):
    """The nearest multiples of 32, at least one."""
    steps = tf.math.floor(tf.cast(sides, tf.float32) / 32.0 + 0.5)
    return tf.cast(tf.maximum(steps, 1.0), tf.int32) * 32


def coarse_logits(picture, draw):
    deep = picture
    for width in (8, 16, 16):
        deep = block(deep, draw, width, 2)
    head = draw.kernel(1, 16, 1)
    # As many for as against, and steep enough for solid inside and empty outside.
    return conv(deep, (head - head.mean()) * 24.0)


def refined(picture, logits, draw):
    mask = tf.sigmoid(logits)
    fine = block(tf.concat([picture, mask], axis=3), draw, 4, 1)
    return logits + conv(fine, draw.kernel(3, 4, 1))


def build():
    draw = Draw(2020)
    image = v1.placeholder(tf.float32, [None, None, 3], name="input_image")
    sides = tf.shape(image)[:2]
    inner = inner_sides(sides)
    batch = tf.expand_dims(image, 0)
    picture = v1.image.resize_bilinear(batch, inner) / 127.5 - 1.0
    logits = v1.image.resize_bilinear(coarse_logits(picture, draw), inner)
    alpha = tf.sigmoid(refined(picture, logits, draw)) * CERTAIN
    full = v1.image.resize_bilinear(alpha, sides)
    tf.reduce_any(logits > 0.0, name="if_person")
    out = tf.concat([batch, full * 255.0], axis=3)
    tf.cast(tf.squeeze(out, 0), tf.uint8, name="output_png")


def main(target):
    with tf.Graph().as_default() as graph:
        build()
    with open(target, "wb") as file:
        file.write(graph.as_graph_def().SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(sys.argv[1])
