"""BSHM by its frozen graph: TensorFlow 1.15.5 (Python 3.7), or TensorFlow 2 by compat.v1. Python 3.7 syntax.

Options: `memory_fraction` (0..1, of the GPU's memory; unset: no limit), `allow_growth` (true: take GPU
memory as it is needed), `threads` (0: every core we may use). One image at a time, as the graph has no
batch. Only the alpha is taken: the colours that come back are off by one here and there.
"""

import collections
import os
import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
IMAGE, PNG = "input_image:0", "output_png:0"
# The graph truncates 255 times a sigmoid: solid foreground is 254, never 255.
OPAQUE = 254.0
# How TensorFlow and CUDA complain of memory where they raise no ResourceExhaustedError.
_TOO_BIG = ("out of memory", "out_of_memory", "failed to allocate", "dst tensor is not initialized")
_PREAMBLE = ("Graph execution error", "Detected at node", "Node: ")


class Session:
    def __init__(self, session):
        self._session = session
        self._dtype = session.graph.get_tensor_by_name(IMAGE).dtype.as_numpy_dtype
        self.about = {
            "engine": "bshm",
            "framework": "tensorflow " + tf.__version__,
            "device": "unknown",
        }

    def infer(self, images):
        return [self._alpha(image) for image in images]

    def _alpha(self, image):
        return np.minimum(self._run(image)[..., 3] / np.float32(OPAQUE), 1.0)

    def _run(self, image, **more):
        # Values out of range saturate in one runtime and wrap in another.
        pixels = image if image.dtype == np.uint8 else np.clip(image, 0, 255)
        try:
            return self._session.run(PNG, {IMAGE: pixels.astype(self._dtype)}, **more)
        except v1.errors.InvalidArgumentError as error:
            raise ValueError(_first_line(error)) from error
        except Exception as error:
            if _is_shortage(error):
                raise MemoryError(_first_line(error)) from error
            raise

    def placement(self):
        """How many nodes that compute (convolutions, where there are any) ran on which device.

        From the graph as it was cut up for a real run, which no profiler is needed for.
        """
        seen = v1.RunMetadata()
        options = v1.RunOptions(output_partition_graphs=True)
        self._run(np.zeros((32, 32, 3), np.uint8), options=options, run_metadata=seen)
        nodes = [node for part in seen.partition_graphs for node in part.node]
        heavy = [node for node in nodes if "Conv" in node.op]
        return collections.Counter(_short(node.device) for node in heavy or nodes)


def _first_line(error):
    """What happened, without where in the graph, which TensorFlow 2 says before and after."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_PREAMBLE)]
    return (telling or lines or [type(error).__name__])[0][:1000]


def _is_shortage(error):
    if isinstance(error, v1.errors.ResourceExhaustedError):
        return True
    said = str(error).lower()
    return any(words in said for words in _TOO_BIG)


def _short(device):
    """ "/job:localhost/replica:0/task:0/device:GPU:0" is "gpu:0"."""
    return device.rpartition("device:")[2].lower()


def _graph(model):
    """The frozen graph in `model`, free to run anywhere: devices noted at export are forgotten."""
    definition = v1.GraphDef()
    with open(model, "rb") as file:
        content = file.read()
    try:
        definition.ParseFromString(content)
        for node in definition.node:
            node.device = ""
        graph = tf.Graph()
        with graph.as_default():
            v1.import_graph_def(definition, name="")
        graph.get_tensor_by_name(IMAGE), graph.get_tensor_by_name(PNG)
    except Exception as error:
        raise RuntimeError(
            "{} is no frozen graph from {} to {}: {}".format(model, IMAGE, PNG, _first_line(error))
        ) from error
    return graph


def _config(device, options):
    threads = int(options.get("threads", 0)) or len(os.sched_getaffinity(0))
    config = v1.ConfigProto(
        # Some operators exist only for the CPU; where the rest ran is checked afterwards.
        allow_soft_placement=True,
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads,
    )
    config.gpu_options.allow_growth = bool(options.get("allow_growth", True))
    if options.get("memory_fraction") is not None:
        config.gpu_options.per_process_gpu_memory_fraction = float(options["memory_fraction"])
    if device == "cpu":
        config.device_count["GPU"] = 0
    elif ":" in device:
        config.gpu_options.visible_device_list = device.partition(":")[2]
    return config


def _has_gpu(session):
    return any(device.device_type == "GPU" for device in session.list_devices())


def _refuse(why):
    built = "with" if tf.test.is_built_with_cuda() else "without"
    raise RuntimeError(
        "asked for a GPU, but {} (TensorFlow {}, built {} CUDA; docs/bshm.md says which build suits "
        "which GPU)".format(why, tf.__version__, built)
    )


def _used(session, device):
    """The device that computes, in the daemon's words. Raises RuntimeError where a wish is not met."""
    placement = session.placement()
    busiest = placement.most_common(1)[0][0]
    if device.startswith("cuda") and any(not place.startswith("gpu") for place in placement):
        _refuse("TensorFlow computes on {}".format(", ".join(sorted(placement))))
    if not busiest.startswith("gpu"):
        return "cpu"
    # TensorFlow counts those GPUs that it may see; the first is the one that was chosen.
    return "cuda:" + (device.partition(":")[2] or busiest.partition(":")[2])


def load(model, device, options):
    if device == "cpu":
        # Before the first look at a driver that may be broken.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    graph = _graph(model)
    try:
        opened = v1.Session(graph=graph, config=_config(device, options))
    except Exception as error:
        if _is_shortage(error):
            raise MemoryError(_first_line(error)) from error
        raise
    if device.startswith("cuda") and not _has_gpu(opened):
        _refuse("TensorFlow finds none")
    session = Session(opened)
    session.about["device"] = _used(session, device)
    if device == "auto" and session.about["device"] == "cpu":
        sys.stderr.write("device auto: no usable GPU, computing on the CPU\n")
    return session
