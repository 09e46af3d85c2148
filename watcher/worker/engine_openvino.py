"""OpenVINO: graphs with one float32 image input and one alpha, on CPUs. Python 3.7 syntax.

Options: `mean`, `std` (three numbers each, after division by 255), `output` ("alpha": the graph gives
0..1; "logits": a sigmoid is missing), `threads` (0: every core we may use), `precision` ("f32"; "bf16":
bfloat16 where the CPU has it). Input and output are the graph's first. It reads the ONNX file as it is: the same
weights as engine_onnx.py, and the same alpha but for rounding, which is rougher in bfloat16. Alpha is never
stretched to its own minimum and maximum: that turns nobody into somebody.
"""

import ctypes
import os
import sys

import numpy as np
import planes

# It reports to its maker when it is imported, and leaves a device id in the user's home. Photos are
# nobody's business, their sizes and models included. Without this package it has nothing to say.
sys.modules["openvino_telemetry"] = None

import openvino

# What OpenVINO says when memory is short; there is no exception class for it.
_TOO_BIG = ("bad_alloc", "bad allocation", "failed to allocate", "could not allocate", "out of memory")


class Session:
    """`compile_with` gives the same graph compiled for a number of threads; None: nobody may ask."""

    def __init__(self, compiled, options, precision, compile_with=None):
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._by_threads = {0: (self._compiled, self._request)}
        self._compile_with = compile_with
        self._single = compiled.input(0).get_partial_shape()[0] == openvino.Dimension(1)
        self._normal = planes.Normal(options)
        self._logits = options.get("output", "alpha") == "logits"
        self.about = {
            "engine": "openvino",
            "framework": "openvino " + openvino.__version__.partition("-")[0] + _told(precision),
            "device": "cpu",
        }

    def limit(self, threads):
        """From now on compute on so many threads; 0: on all there were at the start.

        A graph is compiled for a number of threads. That costs little but for the memory it computes in, which two
        of them cannot share: whoever is left gives it back.
        """
        if threads not in self._by_threads:
            self._by_threads[threads] = self._narrowed(threads) or self._by_threads[0]
        compiled, request = self._by_threads[threads]
        if compiled is not self._compiled:
            self._compiled.release_memory()
            _give_back()
            self._compiled, self._request = compiled, request

    def _narrowed(self, threads):
        """The graph for so many threads and its request, None where there is none."""
        try:
            compiled = self._compile_with(threads) if self._compile_with is not None else None
        except MemoryError:
            return None  # no photo is too large because of this
        return None if compiled is None else (compiled, compiled.create_infer_request())

    def infer(self, images):
        alphas = []
        for batch in planes.alike(images, single=self._single):
            alphas.extend(self._run(batch))
        return alphas

    def _run(self, images):
        asked = self._normal.planes(images)
        out = self._ask(asked)
        if out.size != asked.size // 3 or np.isnan(out).all():
            raise MemoryError("no answer: with one thread OpenVINO says no more of a failed allocation")
        out = out.reshape((len(images),) + images[0].shape[:2])
        return list(planes.sigmoid(out) if self._logits else out)

    def _ask(self, asked):
        # With one thread a failed allocation raises nothing (2026.4): the last answer would stay in place.
        self._request.get_output_tensor(0).data.fill(np.nan)
        try:
            # Shared: it is not copied on the way in, and is read before the next question.
            self._request.infer([asked], share_inputs=True)
        except Exception as error:
            if _is_shortage(error):
                raise MemoryError(str(error)) from error
            raise
        # Copied: the request writes its next answer to the same place.
        return self._request.get_output_tensor(0).data.copy()


def _give_back():
    """What was freed returns to the kernel, not only to the C library: it is a fifth of a worker."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has none
        trim(0)


def _is_shortage(error):
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _TOO_BIG)


def _told(precision):
    return "" if precision == "f32" else " " + precision


def _precision(core, options):
    """What is asked for, if this CPU has it."""
    wanted = options.get("precision", "f32")
    if wanted not in ("f32", "bf16"):
        raise RuntimeError("the card's option precision is f32 or bf16, not {!r}".format(wanted))
    if wanted == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        sys.stderr.write("precision bf16: this CPU has no bfloat16, computing in single precision\n")
        return "f32"
    return wanted


def _properties(threads, precision):
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Pinned threads could not make way for those that decode the next photo.
        "ENABLE_CPU_PINNING": False,
        # Said in any case: where a CPU has bfloat16 it would be used unasked, and edges differ from machine to machine.
        "INFERENCE_PRECISION_HINT": precision,
    }


def load(model, device, options):
    if device.startswith("cuda"):
        raise RuntimeError(
            "asked for a GPU, but OpenVINO computes on CPUs here: take the card of another engine"
        )
    if device == "auto":
        sys.stderr.write("device auto: no usable GPU, computing on the CPU\n")
    # Counted by affinity, not by what the machine has: containers and taskset are respected.
    most = int(options.get("threads", 0)) or len(os.sched_getaffinity(0))
    core = openvino.Core()
    precision = _precision(core, options)

    def compile_with(threads):
        try:
            return core.compile_model(core.read_model(model), "CPU", _properties(threads, precision))
        except Exception as error:
            if _is_shortage(error):
                raise MemoryError(str(error)) from error
            raise

    return Session(
        compile_with(most),
        options,
        precision,
        lambda threads: compile_with(threads) if threads < most else None,
    )
