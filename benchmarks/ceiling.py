"""A model's own ceiling on a GPU: `python -m benchmarks.ceiling GRAPH HEIGHT WIDTH BATCH TIMES` prints ms an image.

The input lies on the GPU already and the alpha stays there: nothing is prepared, copied or checked. All sides are fixed and
what can be captured is, as by the engine.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from watcher.worker import opset
from watcher.worker.shaped_onnx import CUDA, sides_of

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # type: ignore[import-untyped]


def main(words: Sequence[str]) -> None:
    path, (height, width, batch, times) = Path(words[0]), map(int, words[1:])
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    graph = path.read_bytes()
    graph = opset.raised(graph) or graph
    shape = batch, 3, height, width
    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    try:
        spent = _spent(graph, pixels, times, {"enable_cuda_graph": "1"})
    except Exception as error:  # noqa: BLE001  (ONNX Runtime has no class of its own for it)
        print(f"not captured: {error}", file=sys.stderr)
        spent = _spent(graph, pixels, times, {})
    print(1000 * statistics.median(spent) / batch)


def _spent(graph: bytes, pixels: np.ndarray, times: int, asked: dict[str, str]) -> list[float]:
    """Seconds of each of `times` runs, after three to warm up."""
    plain = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).get_inputs()[0]
    options = onnxruntime.SessionOptions()
    for name, length in sides_of([plain], {plain.name: pixels}).items():
        options.add_free_dimension_override_by_name(name, length)
    session = onnxruntime.InferenceSession(graph, options, providers=[(CUDA, asked), "CPUExecutionProvider"])
    if session.get_providers()[0] != CUDA:
        sys.exit("CUDA could not be started")
    value, bound = onnxruntime.OrtValue, session.io_binding()
    bound.bind_ortvalue_input(plain.name, value.ortvalue_from_numpy(pixels, "cuda", 0))
    out = session.get_outputs()[0]
    bound.bind_ortvalue_output(out.name, value.ortvalue_from_shape_and_type(out.shape, np.float32, "cuda", 0))
    spent = []
    for _ in range(times + 3):
        began = time.perf_counter()
        session.run_with_iobinding(bound)
        spent.append(time.perf_counter() - began)
    return spent[3:]


if __name__ == "__main__":
    main(sys.argv[1:])
