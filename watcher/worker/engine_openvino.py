"""OpenVINO: graphs with one float32 image input and one alpha, on CPUs. Python 3.7 syntax.

Options: `mean`, `std` (three numbers each, after division by 255), `output` ("alpha": the graph gives
0..1; "logits": a sigmoid is missing), `threads` (0: every core we may use). Input and output are the
graph's first. It reads the ONNX file as it is: the same weights as engine_onnx.py, and the same alpha but
for rounding. Alpha is never stretched to its own minimum and maximum: that turns nobody into somebody.
"""

import os
import sys

import numpy as np

# It reports to its maker when it is imported, and leaves a device id in the user's home. Photos are
# nobody's business, their sizes and models included. Without this package it has nothing to say.
sys.modules["openvino_telemetry"] = None

import openvino

# What OpenVINO says when memory is short; there is no exception class for it.
_TOO_BIG = ("bad_alloc", "bad allocation", "failed to allocate", "could not allocate", "out of memory")


class Session:
    def __init__(self, compiled, options):
        self._request = compiled.create_infer_request()
        self._single = compiled.input(0).get_partial_shape()[0] == openvino.Dimension(1)
        # x/255 normalised in one multiplication and one addition.
        mean = np.array(options.get("mean", [0.0] * 3), np.float32)
        std = np.array(options.get("std", [1.0] * 3), np.float32)
        self._scale = (1.0 / (255.0 * std.astype(np.float64))).astype(np.float32)
        self._shift = (-mean / std).astype(np.float32)
        self._logits = options.get("output", "alpha") == "logits"
        self.about = {
            "engine": "openvino",
            "framework": "openvino " + openvino.__version__.partition("-")[0],
            "device": "cpu",
        }

    def infer(self, images):
        alphas = []
        for batch in _alike(images, single=self._single):
            alphas.extend(self._run(batch))
        return alphas

    def _run(self, images):
        pixels = np.stack(images)
        planes = np.empty((len(images), 3) + pixels.shape[1:3], np.float32)
        for channel in range(3):
            np.multiply(pixels[..., channel], self._scale[channel], out=planes[:, channel])
            planes[:, channel] += self._shift[channel]
        out = self._ask(planes)
        if out.size != planes.size // 3 or np.isnan(out).all():
            raise MemoryError("no answer: with one thread OpenVINO says no more of a failed allocation")
        out = out.reshape((len(images),) + pixels.shape[1:3])
        return list(_sigmoid(out) if self._logits else out)

    def _ask(self, planes):
        # With one thread a failed allocation raises nothing (2026.4): the last answer would stay in place.
        self._request.get_output_tensor(0).data.fill(np.nan)
        try:
            # Shared: it is not copied on the way in, and is read before the next question.
            self._request.infer([planes], share_inputs=True)
        except Exception as error:
            if _is_shortage(error):
                raise MemoryError(str(error)) from error
            raise
        # Copied: the request writes its next answer to the same place.
        return self._request.get_output_tensor(0).data.copy()


def _alike(images, single):
    """Neighbours of one shape together, in order; each alone where the graph takes only one."""
    groups = []
    for image in images:
        if groups and not single and groups[-1][0].shape == image.shape:
            groups[-1].append(image)
        else:
            groups.append([image])
    return groups


def _sigmoid(values):
    # exp of a large number overflows to infinity and gives 0, which is right.
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-values))


def _is_shortage(error):
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _TOO_BIG)


def _properties(options):
    return {
        # Counted by affinity, not by what the machine has: containers and taskset are respected.
        "INFERENCE_NUM_THREADS": int(options.get("threads", 0)) or len(os.sched_getaffinity(0)),
        "NUM_STREAMS": 1,
        # Pinned threads could not make way for those that decode the next photo.
        "ENABLE_CPU_PINNING": False,
        # Where a CPU has bfloat16 it would be used unasked: edges would differ from machine to machine.
        "INFERENCE_PRECISION_HINT": "f32",
    }


def load(model, device, options):
    if device.startswith("cuda"):
        raise RuntimeError(
            "asked for a GPU, but OpenVINO computes on CPUs here: take the card of another engine"
        )
    if device == "auto":
        sys.stderr.write("device auto: no usable GPU, computing on the CPU\n")
    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(model), "CPU", _properties(options))
    except Exception as error:
        if _is_shortage(error):
            raise MemoryError(str(error)) from error
        raise
    return Session(compiled, options)
