"""ONNX Runtime: graphs with one image input and one alpha, in single or half precision. Python 3.7 syntax.

Options: `layout` ("nchw": batches of planes; "nhwc": batches of pictures; "hwc": one picture at a time, no
batch), `mean`, `std` (three numbers each, after division by 255), `scale` (what white is then, 1), `output`
("alpha": the graph gives 0..1; "logits": a sigmoid is missing; "rgba8": a picture of bytes whose alpha is
opaque at 254), `input_name`, `output_name` (unset: the graph's first), `states` (name: shape; inputs that
are fed zeros, what the memory of a film begins with), `downsample` (`input`, `long_side`: an input that is
told by how much to reduce the picture to that side), `threads` (0: every core we may use), `tensorrt`
(true: on a GPU by TensorRT; "fp16": in half precision, whatever the graph's), `sizes` (`least`, `usual` and
`most` as [height, width], and `batch`: what TensorRT prepares for; unset: the first picture's), `shapes` (on a GPU by
CUDA: for how many shapes of picture the worker stays prepared, 16), `blocking_sync` (true, as it is
unset: a worker sleeps while a GPU computes; false: it asks for the end, and keeps a core for it), `half_pixel`
(true: a graph in one file, of one size, that resizes by PyTorch's rule is computed by the plain one on a CPU, for
which there is a faster kernel; they differ only where a side shrinks to a single pixel).
Alpha is never stretched to its own minimum and maximum: that turns nobody into somebody.
"""

import collections
import os
import sys

import driver
import levels_onnx
import numpy as np
import opset
import planes
import resize
import shaped_onnx
import trt

# From 1.29 on it reports its use to its maker over the network unless told not to, and leaves a
# device id in the user's cache. Photos are nobody's business, their sizes and models included.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

CPU, CUDA = "CPUExecutionProvider", shaped_onnx.CUDA
# BSHM truncates 255 times a sigmoid: solid foreground is 254, never 255.
OPAQUE = 254.0
# Files larger than this are not read to have their graphs changed: what clips is made for phones, and what computes for longer
# has time to spare for its picture.
_CHANGED = 256 << 20
_shared = []  # whether sessions share an arena, once somebody has asked
# What ONNX Runtime and CUDA say when memory is short; there is no exception class for it.
_TOO_BIG = (
    "allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "cuda failure 2:",
    "alloc_failed",
)


# What a session says of an input, without keeping that session.
_Node = collections.namedtuple("_Node", "name type shape")


class Session:
    """`open_with` gives another session on the same graph for a number of threads; None: nobody may ask.

    `bounds` are the least, the usual and the largest shape that `session` takes, None: any. Others are for the one
    that `open_beyond` gives.
    """

    def __init__(self, session, options, open_with=None, bounds=None, open_beyond=None):
        self._session = session
        self._bounds = bounds
        self._open_beyond = open_beyond
        self._beyond = None
        self._by_threads = {0: session}
        self._open_with = open_with
        image = getattr(session, "image", options.get("input_name"))
        self._input = _named(session.get_inputs(), image, "input")
        self._output = _named(session.get_outputs(), options.get("output_name"), "output").name
        self._dtype = _dtype_of(self._input)
        self._states = _zeros(session.get_inputs(), options.get("states") or {})
        self._downsample = options.get("downsample")
        self._normal = planes.Normal(options)
        self._kind = options.get("output", "alpha")
        self._layout = options.get("layout", "nchw")
        self.about = {
            "engine": "onnx",
            "framework": "onnxruntime " + onnxruntime.__version__,
            "device": _device_of(session),
            "providers": session.get_providers(),
        }

    def limit(self, threads):
        """From now on compute on so many threads; 0: on all there were at the start.

        Each number has a session of its own, made when it is first asked for. They share the arena, and only one
        computes at a time, so that a second one costs little more than its weights.
        """
        usual = self._by_threads[0]
        if threads not in self._by_threads and self._open_with is not None:
            try:
                self._by_threads[threads] = self._open_with(threads) or usual
            except MemoryError:
                self._by_threads[threads] = usual  # no photo is too large because of this
        self._session = self._by_threads.get(threads, usual)

    def infer(self, images):
        if self._layout == "hwc":
            return [self._run([image])[0] for image in images]
        alphas = []
        for batch in planes.alike(images, single=self._input.shape[0] == 1):
            for part in shaped_onnx.parts(batch, getattr(self._session, "whole", 0)):
                alphas.extend(self._run(part))
        return alphas

    def _run(self, images):
        size = images[0].shape[:2]
        if self._input.name == levels_onnx.NAME:
            pixels = images[0][None] if len(images) == 1 else np.stack(images)
        elif self._layout == "nchw":
            pixels = self._normal.planes(images)
        else:
            pixels = self._normal.pictures(images)
        # Both come from bytes, so within range: beyond it runtimes differ, one saturates where another wraps.
        out = self._ask(pixels[0] if self._layout == "hwc" else pixels, size)
        return list(self._values(out).reshape((len(images),) + size))

    def _ask(self, pixels, size):
        feed = dict(self._states)
        feed[self._input.name] = pixels.astype(self._dtype, copy=False)
        if self._downsample:
            ratio = min(1.0, self._downsample["long_side"] / max(size))
            feed[self._downsample["input"]] = np.array([ratio], np.float32)
        try:
            (out,) = self._for(pixels.shape).run([self._output], feed)
        except Exception as error:
            if _is_shortage(error):
                raise MemoryError(str(error)) from error
            raise
        return out

    def _for(self, shape):
        """The session that takes pictures of this shape."""
        if trt.fits(shape, self._bounds):
            return self._session
        if self._beyond is None:
            self._beyond = self._open_beyond()
        return self._beyond

    def _values(self, out):
        """Alpha in 0..1 from what the graph gave."""
        if self._kind == "rgba8":
            return np.minimum(out[..., 3] / np.float32(OPAQUE), 1.0)
        # In half precision a sigmoid would have 11 bits, and overflow where single precision does not.
        out = out.astype(np.float32, copy=False)
        return planes.sigmoid(out) if self._kind == "logits" else out


