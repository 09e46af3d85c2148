"""The `web` section of the configuration: who may ask the page and the API, and for how much."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, field_validator

from watcher.strict import Strict

UNIX = "unix:"
Count = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Web(Strict):
    """What `hotmatte web` serves. The daemon does not read it."""

    listen: str = Field(
        "127.0.0.1:8410",
        description="address:port, or unix:/path; anything but loopback and a Unix socket asks for API keys",
    )
    keys: Literal["auto", "always"] = Field(
        "auto",
        description="always: ask for API keys on loopback and a Unix socket too, as behind a reverse proxy",
    )
    hosts: tuple[str, ...] = Field(
        (), description="further host names under which browsers reach it, such as that of a reverse proxy"
    )
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] | None = Field(
        None, description="the hot folder that uploads go into where they name none; the first one if unset"
    )
    max_upload_mb: Positive = Field(64.0, description="larger uploads are refused while they arrive")
    max_upload_mp: Positive = Field(100.0, description="larger photos are refused before decoding")
    max_uploads: Count = Field(
        16, description="uploads that arrive at the same time; others are told to wait"
    )
    max_waiting: Count = Field(
        200, description="unfinished photos in a hot folder from which on uploads to it are told to wait"
    )
    requests_per_minute: Count = Field(1200, description="for each API key, or each address without one")
    wait_s: Positive = Field(60.0, description="the longest that an answer waits for its matte")
    fetch_urls: bool = Field(
        False, description="fetch image_url of uploads; only ever from public addresses, redirects included"
    )

    @field_validator("listen")
    @classmethod
    def _is_a_place(cls, listen: str) -> str:
        if listen.startswith(UNIX):
            if not listen.removeprefix(UNIX).startswith("/"):
                raise ValueError("a Unix socket is given as unix:/path")
            return listen
        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError("must be address:port, such as 127.0.0.1:8410, or unix:/path")
        return listen

    @property
    def socket_path(self) -> str | None:
        """Where the Unix socket lies, None for TCP."""
        return self.listen.removeprefix(UNIX) if self.listen.startswith(UNIX) else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; IPv6 without its brackets."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def needs_keys(self) -> bool:
        """Whether somebody without a key is turned away."""
        if self.keys == "always":
            return True
        return self.socket_path is None and not is_loopback(self.address[0])


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
