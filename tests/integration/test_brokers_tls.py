"""Brokers that speak TLS, with a studio's own authority: real ones, and everything that can be wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rigs.brokers import missing
from rigs.secured import Authority, SecureRabbit, SecureRedis

from watcher.commands import doctor_fleet
from watcher.commands.findings import Finding, Verdict
from watcher.errors import ConfigError
from watcher.fleet.brokers import BrokerLost, Line
from watcher.fleet.tls import Tls
from watcher.fleet_settings import Queue

RealPart = Callable[[str, object, str], None]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "studio")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "stranger")


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, real_part: RealPart, studio: Authority
) -> Iterator[Callable[..., SecureRedis]]:
    """Starts a Redis with a certificate of the studio's authority, once for each name."""
    why = missing("redis")
    real_part("redis", why is None, why or "")
    running: dict[str, SecureRedis] = {}

    def named(name: str, *, clients: bool = False, **signed: object) -> SecureRedis:
        if name not in running:
            root = tmp_path_factory.mktemp(name)
            running[name] = SecureRedis(root, studio, name, clients=clients, **signed)
            running[name].start()
        return running[name]

    yield named
    for server in running.values():
        server.close()


@pytest.fixture(scope="module")
def rabbit(
    tmp_path_factory: pytest.TempPathFactory, real_part: RealPart, studio: Authority
) -> Iterator[SecureRabbit]:
    why = missing("rabbit")
    real_part("rabbit", why is None, why or "")
    server = SecureRabbit(tmp_path_factory.mktemp("rabbit"), studio, "desk")
    try:
        server.start()
        yield server
    finally:
        server.close()


def there_and_back(url: str, tls: Tls) -> object:
    """A message sent, taken and acknowledged."""
    line = Line(url, lost_after=15, tls=tls)
    try:
        line.send("hotmatte.tls", "hello")
        listener = line.listen("hotmatte.tls", prefetch=1)
        taken = next(filter(None, (listener.take() for _ in range(100))))
        listener.ack(taken)
        listener.close()
        return taken.body
    finally:
        line.close()


def look(url: str, **files: Path) -> Finding:
    return doctor_fleet.broker(url, Queue(**files), timeout=10.0)[0]


# --- What works ----------------------------------------------------------------------------


def test_a_message_goes_there_and_back_by_redis_with_tls(
    secured: Callable[..., SecureRedis], studio: Authority
) -> None:
    assert there_and_back(secured("plain").url, Tls(ca=studio.pem)) == "hello"


def test_a_message_goes_there_and_back_by_rabbitmq_with_tls(rabbit: SecureRabbit, studio: Authority) -> None:
    assert there_and_back(rabbit.secure_url, Tls(ca=studio.pem)) == "hello"


def test_a_redis_that_asks_its_clients_for_a_certificate_is_shown_ours(
    secured: Callable[..., SecureRedis], studio: Authority
) -> None:
    server = secured("strict", clients=True)
    cert, key = studio.sign("gpu1")
    assert look(server.url, ca_file=studio.pem, cert_file=cert, key_file=key).verdict is Verdict.OK
    both = cert.with_name("both.pem")
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    assert look(server.url, ca_file=studio.pem, cert_file=both).verdict is Verdict.OK
    without = look(server.url, ca_file=studio.pem)
    assert without.verdict is Verdict.FAIL
    assert "broke off" in without.words and "queue.cert_file" in without.remedy


# --- What does not, and says why -----------------------------------------------------------


def test_an_authority_that_nobody_trusts_is_told_with_the_setting_that_names_it(
    secured: Callable[..., SecureRedis], rabbit: SecureRabbit, stranger: Authority
) -> None:
    for url in (secured("plain").url, rabbit.secure_url):
        for found in (look(url), look(url, ca_file=stranger.pem)):
            assert found.verdict is Verdict.FAIL
            assert found.words.endswith("its certificate is signed by nobody whom this host trusts")
            assert "queue.ca_file" in found.remedy


def test_a_certificate_that_has_expired_or_is_for_another_host_is_told_so(
    secured: Callable[..., SecureRedis], studio: Authority
) -> None:
    late = look(secured("late", expired=True).url, ca_file=studio.pem)
    assert late.words.endswith("its certificate has expired") and "Renew it" in late.remedy
    elsewhere = look(secured("elsewhere", host="192.0.2.1").url, ca_file=studio.pem)
    assert elsewhere.words.endswith("its certificate was made for another name")


def test_a_wrong_password_is_told_so_by_both(
    secured: Callable[..., SecureRedis], rabbit: SecureRabbit, studio: Authority
) -> None:
    for url in (
        secured("plain").url.replace("//", "//somebody:secret@"),
        rabbit.secure_url.replace("guest@", "secret@"),
    ):
        found = look(url, ca_file=studio.pem)
        assert found.verdict is Verdict.FAIL and "does not let us in" in found.words
        assert "Correct user and password" in found.remedy and "secret" not in found.words


def test_a_port_without_tls_is_told_apart(rabbit: SecureRabbit, studio: Authority) -> None:
    found = look(rabbit.url.replace("amqp:", "amqps:"), ca_file=studio.pem)
    assert found.words.endswith("what answers does not speak TLS")


def test_a_broker_with_a_bad_certificate_is_lost_and_not_a_reason_to_end(
    secured: Callable[..., SecureRedis], stranger: Authority
) -> None:
    line = Line(secured("plain").url, lost_after=15, tls=Tls(ca=stranger.pem))
    with pytest.raises(BrokerLost, match="signed by nobody") as lost:
        line.send("hotmatte.tls", "hello")
    assert "queue.ca_file" in lost.value.remedy
    line.close()


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_files_that_cannot_be_used_are_named_with_their_setting(
    scheme: str, studio: Authority, stranger: Authority
) -> None:
    cert, key = studio.sign("node")
    _, other = stranger.sign("other")
    url = f"{scheme}://127.0.0.1:1"
    for tls, words in (
        (Tls(ca=key), r"queue\.ca_file: .* holds no certificate"),
        (Tls(ca=key.with_name("none.pem")), r"queue\.ca_file: .* cannot be read: No such file"),
        (Tls(cert=cert), r"queue\.cert_file: .* its key is missing"),
        (Tls(cert=cert, key=other), r"queue\.cert_file: .* its key is missing or another one"),
    ):
        with pytest.raises(ConfigError, match=words):
            Line(url, lost_after=15, tls=tls)
