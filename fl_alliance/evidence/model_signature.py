"""OpenSSF model signatures (OMS v1.0), made and verified by `model-signing`, never by code of our own.

The library signs with EC keys, not with Ed25519. So an institution has a P-256 key beside its identity key, and its
`ModelProvenance` certifies it. Nothing here calls the network: Sigstore's online mode is not used.
"""

from __future__ import annotations

import base64
import json
import stat
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing, verifying
from sigstore_models.bundle.v1 import Bundle

from fl_alliance.errors import BadConfig, NotAuthentic, StoreFailed
from fl_alliance.evidence.adapter import SIGNATURE
from fl_alliance.protocol.plan import ModelFile

MAX_SIGNATURE_BYTES: Final = 1 << 20


def new_model_key() -> bytes:
    """Return a new EC P-256 private key as PEM; the caller keeps it in a file of mode 0600."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_half(key: Path) -> bytes:
    """Return the DER SubjectPublicKeyInfo of the private key in the file `key`.

    Raises:
        StoreFailed: the file can't be read.
        BadConfig: others may read the file, or it holds no EC key.
    """
    try:
        mode, data = stat.S_IMODE(key.stat().st_mode), key.read_bytes()
    except OSError as error:
        raise StoreFailed(f"model key {key}: {error.strerror}") from None
    if mode & 0o077:
        raise BadConfig(f"model key {key}: mode {mode:04o} lets others read it, must be 0600")
    try:
        private = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadConfig(f"model key {key}: not an unencrypted PEM private key") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise BadConfig(f"model key {key}: a {type(private).__name__}, must be an EC key")
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_pem(public: bytes) -> bytes:
    """Return a public key (DER SubjectPublicKeyInfo) as the PEM that other tools read (NotAuthentic: not an EC key)."""
    try:
        key = serialization.load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise NotAuthentic("the model key is not the DER form of an EC public key")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign_model(folder: Path, key: Path) -> bytes:
    """Return a model signature over every file of `folder` but `model.sig`.

    Raises:
        StoreFailed: the folder can't be read, or there is no room for a temporary file.
    """
    try:
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / SIGNATURE
            config = signing.Config().use_elliptic_key_signer(private_key=key)
            config.set_hashing_config(_hashing()).sign(folder, out)
            return out.read_bytes()
    except OSError as error:
        raise StoreFailed(f"{folder.name} can't be signed: {error.strerror}") from None


def check_model_signature(folder: Path, public: bytes, files: tuple[ModelFile, ...]) -> None:
    """Return if `model.sig` in `folder` was made with the key of `public` over exactly `files`.

    Raises:
        NotAuthentic: it was not, or its bytes are not those that the library writes.
    """
    data = (folder / SIGNATURE).read_bytes()
    with tempfile.TemporaryDirectory() as place:
        pem = Path(place) / "model-key.pem"
        pem.write_bytes(public_pem(public))
        try:
            _require_library_bytes(data)
            config = verifying.Config().use_elliptic_key_verifier(public_key=pem)
            config.set_hashing_config(_hashing()).verify(folder, folder / SIGNATURE)
            signed = _signed_files(data)
        except NotAuthentic:
            raise
        except Exception as error:  # whatever a foreign library makes of foreign bytes, it is no signature
            raise NotAuthentic(f"{type(error).__name__}: {str(error)[:300] or 'does not verify'}") from None
    if signed != (right := {file.name: file.digest for file in files}):
        raise NotAuthentic(f"signs {', '.join(sorted(signed))}; must sign {', '.join(sorted(right))}, each as it is")


def _hashing() -> hashing.Config:
    """Hash whole files by SHA-256. Git's files are not left out, as they are by the library's default."""
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _require_library_bytes(data: bytes) -> None:
    """One spelling for each signature: base64 and JSON have many, and every byte of the folder shall count."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise NotAuthentic(f"{len(data)} bytes, at most {MAX_SIGNATURE_BYTES} are accepted")
    if Bundle.from_json(data).to_json().encode() != data:
        raise NotAuthentic("not in the form in which model-signing writes it")


def _signed_files(data: bytes) -> dict[str, str]:
    """Return names and digests in a verified signature: a signer may have left files out."""
    payload = json.loads(base64.b64decode(json.loads(data)["dsseEnvelope"]["payload"]))
    return {entry["name"]: f"{entry['algorithm']}:{entry['digest']}" for entry in payload["predicate"]["resources"]}
