"""Opens the socket and runs uvicorn on it until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from watcher.config import Settings
from watcher.errors import ConfigError, HostError, WatcherError
from watcher.exits import IO, OK
from watcher.health import Systemd
from watcher.log import adopt, event
from watcher.receivers import receivers_of
from watcher.web.app import create_app
from watcher.web.keys import KeyRing
from watcher.web.site import Accepts
from watcher.web_settings import Web

BACKLOG = 512
ACCEPTS = 2
# Streams end at once; an upload that is arriving gets this long.
GRACE_S = 10
KEEP_S = 75


# The settings as they are written now, and intake's word on names by them. Raises ConfigError.
Renew = Callable[[], tuple[Settings, Accepts]]


def serve(settings: Settings, accepts: Accepts, renew: Renew) -> int:
    """Until told to stop; SIGHUP has it go on with what `renew` says.

    Raises ConfigError, or HostError where the address cannot be had.
    """
    check(settings)
    web = settings.web
    listening = _listen(web)
    for name in ("uvicorn", "asyncio"):
        adopt(name, logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    told = _Told()
    try:
        event(logging.INFO, "serving", path=_spoken(web, listening))
        while True:
            server = _server(settings, accepts, renew, told)
            # A copy: it is closed at the end, while the kernel lets visitors wait for the next.
            server.run(sockets=[listening.dup()])
            if server.renewed is None or told.to_stop.is_set():
                break
            settings, accepts = server.renewed
            event(logging.INFO, "reloaded", folders=len(settings.folders))
    finally:
        listening.close()
        if web.socket_path:
            Path(web.socket_path).unlink(missing_ok=True)
    # Not 0, so that systemd starts it again.
    return IO if server.replaced else OK


def check(settings: Settings) -> None:
    """What is wrong is said before anybody is let in. Raises ConfigError."""
    web = settings.web
    if web.needs_keys and not KeyRing(settings.state_dir).all():
        always = web.keys == "always"
        why = "web.keys is always" if always else f"web.listen is {web.listen}, which others can reach"
        otherwise = "set `web.keys: auto`" if always else "listen on 127.0.0.1 or a Unix socket"
        raise ConfigError(
            [f"{why}, and there is no API key"],
            remedy=f"Make one with `hotmatte keys add NAME`, or {otherwise}.",
        )
    receivers_of(settings.notify)


def _server(settings: Settings, accepts: Accepts, renew: Renew, told: _Told) -> _Server:
    app = create_app(settings, accepts)
    # A proxy on this machine is believed about its visitors, whichever way it comes.
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=["127.0.0.1", "::1"])
    if settings.web.socket_path:
        app.add_middleware(ByTheSocket)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
            # Longer than clients keep a connection: one that is closed as it is used again is an error to them.
            timeout_keep_alive=KEEP_S,
            h11_max_incomplete_event_size=64 << 10,
            # So many new visitors between two looks at those who are in: a crowd must not hold up its first.
            backlog=ACCEPTS,
        )
    )
    server.systemd, server.settings, server.renew, server.told = Systemd(), settings, renew, told
    return server


class _Told:
    """What signals said, also while one server ends and the next one is not there yet."""

    def __init__(self) -> None:
        self.to_stop, self.to_renew = threading.Event(), threading.Event()
        # uvicorn raises the signal that ended it once more, for whoever was there before: we leave with 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.to_stop.set())
        signal.signal(signal.SIGHUP, lambda *_: self.to_renew.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR1})  # see cli.py


class ByTheSocket:
    """A Unix socket tells no address: whoever comes by it is on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["client"] = ("127.0.0.1", 0)
        await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """Tells systemd when it answers, and ends streams before it waits for them."""

    systemd: Systemd
    settings: Settings
    renew: Renew
    told: _Told

    replaced = False
    renewed: tuple[Settings, Accepts] | None = None

    async def _look_again(self) -> None:
        """A configuration that is wrong changes nothing."""
        self.told.to_renew.clear()
        try:
            settings, accepts = await asyncio.to_thread(self.renew)
            if settings.web.listen != self.settings.web.listen:
                raise ConfigError(["web.listen is read at start"], remedy="Restart this service.")
            if settings.state_dir != self.settings.state_dir:
                raise ConfigError(["state_dir is read at start"], remedy="Restart this service.")
            check(settings)
        except WatcherError as error:
            event(logging.ERROR, f"not reloaded: {error}", remedy=error.remedy)
        else:
            self.renewed = settings, accepts

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second. A restart is the simplest way to open everything anew."""
        site = getattr(getattr(self.config.app, "state", None), "site", None)
        if site is not None and site.progress.replaced:
            event(
                logging.ERROR, "the journal was replaced by a rebuilt one", remedy="Start this service again."
            )
            self.replaced = True
        if self.told.to_renew.is_set():
            await self._look_again()
        ending = self.replaced or self.renewed is not None or self.told.to_stop.is_set()
        return await super().on_tick(counter) or ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)  # how many the kernel lets wait is another matter
        self.systemd.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.renewed is None:
            self.systemd.stopping()
        site = getattr(getattr(self.config.app, "state", None), "site", None)
        if site is not None:
            site.progress.hush()
        await super().shutdown(sockets)


def _listen(web: Web) -> socket.socket:
    try:
        return _listen_unix(Path(web.socket_path)) if web.socket_path else _listen_tcp(*web.address)
    except OSError as error:
        raise HostError(
            f"cannot listen on {web.listen}: {error.strerror or error}",
            remedy="Stop what uses it, or name another address as web.listen.",
        ) from error


def _listen_tcp(host: str, port: int) -> socket.socket:
    kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    # Named as TCP, or asyncio would leave Nagle's algorithm on: each answer would wait 40 ms for the visitor's ACK.
    listening = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _listen_unix(path: Path) -> socket.socket:
    """For this user and this group. A socket that nobody listens on any more is replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and probe.connect_ex(str(path)) != 0:
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _spoken(web: Web, listening: socket.socket) -> str:
    """Where it really listens: port 0 has become one that was free."""
    if web.socket_path:
        return web.listen
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
