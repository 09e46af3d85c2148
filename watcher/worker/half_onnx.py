"""Makes an ONNX graph one in half precision, for `hotmatte models convert`. No engine: a program of its own.

    python half_onnx.py ORIGINAL HALF REHEARSAL

HALF takes and gives single precision as the original does, and computes in half. REHEARSAL computes in single
precision, and rounds to half whatever HALF keeps in half: its weights and what each operator gives. ONNX Runtime
has hardly a kernel for half precision on a CPU: there it computes HALF in single precision from end to end, and
only the weights are rounded. Sums inside an operator are in single precision in REHEARSAL, as they are in cuDNN.
"""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper, shape_inference

# Squares and sums over a whole picture leave the range of half precision (65504) long before alpha shows it.
# A norm that is one operator keeps them to itself. To these comes what the converter itself leaves alone.
WIDE = ["Pow", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"]


def halved(model):
    """`model` in half precision; it is used up."""
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    kept = float16.DEFAULT_OP_BLOCK_LIST + WIDE
    made = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=kept)
    _join_wide(made.graph)
    # The converter appends its casts at the end of the graph.
    sorter = OnnxModel(made)
    sorter.topological_sort()
    return sorter.model


def _join_wide(graph):
    """From one operator in single precision to the next no value goes through half precision."""
    narrowed = {node.output[0]: node.input[0] for node in graph.node if _casts_to(node, TensorProto.FLOAT16)}
    for node in graph.node:
        if _casts_to(node, TensorProto.FLOAT) and node.input[0] in narrowed:
            node.input[0] = narrowed[node.input[0]]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    unused = [node for node in graph.node if node.output[0] in narrowed and node.output[0] not in used]
    for node in unused:
        graph.node.remove(node)


def _casts_to(node, kind):
    return node.op_type == "Cast" and node.attribute[0].i == kind


def rehearsal(half):
    """What `half` computes, for a runtime that only computes in single precision."""
    wide = onnx.ModelProto.FromString(half.SerializeToString())
    _widen(wide.graph, shape_inference.infer_shapes(half).graph, {})
    return wide


def _widen(graph, inferred, outer):
    """Makes `graph` single precision with roundings. `inferred` is the same graph, with the kinds of its values;
    `outer` are those of the graphs around it.
    """
    kinds = dict(outer)
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        kinds[value.name] = value.type.tensor_type.elem_type
    nodes = []
    for node in graph.node:
        nodes += [node, *_rounded(node, kinds)]
    for node, same in zip(graph.node, inferred.node):
        for attribute, twin in zip(node.attribute, same.attribute):
            _widen_attribute(node, attribute, twin, kinds)
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    # Taken out, nodes are gone: what goes in are copies.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _rounded(node, kinds):
    """Nodes that round what `node` gives in half precision; it gives it by another name from now on."""
    added = []
    for place, name in enumerate(node.output):
        if not name or node.op_type == "Constant":
            continue
        if name not in kinds:
            raise SystemExit("nobody knows what {} {!r} gives".format(node.op_type, node.name))
        if kinds[name] == TensorProto.FLOAT16:
            exact, short = name + "/exact", name + "/half"
            node.output[place] = exact
            added.append(helper.make_node("Cast", [exact], [short], to=TensorProto.FLOAT16))
            added.append(helper.make_node("Cast", [short], [name], to=TensorProto.FLOAT))
    return added


def _widen_attribute(node, attribute, twin, kinds):
    if attribute.type == AttributeProto.TENSOR:
        _widen_tensor(attribute.t)
    elif attribute.type == AttributeProto.GRAPH:
        _widen(attribute.g, twin.g, kinds)
    elif _casts_to(node, TensorProto.FLOAT16):
        attribute.i = TensorProto.FLOAT


def _widen_tensor(tensor):
    if tensor.data_type == TensorProto.FLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _refuse_unless_single(model):
    """Raises SystemExit where there is nothing to make half of."""
    weights = list(model.graph.initializer)
    weights += [one.t for node in model.graph.node if node.op_type == "Constant" for one in node.attribute]
    if not any(tensor.data_type == TensorProto.FLOAT for tensor in weights):
        raise SystemExit("the graph has no weights in single precision: it may be in half precision already")


def main(original, half, twin):
    model = onnx.load(original)
    _refuse_unless_single(model)
    made = halved(model)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, half)
    onnx.save(rehearsal(made), twin)


if __name__ == "__main__":
    main(*sys.argv[1:])
