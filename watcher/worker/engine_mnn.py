"""MNN: graphs with one float32 image input (nchw) and one alpha, on CPUs. Python 3.7 syntax.

Options: `mean`, `std` (three numbers each, after division by 255), `output` ("alpha": the graph gives 0..1; "logits":
a sigmoid is missing), `input_name`, `output_name` (unset: the graph's first), `threads` (0: every core we may use).
It reads the ONNX file: the same weights as engine_onnx.py in the same single precision, and the same alpha but for
rounding (MODNet, 72 looks at 24 photos: 0.003 at most, 0.0000014 on average), since it convolves by Winograd's
minimal filtering (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016). Pictures are computed one
by one: a batch gains nothing on a CPU.

Its threads wait for each other by spinning, and once there are some in a process they spin whatever it computes. So
this engine cannot be told to use fewer for a while (see `about`): who wants that starts another worker.
"""

import contextlib
import ctypes
import os
import signal
import sys

import numpy as np
import planes
from shelf import Shelf

libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def _hushed():
    """What C++ prints meanwhile goes nowhere, unless there is an error: then to our log."""
    sys.stdout.flush()
    usual, said = os.dup(1), os.memfd_create("said")
    os.dup2(said, 1)
    try:
        yield
    except BaseException:
        _flush()
        os.lseek(said, 0, os.SEEK_SET)
        sys.stderr.write(os.read(said, 1 << 16).decode("utf-8", "replace"))
        raise
    finally:
        _flush()
        os.dup2(usual, 1)
        os.close(usual)
        os.close(said)


def _flush():
    """What C has not written yet."""
    libc.fflush(None)


# Of the package MNN only what computes: MNN.tools fetches another package when it is imported, and reports its use.
try:
    with _hushed():
        import MNN
        import MNN.expr
        import MNN.nn
    missing = None
except ImportError as error:
    missing = error


class Session:
    """`open_module` gives the graph anew, ready to compute."""

    def __init__(self, open_module, options):
        self._open_module = open_module
        self._module = open_module()
        self._normal = planes.Normal(options)
        self._logits = options.get("output", "alpha") == "logits"
        self.about = {
            "engine": "mnn",
            "framework": "mnn " + MNN.version(),
            "device": "cpu",
            "fixed_threads": True,
        }

    def infer(self, images):
        return [self._run(image) for image in images]

    def _run(self, image):
        asked = self._normal.planes([image])
        out = self._ask(asked).reshape(image.shape[:2])
        return planes.sigmoid(out) if self._logits else out

    def _ask(self, asked):
        if self._module is None:
            self._module = self._open_module()
        try:
            given = self._module.forward([MNN.expr.const(asked, list(asked.shape), MNN.expr.NCHW)])
            # Copied: the graph writes its next answer to the same place.
            out = np.array(MNN.expr.convert(given[0], MNN.expr.NCHW).read(), np.float32)
        except (SystemError, IndexError, RuntimeError, TypeError) as error:
            # All that is said of a failed allocation is nothing, and the graph is then fit for nothing.
            self._module = None
            raise MemoryError("MNN gave no answer: an allocation failed ({})".format(error)) from error
        if out.size != asked.size // 3:
            raise RuntimeError("the graph gave {} values for {} pixels".format(out.size, asked.size // 3))
        return out


def load(model, device, options):
    if device.startswith("cuda"):
        raise RuntimeError("asked for a GPU, but MNN computes on CPUs here: take the card of another engine")
    if missing is not None:
        import engine_onnx

        sys.stderr.write("without MNN this takes longer, by ONNX Runtime ({})\n".format(missing))
        return engine_onnx.load(model, "cpu", options)
    if options.get("layout", "nchw") != "nchw" or options.get("states") or options.get("downsample"):
        raise RuntimeError("MNN is only given batches of planes here: take engine_cpu out of the card")
    if device == "auto":
        sys.stderr.write("device auto: no usable GPU, computing on the CPU\n")
    # Counted by affinity, not by what the machine has: containers and taskset are respected.
    threads = int(options.get("threads", 0)) or len(os.sched_getaffinity(0))
    return Session(lambda: _opened(model, threads, options), options)


def _opened(model, threads, options):
    """The graph in the file at `model`, ready to compute."""
    with _hushed(), _converted(model, options.get("weights_sha256")) as path:
        return _module(path, threads, options.get("input_name"), options.get("output_name"))


@contextlib.contextmanager
def _converted(model, sha256):
    """A path to the graph in MNN's own format: as it was kept, or converted, which takes a third of a second."""
    shelf = Shelf(model, "mnn" + MNN.version(), sha256)
    with os.fdopen(os.memfd_create("graph"), "w+b") as file:
        path = "/proc/self/fd/{}".format(file.fileno())
        kept = shelf.take()
        if kept is not None:
            file.write(kept)
            file.flush()
        else:
            _convert(model, path)
            made = file.read()
            if not made:
                raise RuntimeError("MNN cannot read the graph in {}".format(model))
            shelf.put(made)
        yield path


def _convert(model, path):
    """In a process of its own, which takes the converter's 130 MB with it; whatever happens to it, `path` may be empty."""
    child = os.fork()
    if child == 0:
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            # What the command mnnconvert does, without MNN.tools.
            import _tools

            words = ["-f", "ONNX", "--modelFile", model, "--MNNModel", path, "--bizCode", "hotmatte"]
            _tools.mnnconvert(["mnnconvert"] + words)
        finally:
            _flush()
            os._exit(0)
    os.waitpid(child, 0)


def _module(path, threads, input_name, output_name):
    # "normal" is single precision on every CPU; "low" would take half of it where there is one.
    way = {"backend": "CPU", "numThread": threads, "precision": "normal"}
    runtime = MNN.nn.create_runtime_manager((way,))
    if input_name is None or output_name is None:
        # Without a runtime this would start threads of its own number, which then spin for good.
        about = MNN.nn.load_module_from_file(path, [], [], runtime_manager=runtime).get_info()
        input_name = input_name or about["inputNames"][0]
        output_name = output_name or about["outputNames"][0]
    try:
        return MNN.nn.load_module_from_file(path, [input_name], [output_name], runtime_manager=runtime)
    except SystemError as error:
        raise RuntimeError("MNN finds no {} and {} in the graph".format(input_name, output_name)) from error
