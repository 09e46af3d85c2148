"""A model's own ceiling on a GPU: `python -m benchmarks.ceiling GRAPH HEIGHT WIDTH BATCH TIMES` prints ms an image.

The input lies on the GPU already and the alpha stays there: nothing is prepared, copied or checked.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

CUDA = "CUDAExecutionProvider"


def main(words: Sequence[str]) -> None:
    graph, (height, width, batch, times) = words[0], map(int, words[1:])
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(graph, options, providers=[CUDA, "CPUExecutionProvider"])
    if session.get_providers()[0] != CUDA:
        sys.exit("CUDA could not be started")
    pixels = np.random.default_rng(0).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
    bound = session.io_binding()
    bound.bind_ortvalue_input(
        session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(pixels, "cuda", 0)
    )
    bound.bind_output(session.get_outputs()[0].name, "cuda")
    spent = []
    for _ in range(times + 3):
        began = time.perf_counter()
        session.run_with_iobinding(bound)
        bound.synchronize_outputs()
        spent.append(time.perf_counter() - began)
    print(1000 * statistics.median(spent[3:]) / batch)


if __name__ == "__main__":
    main(sys.argv[1:])
