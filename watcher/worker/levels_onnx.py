"""An ONNX graph that is fed the bytes of a picture and makes its numbers of them itself. For engines; Python 3.7 syntax.

A GPU has thousands of cores for it; NumPy on one takes longer for this than for all else in the way of a picture, and
makes four times as much to copy to the GPU. The steps are those of `planes.Normal`, in the same order and precision: the numbers
are the same to the last bit. Graphs are edited as what they are in a file, protocol buffers: nothing that ONNX Runtime
brings can do it, and its names and numbers are fixed for good (onnx.proto).
"""

import struct
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

# Array types of NumPy have no parameters under Python 3.7.
Array = Any
Buffer = Union[bytes, memoryview]

# What the pictures are called that such a graph is fed, HxWx3 uint8 (NxHxWx3 where it knows batches).
NAME = "hotmatte/levels"
# Of the values between; a graph in which they occur is none of a stranger's.
_MINE = b"hotmatte/"
# In TensorProto: the key `location` of `external_data`. Weights beside the file are only found from where it lies.
_BESIDE = b"\x0a\x08location"
# The layout to where its channels are, and the order of the sides of a picture that make the sides of the layout.
_CHANNELS = {"nchw": 1, "nhwc": 3, "hwc": 2}
_PLANES = (0, 3, 1, 2)
# As of 7 operators stretch what is smaller as NumPy does.
_OLDEST = 7

# How long the value of a field is: a number in so many bits, told by the number before it, eight bytes, four.
_NUMBER, _LONG, _TOLD, _SHORT = 0, 1, 2, 5
# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INPUT = 1, 11
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_KIND, _TENSOR_SHAPE, _SHAPE_SIDE = 1, 2, 1, 1, 2, 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS, _ATTRIBUTE_KIND = 1, 3, 5, 8, 20
_CONSTANT_SIDES, _CONSTANT_KIND, _CONSTANT_RAW = 1, 2, 9
# What an attribute is (AttributeProto.AttributeType), and a number of a tensor (TensorProto.DataType).
_INT, _TENSOR, _INTS = 2, 4, 7
_FLOAT, _UINT8, _FLOAT16 = 1, 2, 10


class _Field(NamedTuple):
    """One field of a message: its number, where it stands, and its value, which is a number or bytes."""

    number: int
    begin: int
    end: int
    value: Any


class _Image(NamedTuple):
    """The input that is the picture: where it stands in the graph, what its numbers are, its sides as they are written."""

    begin: int
    end: int
    kind: int
    sides: List[Buffer]


def fed_levels(file: bytes, name: str, layout: str, scale: Array, shift: Array) -> Optional[bytes]:
    """`file`, a graph of ONNX, with NAME in the place of its input `name`; None where it is not understood.

    Of `scale` and `shift` (see planes.Normal) there is one for each channel.
    """
    if _BESIDE in file or _MINE in file:
        return None
    whole = memoryview(file)  # what is left as it is may be large, and is copied once
    try:
        model = list(_fields(whole))
        graphs = [field for field in model if field.number == _MODEL_GRAPH]
        if len(graphs) != 1 or _version(model) < _OLDEST:
            return None
        graph = graphs[0].value
        image = _image(graph, name)
        if image is None or not _is_picture(image, layout):
            return None
    except (IndexError, TypeError, ValueError):
        return None  # no file of ONNX
    changed = [
        *(_told(_GRAPH_NODE, node) for node in _steps(name, layout, image.kind, scale, shift)),
        graph[: image.begin],
        _told(_GRAPH_INPUT, _pictures(image.sides, layout)),
        graph[image.end :],
    ]
    head = _head(_MODEL_GRAPH, sum(map(len, changed)))
    return b"".join([whole[: graphs[0].begin], head, *changed, whole[graphs[0].end :]])


# --- What is there ----------------------------------------------------------------------------


def _fields(message: Buffer) -> Iterator[_Field]:
    """Raises IndexError, TypeError or ValueError where `message` is none."""
    place = 0
    while place < len(message):
        begin = place
        key, place = _number(message, place)
        kind, value = key & 7, None  # type: int, Any
        if kind == _NUMBER:
            value, place = _number(message, place)
        else:
            if kind == _TOLD:
                length, place = _number(message, place)
            else:
                length = {_LONG: 8, _SHORT: 4}.get(kind, len(message))
            value, place = message[place : place + length], place + length
        if place > len(message):
            raise ValueError("a field ends after its message")
        yield _Field(key >> 3, begin, place, value)


