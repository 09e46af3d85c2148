"""The astronaut in every guise a camera, a program or bad luck may give her.

`python tests/data/make.py FOLDER` writes them all; tests take the bytes from `variants()`.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from PIL import Image, ImageCms

HERE = Path(__file__).parent
WIDTH, HEIGHT = 132, 176
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@functools.cache
def original() -> np.ndarray:
    """176x132x3 uint8 sRGB, upright; no symmetry that could hide a wrong turn."""
    with Image.open(HERE / "astronaut.png") as image:
        return np.asarray(image.convert("RGB").crop((40, 0, 304, 352)).resize((WIDTH, HEIGHT), Image.BOX))


@functools.cache
def opacity() -> np.ndarray:
    """176x132 uint8: a soft disc, 0 and 255 included."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - WIDTH / 2, y - HEIGHT / 2)
    return np.clip((60 - distance) * 16, 0, 255).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(image: np.ndarray, ending: str) -> bytes:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(ending, image)[1].tobytes()


def lying(orientation: int, image: np.ndarray | None = None) -> np.ndarray:
    """The pixels a camera stores so that `orientation` makes them upright."""
    image = original() if image is None else image
    stored = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.swapaxes(0, 1),
        6: np.rot90(image, 1),
        7: np.rot90(image, 2).swapaxes(0, 1),
        8: np.rot90(image, -1),
    }
    return np.ascontiguousarray(stored.get(orientation, image))


