"""What ONNX Runtime is asked for where a card wants TensorRT. Python 3.7 syntax; imports no framework.

TensorRT compiles a graph for one GPU and one range of sizes, which takes minutes. So the range is that of the
card, not of the first photo, and what was compiled is kept beside the weights. Other sizes are not TensorRT's.
"""

import hashlib
import os
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

Shape = List[int]
# The least, the usual and the largest.
Bounds = Sequence[Shape]

NAME = "TensorrtExecutionProvider"
HALF = "fp16"


def wanted(options: Mapping[str, Any]) -> Union[bool, str]:
    """False, True or "fp16", as the card's options say. Raises RuntimeError where it is anything else."""
    way = options.get("tensorrt", False)
    if isinstance(way, bool) or way == HALF:
        return way  # type: ignore[no-any-return]
    raise RuntimeError("tensorrt: is {!r}, but may be false, true or fp16".format(way))


def asked(
    index: str, way: Union[bool, str], folder: Optional[str], shapes: Mapping[str, Bounds]
) -> Tuple[str, Dict[str, Any]]:
    """The provider and its options, for GPU `index`. `folder`: where to keep engines, None: nowhere.

    `shapes`: name of an input to its least, usual and largest shape; nothing where all shapes are fixed.
    """
    options = {"device_id": index, "trt_fp16_enable": way == HALF}  # type: Dict[str, Any]
    if folder is not None:
        options.update(
            trt_engine_cache_enable=True,
            trt_engine_cache_path=folder,
            trt_timing_cache_enable=True,
            trt_timing_cache_path=folder,
        )
    for place, which in enumerate(("min", "opt", "max")):
        if shapes:
            options["trt_profile_{}_shapes".format(which)] = ",".join(
                "{}:{}".format(name, "x".join(map(str, three[place])))
                for name, three in sorted(shapes.items())
            )
    return NAME, options


def shapes_of(
    nodes: Sequence[Any], image: str, layout: str, sizes: Mapping[str, Any], states: Mapping[str, Shape]
) -> Dict[str, Bounds]:
    """See `asked`. `nodes` are the graph's inputs, `image` is the picture's name, `states` are shapes by name.

    `sizes`: `batch`, and `least`, `usual` and `most` as [height, width]. All inputs that have an open side
    must be named, or TensorRT takes the sizes of the first photo for all.
    """
    found = {}  # type: Dict[str, Bounds]
    for node in nodes:
        if all(isinstance(side, int) for side in node.shape):
            continue
        if node.name == image:
            found[node.name] = [
                _fixed(node.shape, _laid(batch, sizes[which], layout))
                for which, batch in (("least", 1), ("usual", 1), ("most", sizes["batch"]))
            ]
        elif node.name in states:
            found[node.name] = [list(states[node.name])] * 3
    return found


def _laid(batch: int, size: Shape, layout: str) -> Shape:
    return {"nchw": [batch, 3] + list(size), "nhwc": [batch] + list(size) + [3], "hwc": list(size) + [3]}[
        layout
    ]


def _fixed(shape: Sequence[Any], chosen: Shape) -> Shape:
    """`chosen`, but for the sides that the graph itself fixes."""
    return [one if isinstance(one, int) else other for one, other in zip(shape, chosen)]


def fits(shape: Sequence[int], bounds: Optional[Bounds]) -> bool:
    """Whether TensorRT has been told of pictures of this `shape`; `bounds` None: it takes what the graph takes."""
    if bounds is None:
        return True
    least, _, most = bounds
    return len(shape) == len(least) and all(
        low <= side <= high for low, side, high in zip(least, shape, most)
    )


def kept_in(model: str) -> Optional[str]:
    """A folder beside the weights, for these very weights; None where we may not write.

    ONNX Runtime names what it keeps by its version, CUDA's, TensorRT's, the GPU's and the names in the graph. The
    weights are not among them: others in the same graph would be taken for these.
    """
    digest = hashlib.sha256()
    with open(model, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    folder = os.path.join(os.path.dirname(os.path.abspath(model)), "tensorrt-" + digest.hexdigest()[:12])
    try:
        os.makedirs(folder, exist_ok=True)
        # Whatever lies there is loaded as code of the GPU.
        os.chmod(folder, 0o700)
    except OSError as error:
        sys.stderr.write("TensorRT compiles at each start, nothing is kept: {}\n".format(error))
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        sys.stderr.write("TensorRT compiles at each start, {} cannot be written\n".format(folder))
        return None
    return folder
