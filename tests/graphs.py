"""Small ONNX graphs with the inputs and outputs of models whose weights are not at hand.

What they compute is known, so that a test can tell what an engine fed them: a map is the sigmoid
of the mean over the channels of the picture, unless said otherwise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def tensor(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _mean(picture, out, axis=1):
    return helper.make_node("ReduceMean", [picture], [out], axes=[axis], keepdims=1)


def _saved(path: Path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(v), name) for name, v in constants]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, path)
    return path


def one_map(
    path,
    *,
    image="input",
    shape=(1, 3, 320, 320),
    outputs=("output",),
    sigmoid=True,
    half=False,
    gain=1.0,
    step=1,
    shown=1.0,
):
    """`outputs`, all the same map. `sigmoid` False: logits, `gain` times the mean; `half`: in half precision.

    `step`: sides must be multiples of it. `shown`: the map is multiplied by it at the end.
    """
    layout = "nchw" if len(shape) == 4 and shape[1] == 3 else "nhwc" if len(shape) == 4 else "hwc"
    flat = list(shape)
    flat[{"nchw": 1, "nhwc": 3, "hwc": 2}[layout]] = 1
    nodes, last = [], image
    if step > 1:
        nodes.append(helper.make_node("SpaceToDepth", [last], ["deep"], blocksize=step))
        nodes.append(helper.make_node("DepthToSpace", ["deep"], ["back"], blocksize=step))
        last = "back"
    nodes.append(_mean(last, "mean", {"nchw": 1, "nhwc": 3, "hwc": 2}[layout]))
    nodes.append(helper.make_node("Mul", ["mean", "gain"], ["strong"]))
    nodes.append(helper.make_node("Sigmoid" if sigmoid else "Identity", ["strong"], ["map"]))
    nodes.append(helper.make_node("Mul", ["map", "shown"], ["full"]))
    for name in outputs:
        nodes.append(
            helper.make_node("Cast", ["full"], [name], to=HALF)
            if half
            else helper.make_node("Identity", ["full"], [name])
        )
    constants = [("gain", np.float32(gain)), ("shown", np.float32(shown))]
    out = [tensor(name, flat, HALF if half else FLOAT) for name in outputs]
    return _saved(path, nodes, [tensor(image, list(shape))], out, constants)


def halves(path):
    """A picture of 64x64 halved and doubled by PyTorch's rule, then the mean over its channels."""
    sizes = [("half", np.int64([1, 3, 32, 32])), ("whole", np.int64([1, 3, 64, 64]))]

    def resize(what, to, out):
        rule = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
        return helper.make_node("Resize", [what, "", "", to], [out], **rule)

    nodes = [resize("input", "half", "small"), resize("small", "whole", "large"), _mean("large", "output")]
    inputs, outputs = [tensor("input", [1, 3, 64, 64])], [tensor("output", [1, 1, 64, 64])]
    return _saved(path, nodes, inputs, outputs, sizes)


def film(path):
    """As RVM's: the picture, four states, by how much to reduce. `pha` is the mean of the picture times that
    ratio, plus every state: so it tells what it was given.
    """
    states = [f"r{n}i" for n in range(1, 5)]
    nodes = [
        _mean("src", "mean"),
        helper.make_node("Mul", ["mean", "downsample_ratio"], ["p0"]),
        *(helper.make_node("Add", [f"p{n}", state], [f"p{n + 1}"]) for n, state in enumerate(states)),
        helper.make_node("Identity", ["p4"], ["pha"]),
        helper.make_node("Identity", ["src"], ["fgr"]),
        *(helper.make_node("Identity", [state], [state.replace("i", "o")]) for state in states),
    ]
    inputs = [tensor("src", ["batch", 3, "height", "width"])]
    inputs += [tensor(state, ["b", "c" + state, "h" + state, "w" + state]) for state in states]
    inputs.append(tensor("downsample_ratio", [1]))
    outputs = [tensor("fgr", ["batch", 3, "height", "width"]), tensor("pha", ["batch", 1, "height", "width"])]
    outputs += [
        tensor(state.replace("i", "o"), ["b", "c" + state, "h" + state, "w" + state]) for state in states
    ]
    return _saved(path, nodes, inputs, outputs)


def endless(path):
    """Counts to 2^60 before it gives its map: what a hostile file may do."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_out"]),
            helper.make_node("Add", ["sum", "one"], ["sum_out"]),
        ],
        "body",
        [tensor("i", [], TensorProto.INT64), tensor("on", [], TensorProto.BOOL), tensor("sum", [])],
        [tensor("on_out", [], TensorProto.BOOL), tensor("sum_out", [])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    nodes = [
        helper.make_node("Loop", ["times", "go", "zero"], ["sum"], body=body),
        _mean("input", "mean"),
        helper.make_node("Add", ["mean", "sum"], ["output"]),
    ]
    constants = [("times", np.int64(2**60)), ("go", np.bool_(True)), ("zero", np.float32(0))]
    shape = [1, 3, 64, 64]
    return _saved(path, nodes, [tensor("input", shape)], [tensor("output", [1, 1, 64, 64])], constants)


def stranger(path):
    """Wants a number nobody can explain."""
    nodes = [_mean("input", "mean"), helper.make_node("Mul", ["mean", "temperature"], ["output"])]
    inputs = [tensor("input", [1, 3, 64, 64]), tensor("temperature", [])]
    return _saved(path, nodes, inputs, [tensor("output", [1, 1, 64, 64])])


def arithmetic(path, *steps):
    """The mean over the channels of a picture of any size, after each of `steps`: an operator, and a number or None."""
    nodes, constants, last = [_mean("input", "mean")], [], "mean"
    for place, (operator, number) in enumerate(steps):
        inputs, out = [last], f"v{place}"
        if number is not None:
            inputs.append(f"c{place}")
            constants.append((f"c{place}", np.float32(number)))
        extra = {"axes": [2, 3], "keepdims": 1} if operator == "ReduceMean" else {}
        nodes.append(helper.make_node(operator, inputs, [out], **extra))
        last = out
    # As large as the picture, whatever was summed up on the way.
    nodes += [
        helper.make_node("Mul", ["mean", "nothing"], ["empty"]),
        helper.make_node("Add", ["empty", last], ["output"]),
    ]
    constants.append(("nothing", np.float32(0)))
    size = ["batch", 3, "height", "width"]
    return _saved(
        path, nodes, [tensor("input", size)], [tensor("output", ["batch", 1, *size[2:]])], constants
    )
