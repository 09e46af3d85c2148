"""How the names of photos end."""

from __future__ import annotations

# Camera RAW: what LibRaw reads of the makers there are.
RAW_ENDINGS = (
    *("cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "dng", "raf", "orf", "rw2", "rwl", "pef"),
    *("srw", "3fr", "fff", "iiq", "mrw", "x3f", "erf", "kdc", "dcr", "mos", "gpr"),
)
JPEG_ENDINGS = ("jpg", "jpeg", "jpe")
HEIF_ENDINGS = ("heic", "heif", "hif")
ENDINGS = (
    *JPEG_ENDINGS,
    *("png", "tif", "tiff", "webp", "bmp", "gif", *HEIF_ENDINGS, "avif", "jxl", "psd", "psb"),
    *("jp2", "j2k", "jpx", "ppm", "pgm", "pnm", "tga", "mpo"),
    "jfif",  # what Windows makes of a JPEG from a browser
    *RAW_ENDINGS,
)
IMAGES = tuple(f"*.{ending}" for ending in ENDINGS)