def exif(orientation: int, *, maker_note: bytes = b"", order: str = "<") -> bytes:
    """A TIFF block: Make, Orientation, and where wanted a maker note behind an absolute offset."""
    entries = [(0x010F, 2, 4, b"Cam\0"), (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    note_at = 8 + 2 + 12 * (3 if maker_note else 2) + 4
    if maker_note:
        entries.append((0x927C, 7, len(maker_note), struct.pack(order + "I", note_at)))
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return header + body + struct.pack(order + "I", 0) + maker_note


def profile(space: str, gamma: float) -> bytes:
    """A minimal ICC v2 profile (ICC.1:2001-04): Adobe RGB (1998) primaries adapted to D50, or grey."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": _text("hotmatte test"), b"cprt": b"text" + bytes(4) + b"public domain\0"}
    tags[b"wtpt"] = _xyz(0.9642, 1.0, 0.8249)
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        primaries = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
        for letter, place in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags[letter + b"XYZ"], tags[letter + b"TRC"] = _xyz(*place), curve
    table, content = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", start + len(content), len(body))
        content += body
    size = start + len(content)
    header = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, b"mntr", space.encode(), b"XYZ ")
    header += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">iii", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _text(words: str) -> bytes:
    ascii_words = words.encode() + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(ascii_words)) + ascii_words + bytes(78)


def in_space(icc: bytes) -> np.ndarray:
    """The original, its colours expressed in `icc`."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    mode = "L" if target.profile.xcolor_space == "GRAY" else "RGB"
    converted = ImageCms.profileToProfile(
        Image.fromarray(original()), ImageCms.createProfile("sRGB"), target, outputMode=mode
    )
    return np.asarray(converted)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """`png` with one more chunk, right behind its header."""
    return png[:33] + chunk(kind, body) + png[33:]


def header_bomb() -> bytes:
    """A PNG that says 60 000 x 60 000 and holds nothing of the kind."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    idat = zlib.compress(bytes(100_000))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def variants() -> dict[str, bytes]:
    """File name to content."""
    return {**_turned(), **_depths(), **_coloured(), **_containers(), **_broken(), **_odd()}


def _turned() -> dict[str, bytes]:
    files = {
        f"turn{turn}.jpg": saved(
            lying(turn), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + exif(turn)
        )
        for turn in (1, 2, 3, 4, 5, 6, 7, 8, 99)
    }
    files["turn6.webp"] = saved(lying(6), "WEBP", lossless=True, exif=exif(6))
    files["turn6.png"] = with_chunk(saved(lying(6), "PNG"), b"eXIf", exif(6, order=">"))
    for turn in (3, 5, 6):
        files[f"turn{turn}.tif"] = saved(lying(turn), "TIFF", tiffinfo={274: turn})
        wide = by_opencv(lying(turn).astype(np.uint16) * 257, ".tif")
        files[f"turn{turn}_16.tif"] = _tiff_turned(wide, turn)
    return files


def _tiff_turned(content: bytes, turn: int) -> bytes:
    """An uncompressed or LZW TIFF with an Orientation entry put into its first directory."""
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    entries = [content[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 274)]
    entries = sorted(
        [*entries, struct.pack("<HHIHH", 274, 3, 1, turn, 0)], key=lambda e: struct.unpack("<H", e[:2])
    )
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory


def _depths() -> dict[str, bytes]:
    wide = original().astype(np.uint16) * 257 + (original() % 7).astype(np.uint16)
    rgba = np.dstack([original(), opacity()])
    grey = np.asarray(Image.fromarray(original()).convert("L"))
    return {
        "rgb16.png": by_opencv(wide, ".png"),
        "rgb16.tif": by_opencv(wide, ".tif"),
        "rgba16.png": by_opencv(np.dstack([wide, opacity().astype(np.uint16) * 257]), ".png"),
        "grey16.png": by_opencv(grey.astype(np.uint16) * 257, ".png"),
        "rgba.png": saved(rgba, "PNG"),
        "rgba_empty.png": saved(np.dstack([original(), np.zeros_like(opacity())]), "PNG"),
        "rgba_full.png": saved(np.dstack([original(), np.full_like(opacity(), 255)]), "PNG"),
        "grey_alpha.png": saved(
            Image.merge("LA", [Image.fromarray(grey), Image.fromarray(opacity())]), "PNG"
        ),
        "palette.png": saved(Image.fromarray(original()).quantize(64), "PNG"),
        "palette_hole.png": saved(Image.fromarray(original()).quantize(64), "PNG", transparency=3),
        "bilevel.png": saved(Image.fromarray(original()).convert("1"), "PNG"),
        "grey.jpg": saved(grey, "JPEG", quality=95),
        "float.tif": by_opencv(original().astype(np.float32) / 255, ".tif"),
    }


def _coloured() -> dict[str, bytes]:
    wide_gamut, grey = profile("RGB ", 2.2), profile("GRAY", 1.8)
    photo = Image.fromarray(original())
    lab = ImageCms.profileToProfile(
        photo, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    damaged = with_chunk(saved(original(), "PNG"), b"iCCP", b"x\0\0" + zlib.compress(b"nonsense" * 9))
    return {
        "adobe.jpg": saved(in_space(wide_gamut), "JPEG", quality=97, subsampling=0, icc_profile=wide_gamut),
        "adobe.png": saved(in_space(wide_gamut), "PNG", icc_profile=wide_gamut),
        "grey_profile.png": saved(in_space(grey), "PNG", icc_profile=grey),
        "cmyk.jpg": saved(photo.convert("CMYK"), "JPEG", quality=97),
        "cmyk.tif": saved(photo.convert("CMYK"), "TIFF"),
        "lab.tif": saved(lab, "TIFF"),
        "profile_damaged.png": damaged,
        "profile_misfit.png": saved(original(), "PNG", icc_profile=grey),
    }


def _containers() -> dict[str, bytes]:
    photo, other = Image.fromarray(original()), Image.fromarray(original()[::-1].copy())
    several = {"save_all": True, "append_images": [other, other]}
    heif = pillow_heif.from_pillow(Image.fromarray(lying(6)))
    heif.info["exif"] = b"Exif\0\0" + exif(6)
    turned = io.BytesIO()
    heif.save(turned, quality=95)
    plain = io.BytesIO()
    pillow_heif.from_pillow(photo).save(plain, quality=95)
    return {
        "progressive.jpg": saved(photo, "JPEG", quality=95, progressive=True),
        "lossy.webp": saved(photo, "WEBP", quality=95),
        "still.gif": saved(photo.quantize(255), "GIF"),
        "animated.gif": saved(photo.quantize(255), "GIF", **several),
        "animated.webp": saved(photo, "WEBP", lossless=True, **several),
        "animated.png": saved(photo, "PNG", **several),
        "pages.tif": saved(photo, "TIFF", **several),
        "lzw.tif": saved(photo, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": saved(photo, "TIFF", compression="jpeg", quality=95),
        "photo.bmp": saved(photo, "BMP"),
        "photo.tga": saved(photo, "TGA"),
        "photo.ppm": saved(photo, "PPM"),
        "photo.jp2": saved(photo, "JPEG2000"),
        "photo.heic": plain.getvalue(),
        "turn6.heic": turned.getvalue(),
        "photo.avif": saved(photo, "AVIF", quality=95),
        "pair.mpo": saved(photo, "MPO", save_all=True, append_images=[other], quality=95),
        "photo.psd": _psd(original()),
    }


def _psd(image: np.ndarray) -> bytes:
    """The composite alone, uncompressed (Adobe Photoshop File Formats Specification)."""
    height, width = image.shape[:2]
    header = b"8BPS" + struct.pack(">H6sHIIHH", 1, bytes(6), 3, height, width, 8, 3)
    return header + bytes(12) + bytes(2) + image.transpose(2, 0, 1).tobytes()


def _broken() -> dict[str, bytes]:
    jpeg, png = saved(original(), "JPEG", quality=90), saved(original(), "PNG")
    heic = _containers()["photo.heic"]
    damaged = bytearray(jpeg)
    chance = random.Random(7)
    for _ in range(40):
        damaged[chance.randrange(len(jpeg) // 3, len(jpeg) - 2)] = chance.randrange(255)
    wrong_sum = bytearray(png)
    wrong_sum[-16] ^= 0xFF  # the last byte of the last IDAT's checksum
    return {
        "cut60.jpg": jpeg[: len(jpeg) * 6 // 10],
        "cut_end.jpg": jpeg[:-2],
        "cut_header.jpg": jpeg[:100],
        "cut50.png": png[: len(png) // 2],
        "cut.heic": heic[: len(heic) // 2],
        "cut.webp": saved(original(), "WEBP", lossless=True)[:-500],
        "cut.tif": saved(original(), "TIFF")[:2000],
        "damaged.jpg": bytes(damaged),
        "damaged.png": bytes(wrong_sum),
        "empty.jpg": b"",
        "zeros.jpg": bytes(5000),
        "text.jpg": b"Dear photographer,\nthis is not a photo.\n",
        "page.png": b"<!DOCTYPE html><html><body>404</body></html>",
        "no_directory.tif": b"II*\0" + struct.pack("<I", 2**31 - 1),
        "bomb.png": header_bomb(),
    }


def _odd() -> dict[str, bytes]:
    jpeg, png = saved(original(), "JPEG", quality=95, subsampling=0), saved(original(), "PNG")
    comment = with_chunk(png, b"zTXt", b"x\0\0" + zlib.compress(bytes(80_000_000), 9))
    return {
        "photo.png": png,
        "photo.jpg": jpeg,
        "jpeg_named.png": jpeg,
        "png_named": png,
        "tail.jpg": jpeg + b"\0garbage" * 50,
        "comment_bomb.png": comment,
        "exif60k.jpg": saved(original(), "JPEG", exif=b"Exif\0\0" + exif(1, maker_note=bytes(60_000))),
        "exif_damaged.jpg": saved(original(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        "1x1.png": saved(original()[:1, :1], "PNG"),
        "2x3.png": saved(original()[:3, :2], "PNG"),
        "tall.png": saved(np.tile(original()[:, :7], (17, 1, 1)), "PNG"),
        "wide.png": saved(np.tile(original()[:7], (1, 22, 1)), "PNG"),
        "black.png": saved(np.zeros((48, 64, 3), np.uint8), "PNG"),
        "white.png": saved(np.full((48, 64, 3), 255, np.uint8), "PNG"),
    }


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in variants().items():
        (folder / name).write_bytes(content)
    print(f"{len(variants())} files in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
