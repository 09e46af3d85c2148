"""Options of `hotmatte models add` and `convert`, apart from what they do: their help needs no arrays."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure_add(parser: argparse.ArgumentParser) -> None:
    """Options of `hotmatte models add`."""
    parser.add_argument(
        "file", type=Path, metavar="FILE.onnx", help="a graph with a picture in and an alpha out"
    )
    parser.add_argument("--name", metavar="NAME", help="what profiles call it; default: the file's name")
    parser.add_argument("--title", metavar="TEXT", help="one line for people")
    parser.add_argument("--licence", metavar="TEXT", help="of the weights, such as MIT")
    parser.add_argument(
        "--commercial", action=argparse.BooleanOptionalAction, default=None, help="whether one may earn by it"
    )
    parser.add_argument("--url", metavar="URL", help="where it comes from")
    parser.add_argument("--attribution", metavar="TEXT", help="whom to name; default: the URL")
    parser.add_argument("--mean", type=three, metavar="R,G,B", help="subtracted after division by 255")
    parser.add_argument("--std", type=three, metavar="R,G,B", help="divided by after that")
    parser.add_argument("--output", metavar="NAME", help="which output is the alpha, where several may be")
    parser.add_argument("--short-side", type=int, metavar="N", help="of the proxy, for a graph of any size")
    parser.add_argument("--replace", action="store_true", help="overwrite a card of that name")
    parser.add_argument("--yes", action="store_true", help="ask nothing: take the defaults")


def configure_convert(parser: argparse.ArgumentParser) -> None:
    """Options of `hotmatte models convert`."""
    parser.add_argument(
        "name", metavar="NAME", help="bshm, or a model of ONNX Runtime to make half precision of"
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="PATH",
        help="one that has what the conversion needs; without it, one is made in the cache",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="of yours, to compare half precision on as well",
    )


def three(words: str) -> tuple[float, float, float]:
    """`0.5` or `0.5,0.4,0.3`. Raises ValueError or ArgumentTypeError."""
    numbers = [float(word) for word in words.split(",")]
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError("one number, or three with commas")
    return numbers[0], numbers[1], numbers[2]