def _named(nodes, name, what):
    """The node called `name`, or the first where none is asked for."""
    if name is None:
        return nodes[0]
    found = [node for node in nodes if node.name == name]
    if not found:
        there = ", ".join(node.name for node in nodes)
        raise RuntimeError("the graph has no {} called {} (there are: {})".format(what, name, there))
    return found[0]


def _dtype_of(node):
    return {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(node.type, np.float32)


def _zeros(nodes, shapes):
    """What the inputs of these names and shapes are fed, in the precision each wants."""
    return {name: np.zeros(shape, _dtype_of(_named(nodes, name, "input"))) for name, shape in shapes.items()}


def _is_shortage(error):
    said = str(error).lower()
    return any(words in said for words in _TOO_BIG)


def _device_of(session):
    first = session.get_providers()[0]
    if first not in (CUDA, trt.NAME):
        return "cpu"
    return "cuda:" + str(session.get_provider_options()[first].get("device_id", "0"))


def _providers(device):
    """What to ask for: CUDA first where it may be used, the CPU always (some operators have no other)."""
    if device == "cpu" or (device == "auto" and CUDA not in onnxruntime.get_available_providers()):
        return [CPU]
    return [(CUDA, {"device_id": _index(device), "arena_extend_strategy": "kSameAsRequested"}), CPU]


def _index(device):
    return device.partition(":")[2] or "0"


def _demand_cuda():
    if CUDA not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "asked for a GPU, but this onnxruntime {} has no CUDA: install onnxruntime-gpu".format(
                onnxruntime.__version__
            )
        )


def _demand_tensorrt():
    if trt.NAME not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "the card asks for TensorRT on a GPU, but this onnxruntime {} has none: install onnxruntime-gpu "
            "and TensorRT, or take `tensorrt` out of the card's options".format(onnxruntime.__version__)
        )


def _options(threads, providers):
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    # Waiting threads that spin take the cores that decode the next photo.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if providers == [CPU]:
        # Planned for one size of picture, memory is a block that no other size fits: looks of three sizes
        # took 985 MB of MODNet and not 578, and the kernel cleared pages anew for each.
        chosen.enable_mem_pattern = False
        if _share_arena():
            chosen.add_session_config_entry("session.use_env_allocators", "1")
    return chosen


def _share_arena():
    """One arena for all sessions of this process; False where this ONNX Runtime has no such thing."""
    if not _shared:
        _shared.append(hasattr(onnxruntime, "create_and_register_allocator"))
        if _shared[0]:
            place = onnxruntime.OrtMemoryInfo(
                "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
            )
            # As it is without: no upper bound, doubling extents. As much as is asked for took a third more.
            onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(0, 0, -1, -1))
    return _shared[0]


def _open(model, providers, threads, half_pixel=False):
    graph = resize.plainly(model) if half_pixel and providers == [CPU] else model
    try:
        return onnxruntime.InferenceSession(graph, _options(threads, providers), providers=providers)
    except Exception as error:
        if _is_shortage(error):
            raise MemoryError(str(error)) from error
        raise


def _compiled(model, device, options):
    """TensorRT as it is asked for, and the shapes of the picture it takes; None: all that the graph takes."""
    _demand_tensorrt()
    chosen = onnxruntime.SessionOptions()
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Only to be asked for its inputs, which are to be named before the session that computes is opened.
    nodes = onnxruntime.InferenceSession(model, chosen, providers=[CPU]).get_inputs()
    image = _named(nodes, options.get("input_name"), "input").name
    shapes = {}
    if options.get("sizes"):
        layout, states = options.get("layout", "nchw"), options.get("states") or {}
        shapes = trt.shapes_of(nodes, image, layout, options["sizes"], states)
    provider = trt.asked(_index(device), trt.wanted(options), trt.kept_in(model), shapes)
    return provider, shapes.get(image)


