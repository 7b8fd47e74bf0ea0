"""A throw-away CA, certificates and node keys for one test session."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_alliance.transport.flower.tls import TlsFiles

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Party:
    tls: TlsFiles
    node_key: Path
    node_public: bytes


class Pki:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("test-ca")
        ca = self._builder(self._name, self._key.public_key()).add_extension(x509.BasicConstraints(True, 0), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        ca = ca.add_extension(usage, True).add_extension(identifier, False)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(ca.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def party(self, name: str, *, days: int = 1) -> Party:
        """`days`: how long from now the certificate lasts; negative: it has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        leaf = self._builder(_name(name), key.public_key(), days).add_extension(
            x509.BasicConstraints(False, None), True
        )
        leaf = leaf.add_extension(use, False).add_extension(names, False).add_extension(issuer, False)
        tls = TlsFiles(ca=self.ca, certificate=self.folder / f"{name}.pem", key=self.folder / f"{name}.key")
        tls.certificate.write_bytes(leaf.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        tls.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        node = ec.generate_private_key(ec.SECP384R1())
        node_key = self.folder / f"{name}.node"
        node_key.write_bytes(node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        return Party(tls, node_key, node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int = 1) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(subject_name=subject, issuer_name=self._name, public_key=key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - 9 * DAY).not_valid_after(now + days * DAY)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
