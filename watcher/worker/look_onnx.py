"""Looks at a stranger's ONNX graph, for `hotmatte models add`. Python 3.7 syntax.

Loaded by the worker like an engine, but computes no alpha for anybody: what it found is its `about`, as
`findings` (see `look`). The file is untrusted, so this process first gives up what it does not need:
it cannot write files, and its memory and its computing time are limited.
"""

import os
import resource

import numpy as np

# As in engine_onnx.py: no telemetry.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

MEMORY = 24 << 30
# Sizes that are tried where the graph leaves them open: each is so many more than a multiple of 64.
STEPS = (1, 2, 4, 8, 16, 32, 64)
BASE = (256, 320)
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Session:
    """What a worker wants of an engine: warmed up with one picture, to which it gives nothing."""

    def __init__(self, about):
        self.about = about

    def infer(self, images):
        return [np.zeros(image.shape[:2], np.float32) for image in images]


def load(model, device, options):
    confine(float(options.get("seconds", 120.0)))
    with open(model, "rb") as file:
        opset = opset_of(file)
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = int(options.get("threads", 0)) or len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
    findings = look(session, options)
    findings["opset"] = opset
    framework = "onnxruntime " + onnxruntime.__version__
    return Session({"engine": "look", "framework": framework, "device": "cpu", "findings": findings})


def confine(seconds):
    """No file grows, and neither does this process beyond reason."""
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_AS, MEMORY)
    _lower(resource.RLIMIT_CPU, int(seconds * len(os.sched_getaffinity(0))) + 1)


def _lower(what, value):
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


# --- The file ---------------------------------------------------------------------------------


def opset_of(file):
    """The version of the standard operators (ModelProto.opset_import), without reading the graph."""
    while True:
        key = _varint(file)
        if key is None:
            return None
        field, kind = key >> 3, key & 7
        if kind == 0:
            _varint(file)
        elif kind == 2 and field == 8:
            version = _default_domain(file.read(_varint(file) or 0))
            if version is not None:
                return version
        elif kind == 2:
            file.seek(_varint(file) or 0, os.SEEK_CUR)
        elif kind in (1, 5):
            file.seek(8 if kind == 1 else 4, os.SEEK_CUR)
        else:
            return None


def _default_domain(entry):
    """The version in an OperatorSetIdProto whose domain is empty; None for any other domain."""
    domain, version, at = b"", None, 0
    while at < len(entry):
        key, at = entry[at], at + 1
        value, at = _varint_in(entry, at)
        if key == 0x0A:
            domain, at = entry[at : at + value], at + value
        elif key == 0x10:
            version = value
        else:
            return None
    return version if domain in (b"", b"ai.onnx") else None


def _varint(file):
    value, shift = 0, 0
    while shift < 70:
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
        shift += 7
    return None