def _shaped(plain, model, providers, options, may_feed_levels):
    """`plain`, a session of CUDA, as sessions for one shape each."""
    inputs = plain.get_inputs()
    image = _named(inputs, options.get("input_name"), "input").name
    fed = None
    if may_feed_levels:
        fed = _inputs_fed_levels(_changed(model, options, image))
    (cuda, chosen), cpu = providers

    def open_fixed(sides, capture):
        settings = _options(1, providers)
        for name, length in sides.items():
            settings.add_free_dimension_override_by_name(name, length)
        asked = [(cuda, dict(chosen, enable_cuda_graph="1") if capture else chosen), cpu]
        # Read anew for each shape, which takes no time beside opening it: kept, it may be large.
        graph = _changed(model, options, image if fed else None)
        return onnxruntime.InferenceSession(graph, settings, providers=asked)

    return shaped_onnx.Shaped(
        plain,
        levels_onnx.NAME if fed else image,
        open_fixed,
        onnxruntime.OrtValue,
        _is_shortage,
        ("cuda", int(chosen["device_id"])),
        int((options.get("sizes") or {}).get("batch", 1)),
        int(options.get("shapes", shaped_onnx.MOST)),
        fed or inputs,
    )


def _changed(model, options, image):
    """The graph as CUDA computes it best, or the path of the file where nothing is to be changed in it.

    `image`: the input that is fed levels from now on, if that can be; None: none is.
    """
    if os.path.getsize(model) > _CHANGED:
        return model
    with open(model, "rb") as file:
        read = file.read()
    raised, fed = opset.raised(read), None
    if image is not None:
        normal, layout = planes.Normal(options), options.get("layout", "nchw")
        fed = levels_onnx.fed_levels(raised or read, image, layout, normal.scale, normal.shift)
    return fed or raised or model


def _inputs_fed_levels(graph):
    """What the inputs of `graph` are; None where none of them is fed levels, or where it is no graph any more."""
    if not isinstance(graph, bytes):
        return None
    chosen = onnxruntime.SessionOptions()
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen.add_session_config_entry("session.disable_prepacking", "1")
    try:
        found = onnxruntime.InferenceSession(graph, chosen, providers=[CPU]).get_inputs()
    except Exception as error:
        sys.stderr.write("pictures are made numbers of before the graph: {}\n".format(str(error)[:300]))
        return None
    nodes = [_Node(node.name, node.type, list(node.shape)) for node in found]
    return nodes if any(node.name == levels_onnx.NAME for node in nodes) else None


def load(model, device, options):
    if device.startswith("cuda"):
        _demand_cuda()
    usual = providers = _providers(device)
    if device == "auto" and providers == [CPU] and options.get("engine_cpu") == "mnn":
        # There is a GPU, or we would not have been asked, but this package has no CUDA.
        import engine_mnn

        return engine_mnn.load(model, device, options)
    bounds = None
    if trt.wanted(options) and len(providers) > 1:
        compiled, bounds = _compiled(model, device, options)
        providers = [compiled] + usual
    if len(providers) > 1 and hasattr(onnxruntime, "preload_dlls"):
        # CUDA and cuDNN from wheels lie where the loader does not look.
        onnxruntime.preload_dlls()
    sleeps = len(providers) > 1 and bool(options.get("blocking_sync", True))
    if sleeps:
        driver.wait_asleep(int(_index(device)))
    # Counted by affinity, not by what the machine has: containers and taskset are respected.
    most = int(options.get("threads", 0)) or len(os.sched_getaffinity(0))
    half_pixel = bool(options.get("half_pixel"))

    def open_with(threads):
        return _open(model, [CPU], threads, half_pixel) if threads < most else None

    def open_usual(may_feed_levels=False):
        plain = _open(model, usual, most, half_pixel)
        if _device_of(plain) == "cpu":
            return plain
        return _shaped(plain, model, usual, options, may_feed_levels)

    # What is beside TensorRT is fed what TensorRT is fed.
    opened = open_usual(may_feed_levels=True) if providers == usual else _open(model, providers, most)
    session = Session(
        opened,
        options,
        open_with if _device_of(opened) == "cpu" else None,
        bounds,
        open_usual,
    )
    used = session.about["device"]
    if isinstance(opened, shaped_onnx.Shaped):
        # Else the first inference would be prepared for a shape that no photo has.
        session.usual = (options.get("sizes") or {}).get("usual")
    if used != "cpu" and providers != usual and trt.NAME not in session.about["providers"]:
        # ONNX Runtime goes on without it, and says so on stdout only.
        raise RuntimeError(
            "the card asks for TensorRT, but its libraries could not be loaded: see the lines above; install "
            "TensorRT, or take `tensorrt` out of the card's options"
        )
    if options.get("blocking_sync") and used != "cpu" and not driver.waits_asleep(int(_index(device))):
        sys.stderr.write("blocking_sync: the driver does not let this worker sleep while the GPU computes\n")
    if device.startswith("cuda") and not used.startswith("cuda"):
        raise RuntimeError("asked for a GPU, but CUDA could not be started: see the lines above")
    if device == "auto" and used == "cpu":
        sys.stderr.write("device auto: no usable GPU, computing on the CPU\n")
    return session
