"""Worker main loop. Started as `python -u <this directory> <engine file> <arena fd>`.

Reads batches from the daemon, hands them to one engine, checks what comes back. Python 3.7 syntax.
"""

import ctypes
import importlib.util
import mmap
import os
import select
import signal
import sys
import traceback

import numpy as np
import wire

_PR_SET_PDEATHSIG = 1
# mallopt(3): from what size on memory is mapped by itself, and how much may lie free at the heap's end.
_M_MMAP_THRESHOLD, _MOST_ON_THE_HEAP = -3, 32 << 20
_M_TRIM_THRESHOLD, _MOST_FREE = -1, 128 << 20
# The bits of 1.0 in single precision. Those of less, down to zero, are a smaller number; those of all else a larger one.
_ONE = 0x3F800000


def claim_channel():
    """Keep fds 0 and 1 for the daemon; let stray prints go to the log."""
    inbox, outbox = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return inbox, outbox


def leave_with_the_daemon(inbox):
    """Die when the daemon does, even inside a call that never returns to Python."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Had it died before the line above, nobody would tell us: but its end of the pipe is closed.
    poller = select.poll()
    poller.register(inbox, select.POLLIN)
    if any(event & select.POLLHUP for _, event in poller.poll(0)):
        os._exit(0)


def keep_pages():
    """Let one batch use the pages of the one before.

    Given back to the kernel after each batch, as is the C library's way, they are cleared and mapped
    anew for the next: half of the CPU time of a batch of eight, and the GPU waits meanwhile.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _MOST_ON_THE_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _MOST_FREE)


def load_engine(path):
    spec = importlib.util.spec_from_file_location("engine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def place(arena, item, name, size):
    """Where `item` keeps its pixels ("in") or its alpha ("out"); `size` in bytes."""
    offset = item[name]
    if not isinstance(offset, int) or offset < 0 or offset + size > len(arena):
        raise LookupError("{} bytes at {} are not in the arena".format(size, offset))
    return offset


def views(arena, item):
    """The HxWx3 uint8 pixels and the HxW float32 alpha of one item."""
    height, width = item["height"], item["width"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise LookupError("an image of {} x {}".format(width, height))
    area = height * width
    pixels = np.ndarray((height, width, 3), np.uint8, arena, place(arena, item, "in", area * 3))
    alpha = np.ndarray((height, width), np.float32, arena, place(arena, item, "out", area * 4))
    return pixels, alpha


def infer(session, images, outs):
    """Fill `outs` with alphas as the contract wants them: one an image, its size, finite, within 0..1."""
    alphas = session.infer(images)
    if len(alphas) != len(images):
        raise RuntimeError("{} alphas for {} images".format(len(alphas), len(images)))
    for image, alpha, out in zip(images, alphas, outs):
        values = np.asarray(alpha, np.float32)
        if values.shape != image.shape[:2]:
            raise RuntimeError("alpha of shape {} for {}".format(values.shape, image.shape))
        # In one pass where all is well. Nothing as large as the alpha is made for it, which in a batch would be
        # fresh pages each time: six times the CPU.
        if values.view(np.uint32).max() <= _ONE:
            np.copyto(out, values)
        # The least and the largest tell of NaN, too.
        elif np.isfinite([values.min(), values.max()]).all():
            np.clip(values, 0.0, 1.0, out=out)
        else:
            raise RuntimeError("alpha with values that are not finite")


def warm_up(session, height, width):
    """One real inference, so that ready means ready. The picture is a ramp, not a constant."""
    ramp = np.arange(height * width * 3) % 251
    picture = ramp.astype(np.uint8).reshape(height, width, 3)
    infer(session, [picture], [np.empty((height, width), np.float32)])


def boot(inbox, outbox, engine_path):
    """Load, and warm up if asked to; None where that failed, after telling the daemon why."""
    hello = wire.receive(inbox)
    if hello is None:
        return None
    try:
        session = load_engine(engine_path).load(hello["model"], hello["device"], hello["options"])
        if hello["warmup"]:
            warm_up(session, *(getattr(session, "usual", None) or hello["warmup"]))
    except Exception as error:
        traceback.print_exc()
        why = "memory" if isinstance(error, MemoryError) else "load"
        detail = "{}: {}".format(type(error).__name__, error)
        wire.send(outbox, "failed", {"why": why, "detail": detail[:4000]})
        return None
    wire.send(outbox, "ready", {"protocol": wire.PROTOCOL, "about": session.about})
    return session


def answer(session, arena, message):
    """The reply to one message: its kind and fields."""
    if message["kind"] != "infer":
        return "failed", {"why": "bug", "detail": "asked to {!r}".format(message["kind"])}
    try:
        pairs = [views(arena, item) for item in message["items"]]
        limit = getattr(session, "limit", None)
        if limit is not None:
            limit(message.get("threads", 0))
        infer(session, [pixels for pixels, _ in pairs], [alpha for _, alpha in pairs])
    except MemoryError as error:
        return "failed", {"why": "memory", "detail": str(error)[:4000]}
    except ValueError as error:
        return "failed", {"why": "input", "detail": str(error)[:4000]}
    except Exception:
        return "failed", {"why": "bug", "detail": traceback.format_exc()[-4000:]}
    return "done", {}


def serve(inbox, outbox, engine_path, arena):
    """Answer until the daemon hangs up. Returns the exit status."""
    session = boot(inbox, outbox, engine_path)
    if session is None:
        return 1
    while True:
        message = wire.receive(inbox)
        if message is None:
            return 0
        wire.send(outbox, *answer(session, arena, message))


def main():
    # Ctrl-C reaches the whole process group; when to stop is the daemon's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox, outbox = claim_channel()
    leave_with_the_daemon(inbox)
    keep_pages()
    arena_fd = int(sys.argv[2])
    arena = mmap.mmap(arena_fd, 0)
    os.close(arena_fd)
    status = 1
    try:
        status = serve(inbox, outbox, sys.argv[1], arena)
    except BrokenPipeError:
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: the exit hooks of a framework with a broken driver may never end.
        os._exit(status)


if __name__ == "__main__":
    main()