def _varint_in(entry, at):
    value, shift = 0, 0
    while at < len(entry):
        byte, at = entry[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return value, at


# --- The graph --------------------------------------------------------------------------------


def look(session, options):
    """What the graph is like, as JSON can hold it: `inputs` and `outputs` with name, type and shape;
    `image` (which input, `layout`, `size` [height, width] or None, `multiple`); `states` and `downsample`
    as the engine's options want them; `alphas`: the outputs that may be the alpha, each with the range of
    its values for a drawing of a person and the mean for plain grey; `problem`: why it is no use, or None.
    """
    found = {
        "inputs": [_described(node) for node in session.get_inputs()],
        "outputs": [_described(node) for node in session.get_outputs()],
        "problem": None,
        "alphas": [],
    }
    image, others = _image_among(session.get_inputs())
    if image is None:
        found["problem"] = "no input takes a picture: 1x3xHxW, 1xHxWx3 or HxWx3 of floating point"
        return found
    layout, size = _layout(image), _size(image)
    found["image"] = {"name": image.name, "layout": layout, "size": size, "multiple": 1}
    states, downsample, odd = _explained(others)
    found["states"], found["downsample"] = states, downsample
    if odd:
        found["problem"] = "nobody knows what its input {} wants".format(", ".join(odd))
        return found
    trial = Trial(session, image, layout, states, downsample, options)
    if size is None:
        found["image"]["multiple"] = trial.multiple()
    if found["image"]["multiple"] is None:
        found["problem"] = "it runs at none of the sizes that were tried: {}".format(trial.trouble)
        return found
    step = found["image"]["multiple"]
    found["alphas"] = trial.alphas(size or [BASE[0] + step, BASE[1] + step])
    if not found["alphas"]:
        found["problem"] = trial.trouble or "no output is of one channel and of the picture's size"
    return found


def _described(node):
    shape = [side if isinstance(side, int) else None for side in node.shape]
    return {"name": node.name, "type": node.type, "shape": shape}


def _image_among(nodes):
    image = next((node for node in nodes if node.type in FLOATS and _layout(node)), None)
    return image, [node for node in nodes if node is not image]


def _layout(node):
    shape = node.shape
    if len(shape) == 4 and shape[1] == 3:
        return "nchw"
    if len(shape) == 4 and shape[3] == 3:
        return "nhwc"
    if len(shape) == 3 and shape[2] == 3:
        return "hwc"
    # A film's graph names its first input after what it shows, and fixes nothing.
    return "nchw" if len(shape) == 4 and node.name in ("src", "image", "input", "img") else None


def _size(node):
    sides = {"nchw": node.shape[2:], "nhwc": node.shape[1:3], "hwc": node.shape[:2]}[_layout(node)]
    return list(sides) if all(isinstance(side, int) and side > 0 for side in sides) else None


def _explained(nodes):
    """(states, downsample, names of inputs that nobody can explain) of what is no image."""
    states, downsample, odd = {}, None, []
    for node in nodes:
        if node.type in FLOATS and len(node.shape) == 4:
            states[node.name] = [side if isinstance(side, int) and side > 0 else 1 for side in node.shape]
        elif node.type == "tensor(float)" and list(node.shape) == [1] and "ratio" in node.name.lower():
            downsample = {"input": node.name, "long_side": 512}
        else:
            odd.append(node.name)
    return states, downsample, odd


class Trial:
    """Runs the graph on small pictures. `trouble`: what it last said."""

    def __init__(self, session, image, layout, states, downsample, options):
        self._session, self._image, self._layout = session, image, layout
        self._mean = np.array(options.get("mean", [0.5] * 3), np.float32)
        self._std = np.array(options.get("std", [0.5] * 3), np.float32)
        types = {node.name: FLOATS.get(node.type) for node in session.get_inputs()}
        self._feed = {name: np.zeros(shape, types[name]) for name, shape in states.items()}
        if downsample:
            self._feed[downsample["input"]] = np.ones(1, np.float32)
        self.trouble = None

    def run(self, picture):
        """{output: array}, or None where the graph refuses the size."""
        values = (picture.astype(np.float32) / 255 - self._mean) / self._std
        if self._layout == "nchw":
            values = values.transpose(2, 0, 1)
        if self._layout != "hwc":
            values = values[None]
        names = [node.name for node in self._session.get_outputs()]
        feed = dict(self._feed)
        feed[self._image.name] = np.ascontiguousarray(values, FLOATS[self._image.type])
        try:
            return dict(zip(names, self._session.run(names, feed)))
        except Exception as error:
            self.trouble = str(error)[:300]
            return None

    def multiple(self):
        """The smallest step of sides at which an output has the picture's size; None where none has."""
        for step in STEPS:
            height, width = BASE[0] + step, BASE[1] + step
            outputs = self.run(drawing(height, width))
            if outputs is not None and any(_is_map(out, height, width) for out in outputs.values()):
                return step
        return None

    def alphas(self, size):
        """Each output that is one map of the picture's size, in the graph's order."""
        height, width = size
        grey, person = np.full((height, width, 3), 128, np.uint8), drawing(height, width)
        shown, plain = self.run(person), self.run(grey)
        if shown is None or plain is None:
            return []
        return [
            _measured(name, out, plain[name]) for name, out in shown.items() if _is_map(out, height, width)
        ]


def _is_map(out, height, width):
    return isinstance(out, np.ndarray) and out.dtype.kind == "f" and out.size == height * width


def _measured(name, shown, plain):
    both = [np.nan_to_num(out.astype(np.float64), nan=9e9, posinf=9e9, neginf=-9e9) for out in (shown, plain)]
    return {
        "name": name,
        "lowest": min(float(out.min()) for out in both),
        "highest": max(float(out.max()) for out in both),
        "plain": float(both[1].mean()),
        "shown": float(both[0].mean()),
    }


def drawing(height, width):
    """HxWx3: a head and shoulders before a sky that darkens to one side, with some grain."""
    y, x = np.mgrid[:height, :width].astype(np.float32) * 512 / np.array([height, width]).reshape(2, 1, 1)
    picture = np.stack([90 + x / 8, 130 + x / 10, 200 - y / 8], axis=2)
    picture[((x - 256) / 170) ** 2 + ((y - 520) / 220) ** 2 < 1] = (40, 40, 60)
    picture[((x - 256) / 75) ** 2 + ((y - 200) / 100) ** 2 < 1] = (224, 172, 140)
    picture += np.random.RandomState(1).normal(0, 4, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)