def _number(message: Buffer, place: int) -> Tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, and where it ends. Raises IndexError, ValueError."""
    value = shift = 0
    while shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")


def _one(message: Buffer, number: int, otherwise: Any = b"") -> Any:
    """The value of the field `number`; the last one counts."""
    for field in _fields(message):
        if field.number == number:
            otherwise = field.value
    return otherwise


def _version(model: Sequence[_Field]) -> int:
    """Of the standard operators; 0: it says none."""
    for field in model:
        if field.number == _MODEL_OPSET and _one(field.value, _OPSET_DOMAIN) in (b"", b"ai.onnx"):
            return int(_one(field.value, _OPSET_VERSION, 0))
    return 0


def _image(graph: Buffer, name: str) -> Optional[_Image]:
    for field in _fields(graph):
        if field.number == _GRAPH_INPUT and _one(field.value, _VALUE_NAME) == name.encode():
            tensor = _one(_one(field.value, _VALUE_TYPE), _TYPE_TENSOR)
            shape = _one(tensor, _TENSOR_SHAPE)
            sides = [side.value for side in _fields(shape) if side.number == _SHAPE_SIDE]
            return _Image(field.begin, field.end, _one(tensor, _TENSOR_KIND, 0), sides)
    return None


def _is_picture(image: _Image, layout: str) -> bool:
    return image.kind in (_FLOAT, _FLOAT16) and len(image.sides) == (3 if layout == "hwc" else 4)


# --- What comes before ------------------------------------------------------------------------


def _steps(name: str, layout: str, kind: int, scale: Array, shift: Array) -> Iterator[bytes]:
    """Nodes from NAME to the input `name` of numbers of this `kind`. Bytes are moved before they are four times as many."""
    last, sides = NAME, [1] * (3 if layout == "hwc" else 4)
    sides[_CHANNELS[layout]] = 3
    if layout == "nchw":
        yield _node("Transpose", [last], _between("planes"), _ints("perm", _PLANES))
        last = _between("planes")
    yield _node("Cast", [last], _between("numbers"), _int("to", _FLOAT))
    yield _node("Constant", [], _between("scale"), _floats("value", sides, scale))
    yield _node("Constant", [], _between("shift"), _floats("value", sides, shift))
    yield _node("Mul", [_between("numbers"), _between("scale")], _between("scaled"))
    single = kind == _FLOAT
    yield _node("Add", [_between("scaled"), _between("shift")], name if single else _between("shifted"))
    if not single:
        yield _node("Cast", [_between("shifted")], name, _int("to", kind))


def _between(what: str) -> str:
    return _MINE.decode() + what


def _pictures(sides: Sequence[Buffer], layout: str) -> bytes:
    """NAME as an input, whose sides are called what they are called in the graph."""
    order = (0, 2, 3, 1) if layout == "nchw" else range(len(sides))
    shape = b"".join(_told(_SHAPE_SIDE, sides[place]) for place in order)
    tensor = _counted(_TENSOR_KIND, _UINT8) + _told(_TENSOR_SHAPE, shape)
    return _told(_VALUE_NAME, NAME.encode()) + _told(_VALUE_TYPE, _told(_TYPE_TENSOR, tensor))


def _node(operator: str, inputs: Sequence[str], output: str, attribute: bytes = b"") -> bytes:
    named = [_told(_NODE_INPUT, one.encode()) for one in inputs]
    named += [
        _told(_NODE_OUTPUT, output.encode()),
        _told(_NODE_NAME, _between("makes " + output).encode()),
        _told(_NODE_OPERATOR, operator.encode()),
    ]
    return b"".join(named) + (_told(_NODE_ATTRIBUTE, attribute) if attribute else b"")


def _int(name: str, value: int) -> bytes:
    return _attribute(name, _INT, _counted(_ATTRIBUTE_INT, value))


def _ints(name: str, values: Sequence[int]) -> bytes:
    return _attribute(name, _INTS, b"".join(_counted(_ATTRIBUTE_INTS, value) for value in values))


def _floats(name: str, sides: Sequence[int], values: Array) -> bytes:
    tensor = b"".join(_counted(_CONSTANT_SIDES, side) for side in sides)
    tensor += _counted(_CONSTANT_KIND, _FLOAT)
    tensor += _told(_CONSTANT_RAW, struct.pack("<{}f".format(len(values)), *values))
    return _attribute(name, _TENSOR, _told(_ATTRIBUTE_TENSOR, tensor))


def _attribute(name: str, kind: int, value: bytes) -> bytes:
    return _told(_ATTRIBUTE_NAME, name.encode()) + value + _counted(_ATTRIBUTE_KIND, kind)


def _told(number: int, value: Buffer) -> bytes:
    return b"".join([_head(number, len(value)), value])


def _head(number: int, length: int) -> bytes:
    return _varint(number << 3 | _TOLD) + _varint(length)


def _counted(number: int, value: int) -> bytes:
    return _varint(number << 3 | _NUMBER) + _varint(value)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)
