"""`hotmatte doctor`, on a fleet: the broker, the shares, the nodes. Nothing for who has none."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from watcher.commands import doctor_places
from watcher.commands.findings import Finding, answered, fail, ok, warn
from watcher.config import Settings
from watcher.errors import ConfigError, HostError
from watcher.exits import CONFIG
from watcher.fleet_settings import Queue, broker_url

PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}


def fleet(settings: Settings, *, timeout: float) -> list[Finding]:
    """Every share by itself, so that one that hangs does not hide the others; `timeout` in seconds each."""
    url = broker_url(settings.queue)
    if url is None and not settings.shares:
        return []
    findings = (
        []
        if url is None
        else _asked("broker", partial(broker, url, settings.queue, timeout=timeout / 2), timeout)
    )
    for name, mount in settings.shares.items():
        look = partial(share, name, mount, settings)
        findings += answered(f"share {name}", look, timeout=timeout)
    return findings


def _asked(subject: str, look: Callable[[], list[Finding]], timeout: float) -> list[Finding]:
    remedy = "See whether it is overloaded, or restart it; work goes on by itself."
    return answered(subject, look, timeout=timeout, remedy=remedy)


# --- The broker ----------------------------------------------------------------------------


def broker(url: str, queue: Queue | None = None, *, timeout: float) -> list[Finding]:
    """Is somebody there, and does it let us in? Writes nothing. Of `queue` only the files for TLS are used."""
    from watcher.fleet.brokers import BrokerLost, Line, shown
    from watcher.fleet.tls import Tls

    parts, address = urlsplit(url), shown(url)
    host, port = parts.hostname or "localhost", parts.port or PORTS[parts.scheme]
    try:
        socket.create_connection((host, port), timeout).close()
    except (OSError, UnicodeError) as error:  # the latter: not a name at all
        return [fail("broker", f"{address}: {_reason(error)}", _remedy(error, parts.scheme, host, port))]
    try:
        line = Line(url, lost_after=15.0, tls=Tls.of(queue or Queue()))
    except ConfigError as error:
        return [fail("broker", str(error), error.remedy, status=CONFIG)]
    try:
        said, risk = line.greet()
    except BrokerLost as error:
        if error.remedy != BrokerLost.remedy:  # it is known what is wrong
            return [fail("broker", str(error), error.remedy)]
        remedy = (
            "Something listens there. Look at user and password in queue.url (or $HOTMATTE_QUEUE_URL), at the scheme "
            f"({parts.scheme}), and at the log of the broker."
        )
        return [fail("broker", str(error), remedy)]
    finally:
        line.close()
    found = [ok("broker", f"{address} answers" + (f" ({said})" if said else ""))]
    if risk:
        found.append(warn("broker", *risk))
    if not parts.password and not _is_loopback(host):
        words = f"{address} takes work from whoever reaches it: queue.url has no password"
        found.append(
            warn("broker", words, "Set one (requirepass, or a user of its own), see docs/scaling.md.")
        )
    return found


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return "nobody knows a host of this name"
    if isinstance(error, ConnectionRefusedError):
        return "the host is there, but nothing listens on this port"
    if isinstance(error, TimeoutError):
        return "no answer at all"
    return error.strerror or str(error)


def _remedy(error: OSError | UnicodeError, scheme: str, host: str, port: int) -> str:
    package = "redis-server" if scheme.startswith("redis") else "rabbitmq-server"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"Correct queue.url, or make {host} known: DNS, or /etc/hosts."
    if isinstance(error, ConnectionRefusedError):
        return f"On {host}: systemctl start {package}, and have it listen on the studio's network (`bind`), port {port}."
    return f"See whether {host} is up and on this network, and whether a firewall drops port {port}."


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


# --- A share -------------------------------------------------------------------------------


def share(name: str, mount: Path, settings: Settings) -> list[Finding]:
    """Is it mounted, is it the watcher's, may we write there, and who else works on it?"""
    from watcher.fleet.shares import Shares

    subject, shares = f"share {name}", Shares(settings.shares)
    if not mount.is_dir():
        return [fail(subject, f"{mount} is not there", "Mount the share there, or correct `shares`.")]
    try:
        shares.check_watcher(name)
    except HostError as error:
        return [_unmarked(subject, mount, shares.state(name), error)]
    except ConfigError as error:
        return [fail(subject, str(error), error.remedy, status=CONFIG)]
    found = [ok(subject, f"{mount} is the watcher's share, of the same version")]
    found += doctor_places.writable(subject, shares.state(name), "results of nodes go there")
    return [*found, *nodes(subject, shares.state(name), lost_after=settings.queue.lost_after_s)]


def _unmarked(subject: str, mount: Path, state: Path, error: HostError) -> Finding:
    if state.exists():
        return fail(subject, str(error).removeprefix(f"{subject}: "), error.remedy)
    words = f"{mount} has not been marked by a watcher: no node starts on it"
    remedy = (
        "On a node: see whether the share is mounted. On the watcher's host: start the watcher, it marks it."
    )
    return warn(subject, words, remedy)


def nodes(subject: str, state: Path, *, lost_after: float) -> list[Finding]:
    """Who told of itself there, and when: both times are the file server's."""
    from watcher.fleet.messages import check_versions
    from watcher.fleet.roster import NODES

    now = doctor_places.probe(state)
    found = []
    for path in sorted((state / NODES).glob("*.json")):
        try:
            said, silent = json.loads(path.read_bytes()), now - path.stat().st_mtime
            check_versions(said["protocol"], str(said["hotmatte"]), who=f"node {path.stem}")
        except ConfigError as error:
            found.append(warn(subject, str(error), error.remedy))
        except (OSError, ValueError, LookupError, TypeError):
            continue  # it left, or tells something new this very moment
        else:
            found.append(_heard(subject, path, silent, lost_after=lost_after))
    return found


def _heard(subject: str, path: Path, silent: float, *, lost_after: float) -> Finding:
    if silent < lost_after:
        return ok(subject, f"node {path.stem} works, of the same version")
    words = f"node {path.stem} has been silent for {_long(silent)}"
    return warn(subject, words, f"Start it again, or, where it is gone for good, remove {path}.")


def _long(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
