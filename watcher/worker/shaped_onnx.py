"""An ONNX graph on a GPU by ONNX Runtime: a session for each shape of picture, the last few of them. Python 3.7 syntax.

ONNX Runtime's convolutions keep what cuDNN planned for the last shape only (its issue 23006): another shape costs one to
three seconds, also one that was there before. Photos come lying and upright, and are looked at in three sizes. So each
shape has a session of its own, for which all sides are fixed: what depends on them only is computed once, and where
all of the graph is on the GPU it is captured as a CUDA graph and replayed, without a call for each of its operators.
"""

import sys

import numpy as np

CUDA = "CUDAExecutionProvider"
# Sessions at one time: a camera makes three shapes lying and three upright, and few studios have more than two kinds.
MOST = 16


class Shaped:
    """Takes the place of an `onnxruntime.InferenceSession`, of which it says what there is to say.

    `plain` is the graph with all sides open. `open_fixed` gives a session by the name of each open side and its length,
    and whether to capture it; it raises what ONNX Runtime raises. `value` is onnxruntime.OrtValue. `is_shortage` tells
    errors for want of memory, `place` the device and its number. `whole`: pictures are computed one at a time, or so many together.
    """

    def __init__(self, plain, open_fixed, value, is_shortage, place=("cuda", 0), whole=1, most=MOST):
        self._plain = plain
        self._open_fixed = open_fixed
        self._value = value
        self._is_shortage = is_shortage
        self._place = place
        self._most = most
        self._kept = {}  # by shapes; the last one used is the last
        self._captures = True
        self.whole = whole
        self.get_inputs = plain.get_inputs
        self.get_outputs = plain.get_outputs
        self.get_providers = plain.get_providers
        self.get_provider_options = plain.get_provider_options

    def run(self, outputs, feed):
        """As InferenceSession.run, for one output; the image is the last of `feed`, the rest depends on its shape only.

        Where memory is short, the sessions that were not used for longest give theirs, one after the other.
        """
        while True:
            try:
                return [self._computed(outputs[0], feed)]
            except Exception as error:
                if not (self._is_shortage(error) and self._kept):
                    raise
            del self._kept[next(iter(self._kept))]

    def _computed(self, output, feed):
        shapes = tuple((name, array.shape) for name, array in feed.items())
        bound = self._kept.pop(shapes, None)
        if bound is None:
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            bound = self._opened(output, feed)
        answer = bound.run(feed)
        self._kept[shapes] = bound
        return answer

    def _opened(self, output, feed):
        sides = sides_of(self._plain.get_inputs(), feed)
        if self._captures:
            try:
                return _Bound(self._open_fixed(sides, True), output, feed, self._value, self._place)
            except Exception as error:
                if self._is_shortage(error):
                    raise
                self._captures = False
                sys.stderr.write("no CUDA graph of this model: {}\n".format(str(error).splitlines()[0][:300]))
        return _Bound(self._open_fixed(sides, False), output, feed, self._value, self._place)


class _Bound:
    """A session of one shape, with places on the GPU for what goes in and, where its shape is known, for what comes out."""

    def __init__(self, session, output, feed, value, place):
        self._session = session
        self._binding = session.io_binding()
        self._image = list(feed)[-1]
        self._places = {}
        for name, array in feed.items():
            self._places[name] = value.ortvalue_from_numpy(np.ascontiguousarray(array), *place)
            self._binding.bind_ortvalue_input(name, self._places[name])
        (node,) = [node for node in session.get_outputs() if node.name == output]
        self._answer = None
        if all(isinstance(side, int) for side in node.shape):
            kind = np.float16 if node.type == "tensor(float16)" else np.float32
            self._answer = value.ortvalue_from_shape_and_type(node.shape, kind, *place)
            self._binding.bind_ortvalue_output(output, self._answer)
        else:
            self._binding.bind_output(output, *place)

    def run(self, feed):
        self._places[self._image].update_inplace(np.ascontiguousarray(feed[self._image]))
        self._session.run_with_iobinding(self._binding)
        if self._answer is not None:
            return self._answer.numpy()
        return self._binding.copy_outputs_to_cpu()[0]


def parts(batch, whole):
    """`batch` as lists of which each is computed at one time: `whole` pictures or a single one; 0: all of them."""
    if not whole:
        return [batch]
    full = len(batch) // whole * whole
    together = [batch[start : start + whole] for start in range(0, full, whole)]
    return together + [[one] for one in batch[full:]]


def sides_of(nodes, feed):
    """Name of each open side of the inputs `nodes` to its length in `feed`; those that would have two are left open."""
    found, open_ = {}, set()
    for node in nodes:
        if node.name not in feed:
            continue
        for name, length in zip(node.shape, feed[node.name].shape):
            if isinstance(name, str) and found.setdefault(name, length) != length:
                open_.add(name)
    return {name: length for name, length in found.items() if name not in open_}
