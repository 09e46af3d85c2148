"""The rule by which an ONNX graph finds the place of a pixel when it resizes. For engines; Python 3.7 syntax.

PyTorch's exporter writes `pytorch_half_pixel`, for which ONNX Runtime has no kernel in the layout of its fastest
convolutions: every tensor is brought back before, and there again after. For `half_pixel` it has one. The two are the
same but where a side shrinks to a single pixel: there PyTorch takes the first pixel, the other rule the middle.
"""

# In AttributeProto of onnx.proto, as protocol buffers encode it: the value (field 4), and, in as many bytes, the
# other value with a comment (field 13). Nothing around them changes its length.
BY_PYTORCH = b"\x22\x12pytorch_half_pixel"
PLAIN = b"\x22\x0ahalf_pixel" + b"\x6a\x06" + 6 * b" "


def plainly(path: str) -> bytes:
    """The graph in the file at `path`, but that it resizes by the plain rule."""
    with open(path, "rb") as file:
        return file.read().replace(BY_PYTORCH, PLAIN)
