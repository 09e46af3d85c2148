"""The version of ONNX's operators that a graph asks for. For engines; Python 3.7 syntax.

ONNX Runtime has a kernel of CUDA for Clip as of version 6 and as of version 12, none as of 11: each ReLU6 of such a graph goes
to the CPU and back, with all of its picture. The two versions mean the same by every operator but Dropout, which a
graph that only computes answers has no use for.
"""

WITHOUT, WITH = 11, 12
# Of ModelProto and OperatorSetIdProto in onnx.proto: field numbers, as protocol buffers write them before a value.
_OPSET_IMPORT, _DOMAIN, _VERSION = b"\x42", b"\x0a\x00", b"\x10"


def raised(graph):
    """`graph` (the bytes of a file) asking for version 12 where it asks for 11 and clips; None where it does not."""
    if b"Clip" not in graph or b"Dropout" in graph:
        return None
    for domain in (b"", _DOMAIN):
        old = _import(domain, WITHOUT)
        place = _place(graph, old)
        if place is not None:
            return graph[:place] + _import(domain, WITH) + graph[place + len(old) :]
    return None


def _import(domain, version):
    body = domain + _VERSION + bytes([version])
    return _OPSET_IMPORT + bytes([len(body)]) + body


def _place(graph, wanted):
    """Where `wanted` stands among the outermost fields of the message `graph`; None where it does not."""
    place = 0
    while place < len(graph):
        if graph.startswith(wanted, place):
            return place
        key, place = _number(graph, place)
        kind = key & 7
        if kind == 0:
            _, place = _number(graph, place)
        elif kind == 2:
            length, place = _number(graph, place)
            place += length
        else:
            return None  # ModelProto has no other kinds: this is no such file
    return None


def _number(data, place):
    """The number that begins at `place`, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
