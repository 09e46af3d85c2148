"""Messages between daemon and worker."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.worker import wire

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


@settings(max_examples=50)
@given(kind=st.text(min_size=1), fields=st.dictionaries(st.text().filter(lambda key: key != "kind"), values))
def test_what_is_sent_is_received(kind, fields):
    reader, writer = os.pipe()
    try:
        sender = threading.Thread(target=wire.send, args=(writer, kind, fields))
        sender.start()
        assert wire.receive(reader) == {**fields, "kind": kind}
        sender.join()
    finally:
        os.close(reader)
        os.close(writer)


def test_messages_arrive_whole_through_a_narrow_pipe(pipe):
    reader, writer = pipe
    fields = {"text": "ä" * 150_000}
    sender = threading.Thread(target=wire.send, args=(writer, "long", fields))
    sender.start()
    assert wire.receive(reader)["text"] == fields["text"]
    sender.join()


def test_a_closed_pipe_is_the_end_only_between_messages(pipe):
    reader, writer = pipe
    wire.send(writer, "one", {})
    os.close(writer)
    assert wire.receive(reader) == {"kind": "one"}
    assert wire.receive(reader) is None


@pytest.mark.parametrize("torn", [b"\0", b"\0\0\0\x08", b'\0\0\0\x08{"kin'])
def test_a_torn_message_is_not_the_end(pipe, torn):
    reader, writer = pipe
    os.write(writer, torn)
    os.close(writer)
    with pytest.raises(EOFError):
        wire.receive(reader)


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[1]", b"3", b"{}", b'{"kind": 3}', b'{"kind"', b"\xff\xfe", b"[" * 100_000],
)
def test_what_is_no_message_is_a_wire_error(pipe, body):
    reader, writer = pipe
    message = len(body).to_bytes(4, "big") + body
    sender = threading.Thread(target=os.write, args=(writer, message))
    sender.start()
    with pytest.raises(wire.WireError):
        wire.receive(reader)
    sender.join()


def test_an_absurd_length_is_refused_before_reading(pipe):
    reader, writer = pipe
    os.write(writer, b"\x7f\xff\xff\xff")
    with pytest.raises(wire.WireError, match="2147483647 bytes"):
        wire.receive(reader)


def test_a_message_too_long_to_be_received_is_not_sent(pipe):
    with pytest.raises(wire.WireError):
        wire.send(pipe[1], "huge", {"text": "x" * (1 << 20)})


def test_whoever_waits_may_give_up(pipe):
    class Enough(Exception):
        pass

    def refuse():
        raise Enough

    with pytest.raises(Enough):
        wire.receive(pipe[0], ready=refuse)
    with pytest.raises(Enough):
        wire.send(pipe[1], "x", {}, ready=refuse)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_do_more_than_end_a_conversation(content):
    reader, writer = os.pipe()
    try:
        os.write(writer, content)
        os.close(writer)
        while wire.receive(reader) is not None:
            pass
    except (wire.WireError, EOFError):
        pass
    finally:
        os.close(reader)
