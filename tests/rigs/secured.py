"""Brokers that speak TLS, and the certificates for it: a studio's own authority, and what can be wrong with one."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rigs.brokers import Rabbit, Redis, free_port

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates, each with its key in a file of its own: `NAME.pem`, `NAME.key`."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = root / f"{name}.pem"
        builder = self._builder(self._name, self._key, datetime.datetime.now(datetime.UTC))
        signing = x509.KeyUsage(
            *[False] * 5, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write(self.pem, builder.add_extension(signing, critical=True))

    def sign(self, name: str, *, host: str = "127.0.0.1", expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key of somebody called `name` at `host`, an address."""
        key = ec.generate_private_key(ec.SECP256R1())
        begins = datetime.datetime.now(datetime.UTC) - (100 if expired else 0) * DAY
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        known = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        pem, private = self._root / f"{name}.pem", self._root / f"{name}.key"
        self._write(pem, self._builder(subject, key, begins).add_extension(known, critical=False))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        private.chmod(0o644)  # RabbitMQ may run under another user
        return pem, private

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime.datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(begins - DAY).not_valid_after(begins + 30 * DAY)

    def _write(self, path: Path, builder: x509.CertificateBuilder) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


class SecureRedis(Redis):
    """`clients`: whether it asks them for a certificate, as Redis does unless told otherwise."""

    def __init__(
        self, root: Path, authority: Authority, name: str, *, clients: bool, **signed: object
    ) -> None:
        super().__init__(root)
        self._authority, self._clients = authority, clients
        self._pem, self._key = authority.sign(name, **signed)  # type: ignore[arg-type]

    def url_at(self, address: str) -> str:
        return f"rediss://{address}:{self.port}/0"

    def ports(self) -> list[str]:
        words = ["--port", "0", "--tls-port", str(self.port), "--tls-ca-cert-file", str(self._authority.pem)]
        words += ["--tls-cert-file", str(self._pem), "--tls-key-file", str(self._key)]
        return [*words, "--tls-auth-clients", "yes" if self._clients else "no"]

    def answers(self) -> bool:
        """Whether somebody agrees upon TLS, however little the certificate is worth."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((self.address, self.port), 0.5) as line, context.wrap_socket(line):
                return True
        except OSError:
            return False


class SecureRabbit(Rabbit):
    """Speaks TLS on a port of its own, beside the other one."""

    def __init__(self, root: Path, authority: Authority, name: str) -> None:
        super().__init__(root)
        self.tls_port = free_port()
        pem, key = authority.sign(name)
        with (root / "rabbit.conf").open("a") as conf:
            conf.write(f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n")
            conf.write(f"ssl_options.cacertfile = {authority.pem}\n")
            conf.write(f"ssl_options.certfile = {pem}\nssl_options.keyfile = {key}\n")
            conf.write("ssl_options.verify = verify_none\n")

    @property
    def secure_url(self) -> str:
        return f"amqps://guest:guest@{self.address}:{self.tls_port}"
