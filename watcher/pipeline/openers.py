"""Pillow, set up for strangers' files, and what its and others' complaints mean. Opens no file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import cv2
from PIL import AvifImagePlugin, Image, ImageCms
from pillow_heif import register_heif_opener

from watcher.errors import InputNotReady, InputRejected
from watcher.pipeline import png

register_heif_opener(thumbnails=False)
# Our own limit comes first and is a setting; theirs would only warn.
Image.MAX_IMAGE_PIXELS = None
# Remarks about single tags of a stranger's file are no news for whoever runs the daemon.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
assert AvifImagePlugin.SUPPORTED, "this Pillow was built without AVIF"

# What decoders throw at a file they cannot make sense of.
Undecodable = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    cv2.error,
    ImageCms.PyCMSError,
)

# Which of Pillow's readers may see a file we took for this; never one that runs other programs.
READERS = {"JPEG": ("JPEG", "MPO")}


def opened(content: bytes, kind: str) -> Image.Image:
    """Pillow's view of `content`, header only. Raises one of `Undecodable`."""
    return Image.open(io.BytesIO(content), formats=READERS.get(kind, (kind,)))


def damaged(kind: str, error: BaseException) -> InputRejected | InputNotReady:
    """What a decoder's complaint means for the one who dropped the file."""
    words = str(error)
    if isinstance(error, png.Truncated) or any(
        sign in words.lower()
        for sign in (
            "truncated",
            "premature end of jpeg",
            "end of file",
            "end of the file",
            "incomplete",
            "eof",
        )
    ):
        return InputNotReady(f"the {kind} file is cut off: its end is missing")
    if "cannot identify" in words:
        words = "its header makes no sense, or it is of a rare kind"
    return InputRejected(f"the {kind} file is damaged or of a kind that cannot be read here ({words})")
