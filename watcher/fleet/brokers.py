"""One connection to RabbitMQ or Redis by Dramatiq: send, take, acknowledge. Knows no jobs.

Dramatiq's actors and threads are not used: what is taken goes into a Runner, which batches.
The only module that imports dramatiq.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from watcher.errors import ConfigError, HostError
from watcher.fleet.tls import SECURE, Tls, explained

ACTOR = "hotmatte"
# Redis is asked so often: a node whose hands were full waits so long, at most, for the next photo.
# RabbitMQ tells by itself; there it is how often we look up.
POLL_S = {"redis": 0.1, "rediss": 0.1, "amqp": 0.5, "amqps": 0.5}
CONNECT_S = 5
# What the libraries say of a broker that is away, and what that means.
_AWAY = (
    ("onnection refused", "nothing listens on this port"),
    ("ame or service not known", "nobody knows a host of this name"),
    ("name resolution", "nobody knows a host of this name"),
    ("AMQP handshake", "something listens there, but it hangs, or speaks no AMQP"),
)


class BrokerLost(HostError):
    """The broker does not answer."""

    remedy = "Start it, or correct queue.url; work goes on by itself."


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message in our hands: nobody else gets it until it is given back or we are lost.

    `message` and `body` are None for one that Dramatiq did not write: it needs no answer.
    """

    body: object
    message: Any


