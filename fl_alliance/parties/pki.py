"""The alliance's own X.509: a root certificate, one server certificate, one client certificate for each institution.

Every private key is made where it is used and never leaves; a certificate is asked for with a signing request.
"""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_alliance.errors import BadInput

_ROOT_DAYS, _LEAF_DAYS = 3650, 825
_CLOCK_SLACK = datetime.timedelta(minutes=5)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new EC P-384 private key (Flower's nodes want this curve; TLS is content with it)."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the unencrypted PKCS 8 PEM of `key`; the caller keeps it in a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def openssh_pair(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """Return (private, public) of `key` in OpenSSH's format, as Flower's node authentication wants them."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return the PEM of `certificate`."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_root(alliance: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the alliance's TLS root: key and self-signed certificate, valid for ten years."""
    key = new_key()
    name = _name(f"{alliance} root")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key.public_key(), _ROOT_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, builder.sign(key, hashes.SHA384())


def server_certificate(
    root_key: ec.EllipticCurvePrivateKey, root: x509.Certificate, key: ec.EllipticCurvePrivateKey, host: str
) -> x509.Certificate:
    """Return the coordinator's server certificate for `host` (a DNS name or an IP address)."""
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    builder = _leaf(root_key, root, _name("coordinator"), key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH)
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(root_key, hashes.SHA384())


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """Return the PEM of a request for a client certificate of institution `name`."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, hashes.SHA384())
    return request.public_bytes(serialization.Encoding.PEM)


def client_certificate(
    root_key: ec.EllipticCurvePrivateKey, root: x509.Certificate, request_pem: bytes, name: str
) -> x509.Certificate:
    """Return the client certificate that a signing request asks for; the name is the admin's, not the request's.

    Raises:
        BadInput: the request is not one, or its signature is wrong.
    """
    public_key = require_signing_request(request_pem, name)
    builder = _leaf(root_key, root, _name(name), public_key, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(root_key, hashes.SHA384())


def require_signing_request(request_pem: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """Return the key that a signing request is for.

    Raises:
        BadInput: the request is not one, or its signature is wrong.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem)
        public_key = request.public_key()
        if not request.is_signature_valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise BadInput(f"signing request of {name}: its signature is not by an EC key of its own")
    except (ValueError, InvalidSignature) as error:
        raise BadInput(f"signing request of {name}: not a PEM certificate request") from error
    return public_key


def require_node_key(text: str) -> None:
    """Return if `text` is an OpenSSH EC P-384 public key (BadInput: it is none)."""
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadInput("node key: must be an OpenSSH EC P-384 public key")


def require_issued(certificate: bytes, *, by: bytes) -> None:
    """Return if the root `by` signed `certificate`, both PEM (BadInput: it did not, or one of them is none)."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(x509.load_pem_x509_certificate(by))
    except (InvalidSignature, TypeError, ValueError):
        raise BadInput("membership: its TLS certificate is not signed by its TLS root") from None


def ends_within(certificate: bytes, days: int) -> bool:
    """Say whether `certificate` (PEM) ends within so many days, or has ended."""
    last = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    return last - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=days)


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the EC private key in `pem` (BadInput: there is none)."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInput("a TLS key must be an EC key")
    return key


def is_key_of(key: bytes, certificate: bytes) -> bool:
    """Say whether the private key (PEM) is that of `certificate` (PEM)."""
    private = serialization.load_pem_private_key(key, None)
    return private.public_key() == x509.load_pem_x509_certificate(certificate).public_key()


def is_answer_to(certificate: x509.Certificate, request_pem: str) -> bool:
    """Say whether `certificate` is for the key that this signing request is for."""
    return certificate.public_key() == x509.load_pem_x509_csr(request_pem.encode()).public_key()


def _leaf(
    root_key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    return (
        _builder(subject, root.subject, public_key, _LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
