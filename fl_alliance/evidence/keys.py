"""Identity keys: one Ed25519 key for each party, made once and kept in a file that only its owner reads."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fl_alliance.errors import BadConfig, MalformedMessage, NotAuthentic, StoreFailed
from fl_alliance.protocol.ids import Base64, digest_of
from fl_alliance.protocol.model import Wire

PUBLIC_KEY_BYTES = 32

_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Every spelling of a point whose order divides 8, without the sign bit of x: anybody can write signatures that verify
under one, and OpenSSL lets them (RFC 8032, 5.1.7, leaves it open; Chalkias et al., "Taming the many EdDSAs", 2020)."""


class IdentityKey:
    """A private signing key. It prints as `***`, can't be pickled, and leaves memory only through `save`."""

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> IdentityKey:
        """Return a new key from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> IdentityKey:
        """Return the key that `save` wrote.

        Raises:
            StoreFailed: the file can't be read.
            BadConfig: others may read the file, or it holds no Ed25519 key.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = path.read_bytes()
        except OSError as error:
            raise StoreFailed(f"identity key {path}: {error.strerror}") from None
        if mode & 0o077:
            raise BadConfig(f"identity key {path}: mode {mode:04o} lets others read it, must be 0600")
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadConfig(f"identity key {path}: not an unencrypted PEM private key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadConfig(f"identity key {path}: a {type(key).__name__}, must be an Ed25519 key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to `path` (PEM, mode 0600): whole or not at all, never over another file.

        Raises:
            StoreFailed: there is a file already, or the folder can't be written.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            _write_new(draft, pem)
            try:
                os.link(draft, path)  # unlike a rename, refuses to replace a key
            finally:
                draft.unlink()
            _sync_folder(path.parent)
        except OSError as error:
            raise StoreFailed(f"identity key {path}: {error.strerror}") from None

    @property
    def public(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    @property
    def public_text(self) -> str:
        """The public key in base64, as documents carry it."""
        return base64.b64encode(self.public).decode()

    def derived_key(self, purpose: str) -> bytes:
        """Return 32 secret bytes that follow from this key and `purpose` (HKDF-SHA256, RFC 5869)."""
        info = f"fl-alliance/1|derived|{purpose}".encode()
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self._key.private_bytes_raw())

    @property
    def keyid(self) -> str:
        """Digest of the public key: the fingerprint that people compare."""
        return digest_of(self.public)

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over `data`."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return "IdentityKey(***)"

    def __reduce__(self) -> str:
        raise TypeError("an identity key can't be pickled")


class AllianceRoot(Wire):
    """The alliance's root key as it is handed around. Believe it only after its fingerprint was compared."""

    kind: Literal["alliance-root"] = "alliance-root"
    version: Literal[1] = 1
    key: Base64
    """Raw Ed25519 public key."""

    @property
    def public(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes (MalformedMessage: `key` holds something else)."""
        return public_key_of(self.key)

    @property
    def fingerprint(self) -> str:
        """Digest of the public key: what people compare by phone."""
        return digest_of(self.public)


def public_key_of(text: str) -> bytes:
    """Return the raw public key that `text` (base64) holds.

    Raises:
        MalformedMessage: not canonical base64 of 32 bytes, or a point of small order, which is nobody's key.
    """
    raw = b""
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(text, validate=True)
    if len(raw) != PUBLIC_KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise MalformedMessage("a public key must be canonical base64 of 32 bytes")
    if raw[:-1] + bytes([raw[-1] & 0x7F]) in _SMALL_ORDER:
        raise MalformedMessage(f"public key {text} is a point of small order: signatures under it show nothing")
    return raw


def check_signature(public_key: bytes, signature: bytes, data: bytes) -> None:
    """Return if `signature` over `data` was made with the key of `public_key`.

    Raises:
        NotAuthentic: it was not.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise NotAuthentic(f"the signature does not verify under key {digest_of(public_key)}") from None


def _write_new(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