def shown(url: str) -> str:
    """The broker's address without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


class Line:
    """Thread-safe. What others took and never acknowledged comes back `lost_after` seconds after they died."""

    def __init__(self, url: str, *, lost_after: float, tls: Tls | None = None) -> None:
        """Connects to nobody yet. Raises ConfigError, for what is wrong with `url` and the files of `tls` too."""
        secure = (tls or Tls()) if url.startswith(SECURE) else None
        make = _redis if url.startswith("redis") else _rabbit
        try:
            import dramatiq

            dramatiq.set_encoder(_encoder())
            self._broker: Any = make(url, lost_after, secure)
        except ImportError as error:
            raise ConfigError(
                [f"`where: fleet` and `hotmatte node` need packages that are not installed: {error.name}"],
                remedy="pip install 'hotmatte[queue]'.",
            ) from error
        # Each failure is reported by us, once and in words; their tracebacks are for debugging.
        for name in ("dramatiq", "pika"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.address = shown(url)
        self._poll = POLL_S[url.partition(":")[0]]

    def send(self, queue: str, body: str) -> None:
        """Durable, as far as the broker is, when this returns. Raises BrokerLost."""
        import dramatiq

        message: Any = dramatiq.Message(
            queue_name=queue, actor_name=ACTOR, args=(), kwargs={"body": body}, options={}
        )
        with _translated(self.address):
            self._broker.declare_queue(queue)
            self._broker.enqueue(message)

    def listen(self, queue: str, *, prefetch: int) -> Listener:
        """Raises BrokerLost."""
        with _translated(self.address):
            self._broker.declare_queue(queue)
            timeout = int(self._poll * 1000)
            return Listener(self._broker.consume(queue, prefetch=prefetch, timeout=timeout), self.address)

    def beat(self) -> None:
        """We live, although we take nothing: Redis would hand our jobs to others. Raises BrokerLost."""
        if hasattr(self._broker, "do_qsize"):
            with _translated(self.address):
                self._broker.do_qsize("hotmatte.beat")

    def greet(self) -> tuple[str, tuple[str, str] | None]:
        """Be let in; what it is, and what is wrong with how it is set up, with a remedy. Raises BrokerLost."""
        with _translated(self.address):
            if not hasattr(self._broker, "do_qsize"):
                self._broker.channel.close()
                return "RabbitMQ", None
            about = self._broker.client.info()
        said, policy = f"Redis {about.get('redis_version')}", str(about.get("maxmemory_policy"))
        if int(about.get("maxmemory", 0)) and policy != "noeviction":
            words = f"Redis may throw jobs away when its memory is full (maxmemory-policy {policy}): they wait to be sent again"
            return said, (words, "In redis.conf: maxmemory-policy noeviction.")
        return said, None

    def close(self) -> None:
        with suppress(Exception):
            self._broker.close()


class Listener:
    """Deliveries from one queue, at most `prefetch` of them unacknowledged. `take` from one thread."""

    def __init__(self, consumer: Any, address: str) -> None:
        self._consumer = consumer
        self._address = address
        self._lock = threading.Lock()

    def take(self) -> Delivery | None:
        """The next one, or None after a while. Raises BrokerLost."""
        from dramatiq.errors import DecodeError

        with _translated(self._address):
            try:
                message = next(self._consumer)
            except DecodeError as error:  # Redis only: for RabbitMQ Dramatiq puts it aside
                self._drop(error.data)
                return Delivery(None, None)
        if message is None:
            return None
        if hasattr(self._consumer, "message_cache") and "redis_message_id" not in message.options:
            # Written by hand, and nothing to acknowledge it by: it shall not fill our hands.
            self._consumer.queued_message_ids.discard(message.message_id)
            return Delivery(None, None)
        return Delivery(message.kwargs.get("body"), message)

    def _drop(self, content: bytes) -> None:
        """Redis hands out no number with a message: it is found by what it holds."""
        broker, queue = self._consumer.broker, self._consumer.queue_name
        for number, held in broker.client.hscan_iter(f"{broker.namespace}:{queue}.msgs"):
            if held == content:
                broker.do_ack(queue, number)

    def ack(self, delivery: Delivery) -> None:
        """Done with it. Raises BrokerLost: then somebody gets it once more."""
        if delivery.message is not None:
            with _translated(self._address), self._lock:
                self._consumer.ack(delivery.message)

    def give_back(self, delivery: Delivery) -> None:
        """Somebody else shall have it; with RabbitMQ when this listener is closed. Raises BrokerLost."""
        if delivery.message is not None:
            with _translated(self._address), self._lock:
                self._consumer.requeue([delivery.message])

    def retreat(self) -> None:
        """Fetch no more; what was taken stays ours until it is acknowledged. Raises BrokerLost."""
        with _translated(self._address):
            if hasattr(self._consumer, "message_cache"):  # Redis: fetched ahead, and ours until we are missed
                self._consumer.prefetch = 0
                while self._consumer.message_cache:
                    if (delivery := self.take()) is not None:
                        self.give_back(delivery)
            else:
                self._consumer.channel.cancel()

    def serve(self) -> None:
        """After `retreat`, again and again: keep the connection alive. Raises BrokerLost."""
        if hasattr(self._consumer, "message_cache"):
            time.sleep(0.05)
            return
        with _translated(self._address):
            self._consumer.connection.process_data_events(time_limit=0.05)

    def close(self) -> None:
        """What is not acknowledged goes to others. Never raises: a broker that is lost knows that, too."""
        with suppress(BrokerLost):
            self.retreat()
        with suppress(BrokerLost), _translated(self._address):
            self._consumer.close()


def _encoder() -> Any:
    """JSON, and wrong for Dramatiq as well unless it has the shape of a message: an odd one ended every listener."""
    from dramatiq import JSONEncoder

    class Encoder(JSONEncoder):
        def decode(self, data: bytes) -> Any:
            fields = super().decode(data)
            if not isinstance(fields["kwargs"], dict) or not isinstance(fields["options"], dict):
                raise TypeError("not a message")
            return fields

    return Encoder()


@contextmanager
def _understood() -> Iterator[None]:
    """What the libraries say of options that they do not know, as ConfigError."""
    odd: tuple[type[BaseException], ...] = (ValueError, TypeError, AttributeError, SyntaxError)
    try:
        yield
    except odd + _lost() as error:
        raise ConfigError([f"queue.url: what follows the ? is not understood: {error}"]) from error


def _redis(url: str, lost_after: float, tls: Tls | None) -> Any:
    from dramatiq.brokers import redis as theirs
    from redis import ConnectionPool, Redis

    more: dict[str, Any] = {}
    if tls is not None:
        tls.context()
        files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        more = {key: str(path) for key, path in files.items() if path is not None}
    with _understood():
        pool = ConnectionPool.from_url(
            url, socket_timeout=CONNECT_S, socket_connect_timeout=CONNECT_S, health_check_interval=10, **more
        )
        pool.make_connection()
    make: Any = theirs.RedisBroker
    return make(
        client=Redis(connection_pool=pool),
        middleware=[],
        namespace="hotmatte",
        heartbeat_timeout=int(lost_after * 1000),
        # Every look at a queue also looks for jobs of the dead: two cheap reads.
        maintenance_chance=1_000_000,
    )


def _rabbit(url: str, lost_after: float, tls: Tls | None) -> Any:
    import pika
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    # RabbitMQ closes a connection after two missed heartbeats.
    options = f"heartbeat={max(2, round(lost_after / 2))}&blocked_connection_timeout={CONNECT_S}"
    # The stack's timeout is for one that is connected and says nothing.
    options += f"&socket_timeout={CONNECT_S}&stack_timeout={CONNECT_S}&connection_attempts=1"
    base, _, given = url.partition("?")
    if re.fullmatch(r"amqps?://[^/]+/?", base):
        base = base.rstrip("/") + "/%2F"
    # Who gives the same option has the last word: pika would refuse it twice.
    named = {word.partition("=")[0] for word in given.split("&")}
    own = [word for word in options.split("&") if word.partition("=")[0] not in named]
    whole = f"{base}?{'&'.join([*own, *filter(None, [given])])}"
    with _understood():
        broker: Any = RabbitmqBroker(url=whole, confirm_delivery=True, middleware=[])
    if tls is not None and "ssl_options" not in named:
        broker.parameters.ssl_options = pika.SSLOptions(tls.context(), urlsplit(url).hostname)
    return broker


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """Everything that says that the broker is away, as BrokerLost."""
    try:
        yield
    except _lost() as error:
        if "Blocked connection" in str(error):
            raise BrokerLost(
                f"the broker {address} takes no messages: an alarm of its own holds them up",
                remedy="`rabbitmqctl status` names it: memory or disk. Work goes on by itself.",
            ) from error
        if (words := explained(str(error))) is not None:
            raise BrokerLost(f"the broker {address}: {words[0]}", remedy=words[1]) from error
        if not _may_use_networks():
            raise BrokerLost(
                f"the broker {address} cannot be reached: this service may not use any network",
                remedy="Install examples/fleet.conf as its drop-in, see docs/scaling.md.",
            ) from error
        said = str(error) or type(error).__name__
        plain = next((words for part, words in _AWAY if part in said), said)
        raise BrokerLost(f"the broker {address} does not answer: {plain}") from error
    except (AssertionError, AttributeError, StopIteration) as error:
        # What pika raises where a connection ends in the middle of a call.
        raise BrokerLost(f"the broker {address} was lost: {error!r}") from error


def _may_use_networks() -> bool:
    """Not as the unit of the watcher is shipped (RestrictAddressFamilies=, PrivateNetwork=)."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def _lost() -> tuple[type[BaseException], ...]:
    from dramatiq.errors import BrokerError

    found: list[type[BaseException]] = [BrokerError, OSError]
    with suppress(ImportError):
        from pika.adapters.utils.connection_workflow import AMQPConnectorException
        from pika.exceptions import AMQPError

        # The latter while it connects: no error of AMQP's to pika.
        found += [AMQPError, AMQPConnectorException]
    with suppress(ImportError):
        from redis import RedisError

        found.append(RedisError)
    return tuple(found)


class Patience:
    """How long to wait between two tries to reach the broker: 0.2 s, then longer, 5 s at most."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._tries = 0
        self.told = ""  # what somebody was told of its being away

    def wait(self) -> None:
        self._tries += 1
        self._stopping.wait(min(5.0, 0.2 * 2.0 ** min(self._tries, 6)))

    def well(self) -> bool:
        """It answers; True if it did not before."""
        waited, self._tries, self.told = self._tries > 0, 0, ""
        return waited
