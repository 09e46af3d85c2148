"""An ONNX graph on a GPU by ONNX Runtime: a session for each shape of picture, the last few of them. Python 3.7 syntax.

ONNX Runtime's convolutions keep what cuDNN planned for the last shape only (its issue 23006): another shape costs one to
three seconds, also one that was there before. Photos come lying and upright, and are looked at in three sizes. So each
shape has a session of its own, for which all sides are fixed: what depends on them only is computed once, and where
all of the graph is on the GPU it is captured as a CUDA graph and replayed, without a call for each of its operators.
"""

import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

CUDA = "CUDAExecutionProvider"
# Sessions at one time: a camera makes three shapes lying and three upright, and few studios have more than two kinds.
MOST = 16

# What an answer may be made of besides single precision.
_KINDS = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}

# Sessions and values of ONNX Runtime, and arrays of NumPy, which have no parameters under Python 3.7.
Session = Any
Array = Any
Feed = Mapping[str, Array]
Sides = Dict[str, int]
Place = Tuple[str, int]


class Shaped:
    """Takes the place of an `onnxruntime.InferenceSession`, of which it says what there is to say.

    `plain` is the graph with all sides open. `open_fixed` gives a session by the name of each open side and its length,
    and whether to capture it; it raises what ONNX Runtime raises. `value` is onnxruntime.OrtValue. `is_shortage` tells
    errors for want of memory, `place` the device and its number. `image` is the input that differs from photo to photo:
    what the others are fed depends on its shape only. `whole`: pictures are computed one at a time, or so many together.
    `inputs`: what sessions for a shape are fed, where that is something else than `plain` is.
    """

    def __init__(
        self,
        plain: Session,
        image: str,
        open_fixed: Callable[[Sides, bool], Session],
        value: Any,
        is_shortage: Callable[[Exception], bool],
        place: Place = ("cuda", 0),
        whole: int = 1,
        most: int = MOST,
        inputs: Optional[Sequence[Any]] = None,
    ) -> None:
        self.image = image
        self._inputs = list(inputs or plain.get_inputs())
        self._open_fixed = open_fixed
        self._value = value
        self._is_shortage = is_shortage
        self._place = place
        self._most = most
        self._kept = {}  # type: Dict[Any, _Bound]  # by shapes; the last one used is the last
        self._captures = True
        self.whole = whole
        self.get_outputs = plain.get_outputs
        self.get_providers = plain.get_providers
        self.get_provider_options = plain.get_provider_options

    def get_inputs(self) -> List[Any]:
        return self._inputs

    def run(self, outputs: Sequence[str], feed: Feed) -> List[Array]:
        """As InferenceSession.run, for one output.

        Where memory is short, the sessions that were not used for longest give theirs, one after the other.
        """
        while True:
            try:
                return [self._computed(outputs[0], feed)]
            except Exception as error:
                if not (self._is_shortage(error) and self._kept):
                    raise
            del self._kept[next(iter(self._kept))]

    def _computed(self, output: str, feed: Feed) -> Array:
        shapes = tuple((name, array.shape) for name, array in feed.items())
        bound = self._kept.pop(shapes, None)
        if bound is None:
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            bound = self._prepared(output, feed)
        answer = bound.run(feed[self.image])
        self._kept[shapes] = bound
        return answer

    def _prepared(self, output: str, feed: Feed) -> "_Bound":
        """What is opened for these shapes; the log says what a photo waited for."""
        began = time.time()
        bound = self._opened(output, feed)
        words = "prepared for pictures of shape {} in {:.1f} s, beside {} other shape(s)\n"
        sys.stderr.write(words.format(feed[self.image].shape, time.time() - began, len(self._kept)))
        return bound

    def _opened(self, output: str, feed: Feed) -> "_Bound":
        sides = sides_of(self._inputs, feed)
        if self._captures:
            try:
                return self._captured(sides, output, feed)
            except Exception as error:
                if self._is_shortage(error):
                    raise
                self._captures = False
                sys.stderr.write("no CUDA graph of this model: {}\n".format(str(error).splitlines()[0][:300]))
        return self._bound(self._open_fixed(sides, False), output, feed)

    def _captured(self, sides: Sides, output: str, feed: Feed) -> "_Bound":
        """What cannot be captured is known before a photo counts on it: the first run computes, the second is recorded."""
        bound = self._bound(self._open_fixed(sides, True), output, feed)
        for _ in range(2):
            bound.run(feed[self.image])
        return bound

    def _bound(self, session: Session, output: str, feed: Feed) -> "_Bound":
        return _Bound(session, self.image, output, feed, self._value, self._place)


class _Bound:
    """A session of one shape, with places on the GPU for what goes in and, where its shape is known, for what comes out."""

    def __init__(
        self, session: Session, image: str, output: str, feed: Feed, value: Any, place: Place
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._fed = {
            name: value.ortvalue_from_numpy(np.ascontiguousarray(array), *place)
            for name, array in feed.items()
        }
        self._pixels = self._fed[image]
        for name, there in self._fed.items():
            self._binding.bind_ortvalue_input(name, there)
        (node,) = [node for node in session.get_outputs() if node.name == output]
        self._answer = None  # type: Any
        if all(isinstance(side, int) for side in node.shape):
            kind = _KINDS.get(node.type, np.float32)
            self._answer = value.ortvalue_from_shape_and_type(node.shape, kind, *place)
            self._binding.bind_ortvalue_output(output, self._answer)
        else:
            self._binding.bind_output(output, *place)

    def run(self, pixels: Array) -> Array:
        self._pixels.update_inplace(np.ascontiguousarray(pixels))
        self._session.run_with_iobinding(self._binding)
        if self._answer is not None:
            return self._answer.numpy()
        return self._binding.copy_outputs_to_cpu()[0]


def parts(batch: Sequence[Array], whole: int) -> List[List[Array]]:
    """`batch` as lists of which each is computed at one time: `whole` pictures or a single one; 0: all of them."""
    if not whole:
        return [list(batch)]
    full = len(batch) // whole * whole
    together = [list(batch[start : start + whole]) for start in range(0, full, whole)]
    return together + [[one] for one in batch[full:]]


def sides_of(nodes: Sequence[Any], feed: Feed) -> Sides:
    """Name of each open side of the inputs `nodes` to its length in `feed`; those that would have two are left open."""
    found = {}  # type: Sides
    unclear = set()
    for node in nodes:
        if node.name not in feed:
            continue
        for name, length in zip(node.shape, feed[node.name].shape):
            if isinstance(name, str) and found.setdefault(name, length) != length:
                unclear.add(name)
    return {name: length for name, length in found.items() if name not in unclear}
