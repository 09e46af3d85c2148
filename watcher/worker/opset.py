"""The version of ONNX's operators that a graph asks for. For engines; Python 3.7 syntax.

ONNX Runtime has a kernel of CUDA for Clip as of version 6 and as of version 12, none as of 11: each ReLU6 of such a graph goes
to the CPU and back, with all of its picture, and no CUDA graph can be made of it. The two versions mean the same by
every operator but Dropout, which a graph that only computes answers has no use for.
"""

from typing import Optional, Tuple

WITHOUT, WITH = 11, 12
# Of ModelProto and OperatorSetIdProto in onnx.proto: field numbers, as protocol buffers write them before a value.
_OPSET_IMPORT, _DOMAIN, _VERSION = b"\x42", b"\x0a\x00", b"\x10"
# In TensorProto: the key `location` of `external_data`.
_BESIDE = b"\x0a\x08location"
# How long what follows is: a number in so many bits, or told by the number before it.
_NUMBER, _TOLD = 0, 2


def raised(graph: bytes) -> Optional[bytes]:
    """`graph` (a file of ONNX) asking for version 12 where it asks for 11 and clips; None where it does not.

    Nor where its weights lie in a file beside it, which is only found from where it lies itself.
    """
    if b"Clip" not in graph or b"Dropout" in graph or _BESIDE in graph:
        return None
    for domain in (b"", _DOMAIN):
        old = _import(domain, WITHOUT)
        place = _place(graph, old)
        if place is not None:
            return graph[:place] + _import(domain, WITH) + graph[place + len(old) :]
    return None


def _import(domain: bytes, version: int) -> bytes:
    body = domain + _VERSION + bytes([version])
    return _OPSET_IMPORT + bytes([len(body)]) + body


def _place(graph: bytes, wanted: bytes) -> Optional[int]:
    """Where `wanted` stands among the outermost fields of the message `graph`; None where it does not."""
    place = 0
    while place < len(graph):
        if graph.startswith(wanted, place):
            return place
        key, place = _number(graph, place)
        if key & 7 not in (_NUMBER, _TOLD):
            return None  # ModelProto has no other kinds: this is no such file
        length, place = _number(graph, place)
        if key & 7 == _TOLD:
            place += length
    return None


def _number(data: bytes, place: int) -> Tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, and where it ends. Raises IndexError."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
