"""What a JPEG XL codestream says about its colours: sRGB, where the library that wrote it says linear light. Pure.

After ISO/IEC 18181-1, annexes D and E. Both curves take as many bits to name, so nothing moves.
"""

from __future__ import annotations

from watcher.pipeline.boxes import boxes
from watcher.pipeline.jxl import CODESTREAM, Bits, size_in

_LINEAR, _SRGB = 8, 13
_GREY, _CUSTOM = 1, 2
# Enough for every header that has no profile and no names.
_ENOUGH = 128
_ENUM = ((0, 0), (1, 0), (2, 4), (18, 6))


def as_srgb(content: bytes) -> bytes:
    """A JPEG XL with the curve of sRGB in the place of none. Raises ValueError for a header not seen before."""
    start = 0 if content.startswith(CODESTREAM) else _codestream_at(content)
    return content[:start] + _as_srgb(content[start:])


def _codestream_at(content: bytes) -> int:
    found = next((start for kind, start, _ in boxes(content) if kind == b"jxlc"), None)
    if found is None:
        raise ValueError("no JPEG XL codestream in one piece")
    return found


def _as_srgb(codestream: bytes) -> bytes:
    bits = Bits(codestream[2:_ENOUGH])
    size_in(bits)
    if bits.take(1):  # all is default: 8 bits of sRGB
        return codestream
    if bits.take(1):
        raise ValueError("an orientation, a preview or an animation")
    _skip_depth(bits)
    bits.take(1)
    for _ in range(_number(bits, ((0, 0), (1, 0), (2, 4), (1, 12)))):
        _skip_channel(bits)
    bits.take(1)  # XYB or not
    if bits.take(1):  # sRGB
        return codestream
    if bits.take(1):
        raise ValueError("a profile")
    space, white = _number(bits, _ENUM), _number(bits, _ENUM)
    primaries = 1 if space == _GREY else _number(bits, _ENUM)
    if space > _GREY or _CUSTOM in (white, primaries) or bits.take(1):
        raise ValueError("colours other than grey or RGB")
    curve = _number(bits, _ENUM)
    if curve == _SRGB:
        return codestream
    if curve != _LINEAR:
        raise ValueError(f"the curve {curve}")
    start = 16 + bits.taken - 4  # of the four bits that hold the curve less 2
    head = int.from_bytes(codestream[:_ENOUGH], "little")
    head ^= ((_LINEAR - 2) ^ (_SRGB - 2)) << start
    return head.to_bytes(len(codestream[:_ENOUGH]), "little") + codestream[_ENOUGH:]


def _number(bits: Bits, ways: tuple[tuple[int, int], ...]) -> int:
    """A U32 of clause B.2.2: two bits say which of four (least, further bits)."""
    least, further = ways[bits.take(2)]
    return least + bits.take(further)


def _skip_depth(bits: Bits) -> None:
    if bits.take(1):
        raise ValueError("floating point")
    _number(bits, ((8, 0), (10, 0), (12, 0), (1, 6)))


def _skip_channel(bits: Bits) -> None:
    if bits.take(1):  # 8 bits of straight alpha
        return
    if _number(bits, _ENUM) != 0:
        raise ValueError("a channel that is no alpha")
    _skip_depth(bits)
    _number(bits, ((0, 0), (3, 0), (4, 0), (1, 3)))
    if _number(bits, ((0, 0), (0, 4), (16, 5), (48, 10))):
        raise ValueError("a channel with a name")
    bits.take(1)
