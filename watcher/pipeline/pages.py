"""What one photo took of memory is kept for the next. Knows the C library; nothing else does."""

from __future__ import annotations

import ctypes

# Arrays up to this size, and so much of the heap's free end: what refining 1080p takes beside the photo.
KEPT_BYTES = 32 << 20
KEPT_END_BYTES = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_pages() -> None:
    """Do not give pages back to the kernel that the next photo will ask for.

    To have them cleared and mapped anew costs as much as decoding a photo, and a sixth of refining it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_END_BYTES)
