"""The blind sum once more, from docs/SPEC.md alone: plain integers, no import of the package, slow and short.

Section numbers are those of SPEC.md. Only what a member needs for a round is here; who may be asked what is not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenseal.sealapi as sealapi
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Q = 0xFFFFFFFFFFFC001
N = 4096
SEAL = bytes.fromhex("5ea1100403020000")
# fmt: off
PRIMES = (
    268369921, 536813569, 1073692673, 2147377153, 4294828033, 8589852673, 17179754497, 34359697409, 68719403009,
    137438822401, 274877816833, 549755731969, 1099511480321, 2199023190017, 4398046486529, 8796092858369,
    17592186028033, 35184371884033, 70368743669761, 140737488273409, 281474976694273, 281474976768001,
    562949953216513, 1125899906826241, 1688849860280321, 1829587348725761, 2251799813554177, 4503599627149313,
    4503599627542529,
)
# fmt: on


class Refused(Exception):
    """Whatever the specification says MUST be refused."""


def require(holds: bool, why: str) -> None:
    if not holds:
        raise Refused(why)


# ---- 3  encodings


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(message: Mapping[str, Any]) -> bytes:
    """3.2, for messages: ASCII keys, no floats."""
    return json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def label(kind: str, sender: str, receiver: str, alliance: str, job: str, number: int) -> str:
    return "|".join(("fl-alliance/1", kind, sender, receiver, alliance, job, str(number)))


def read_answer(envelope: bytes, identities: Mapping[str, bytes], coordinator: str) -> tuple[str, dict[str, Any]]:
    """3.3: return sender and message of a signed answer, after the six steps (all but the check of each field)."""
    require(len(envelope) <= 8 << 20, "too long")
    outer = json.loads(envelope)
    require(canonical(outer) == envelope and set(outer) == {"payload", "payloadType", "signatures"}, "envelope")
    (signature,) = outer["signatures"]
    kind, payload = outer["payloadType"].encode(), base64.b64decode(outer["payload"], validate=True)
    sender = outer["payloadType"].split("|")[2]
    require(signature["keyid"] == digest(identities[sender]), "key id")
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    Ed25519PublicKey.from_public_bytes(identities[sender]).verify(base64.b64decode(signature["sig"]), signed)
    message = json.loads(payload)
    require(canonical(message) == payload, "not canonical")
    where = (message["alliance"], message["job"], message["round"])
    require(outer["payloadType"] == label(message["kind"], sender, coordinator, *where), "label")
    return sender, message


def join(*fields: str) -> bytes:
    parts = [field.encode() for field in fields]
    return b"".join(struct.pack(">H", len(part)) + part for part in parts)


# ---- 4  parameters


@dataclass(frozen=True)
class Parameters:
    n: int
    b: int
    radix: int
    k: int
    m: int
    plain: int

    def slots(self, d: int) -> int:
        return math.ceil(d / self.k) + 4


def parameters(n: int, b: int) -> Parameters:
    require(3 <= n <= 1000 and b in (8, 12, 16, 18, 20), "n or b")
    radix = n * (2**b - 1) + 1
    for k in range(7, 0, -1):
        m = (radix**k - 1).bit_length()
        plain = min((prime for prime in PRIMES if prime >= n * 2**m), default=None)
        if plain is not None and 43 * n * plain < Q:
            return Parameters(n, b, radix, k, m, plain)
    raise Refused("nothing fits")


# ---- 5.1 to 5.4  quantise, pack, mask


def quantise(update: Sequence[float], c: float, b: int, random: bytes) -> list[int]:
    digits = []
    for at, x in enumerate(update):
        require(math.isfinite(x), "not finite")
        y = min((max(-c, min(c, x)) / c + 1.0) * ((2**b - 1) / 2.0), float(2**b - 1))
        (u,) = struct.unpack_from("<I", random, 4 * at)
        digits.append(math.floor(y) + (u < (y - math.floor(y)) * 2.0**32))
    return digits


def pack(digits: Sequence[int], p: Parameters) -> list[int]:
    s = p.slots(len(digits)) - 4
    padded = [*digits, *[0] * (p.k * s - len(digits))]
    return [sum(padded[j * s + i] * p.radix**j for j in range(p.k)) for i in range(s)] + [0] * 4


def unpack(slots: Sequence[int], p: Parameters, d: int) -> list[int]:
    s = p.slots(d) - 4
    require(len(slots) == s + 4 and not any(slots[s:]), "check slots")
    require(all(slot < p.radix**p.k for slot in slots), "left over")
    digits = [slots[i] // p.radix**j % p.radix for j in range(p.k) for i in range(s)]
    require(not any(digits[d:]), "digits beyond d")
    return digits[:d]


def keystream(key: bytes, slots: int, m: int) -> list[int]:
    stream = Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(8 * slots))
    return [word % 2**m for (word,) in struct.iter_unpack("<Q", stream)]


@dataclass(frozen=True)
class Context:
    alliance: str
    job: str
    number: int
    roster_digest: str


def derive(purpose: str, secret: bytes, context: Context | None, *fields: str) -> bytes:
    """6."""
    where = (context.alliance, context.job, str(context.number), context.roster_digest) if context else ()
    info = join("fl-alliance/1/secagg", purpose, *where, *fields)
    return HKDF(SHA256(), 32, None, info).derive(secret)


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, other: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


def pair_key(private: bytes, other_public: bytes, me: str, other: str, context: Context) -> bytes:
    return derive("pairwise-mask", agree(private, other_public), context, min(me, other), max(me, other))


@dataclass(frozen=True)
class Member:
    """A member with its secrets of one round."""

    name: str
    mask_seed: bytes
    self_seed: bytes
    channel: bytes

    @property
    def mask_private(self) -> bytes:
        return derive("mask-private", self.mask_seed, None)

    @property
    def keys(self) -> tuple[bytes, bytes]:
        """What it advertises: mask key, channel key."""
        return public(self.mask_private), public(self.channel)


Roster = Mapping[str, tuple[bytes, bytes]]


def mask(me: Member, slots: Sequence[int], dealers: Roster, context: Context, m: int) -> list[int]:
    total = _plus(slots, keystream(derive("self-mask", me.self_seed, context, me.name), len(slots), m), 1)
    for other in set(dealers) - {me.name}:
        key = pair_key(me.mask_private, dealers[other][0], me.name, other, context)
        total = _plus(total, keystream(key, len(slots), m), 1 if other > me.name else -1)
    return [slot % 2**m for slot in total]


def _plus(slots: Sequence[int], stream: Sequence[int], sign: int) -> list[int]:
    return [slot + sign * word for slot, word in zip(slots, stream, strict=True)]


# ---- 5.5 to 5.7  encrypt, frame, add


def frame(kind: int, p: Parameters, slots: int, chunks: Sequence[bytes]) -> bytes:
    head = b"FLSC" + struct.pack(">BBHBIQII", 1, kind, p.n, p.b, N, p.plain, slots, len(chunks))
    return head + b"".join(struct.pack(">I", len(chunk)) for chunk in chunks) + b"".join(chunks)


def chunks_of(kind: int, data: bytes, p: Parameters, slots: int) -> list[bytes]:
    count = math.ceil(slots / N)
    require(data[:29] == frame(kind, p, slots, [b""] * count)[:29], "header")
    require(len(data) >= 29 + 4 * count, "table")
    lengths = struct.unpack_from(f">{count}I", data, 29)
    require(29 + 4 * count + sum(lengths) == len(data), "lengths")
    chunks, at = [], 29 + 4 * count
    for length in lengths:
        chunk = data[at : at + length]
        require(length <= 16 * N + 1024 and chunk[:16] == SEAL + struct.pack("<Q", length), "chunk's own header")
        chunks.append(chunk)
        at += length
    return chunks


def seal_context(p: Parameters) -> Any:
    wanted = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    wanted.set_poly_modulus_degree(N)
    wanted.set_coeff_modulus([sealapi.Modulus(Q)])
    wanted.set_plain_modulus(p.plain)
    return sealapi.SEALContext(wanted, True, sealapi.SEC_LEVEL_TYPE.TC192)


def _saved(thing: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        thing.save(f"{folder}/object")
        return Path(folder, "object").read_bytes()


def _loaded(thing: Any, context: Any, data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "object").write_bytes(data)
        thing.load(context, f"{folder}/object")
        return thing


def encrypt(slots: Sequence[int], alliance_key: bytes, p: Parameters) -> bytes:
    context = seal_context(p)
    encryptor = sealapi.Encryptor(context, _loaded(sealapi.SecretKey(), context, alliance_key))
    chunks = []
    for at in range(0, len(slots), N):
        plain = sealapi.Plaintext()
        sealapi.BatchEncoder(context).encode(list(slots[at : at + N]), plain)
        chunks.append(_saved(encryptor.encrypt_symmetric(plain)))
    return frame(1, p, len(slots), chunks)


def _ciphertexts(kind: int, data: bytes, p: Parameters, slots: int) -> list[Any]:
    context = seal_context(p)
    found = [_loaded(sealapi.Ciphertext(context), context, chunk) for chunk in chunks_of(kind, data, p, slots)]
    require(all(one.size() == 2 and one.coeff_modulus_size() == 1 for one in found), "shape")
    return found


def add(uploads: Sequence[bytes], p: Parameters, slots: int) -> bytes:
    require(0 < len(uploads) <= p.n, "number of uploads")
    evaluator = sealapi.Evaluator(seal_context(p))
    totals, *others = (_ciphertexts(1, upload, p, slots) for upload in uploads)
    for other in others:
        for total, one in zip(totals, other, strict=True):
            evaluator.add_inplace(total, one)
    return frame(2, p, slots, [_saved(total) for total in totals])


def fingerprint(alliance_key: bytes) -> str:
    return digest(b"fl-alliance/1/alliance-key\x00" + alliance_key)


def unwrap(wrapped: bytes, private: bytes, info: str) -> bytes:
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    return suite.decrypt(wrapped, X25519PrivateKey.from_private_bytes(private), info.encode())


def open_key(sealed: bytes, content_key: bytes, info: str) -> bytes:
    return ChaCha20Poly1305(content_key).decrypt(sealed[:12], sealed[12:], info.encode())


# ---- 5.8, 5.9  shares


def _boxed(key: bytes, body: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, body, None)


def _unboxed(key: bytes, data: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(data[:12], data[12:], None)


def share_key(me: Member, other: str, sender: str, recipient: str, roster: Roster, context: Context) -> bytes:
    secret = me.channel if other == me.name else agree(me.channel, roster[other][1])
    return derive("share", secret, context, sender, recipient)


def deal(me: Member, roster: Roster, context: Context, t: int) -> dict[str, bytes]:
    require(2 * t > len(roster) >= t, "threshold")
    selfs = Shamir.split(t, len(roster), me.self_seed, ssss=False)
    masks = Shamir.split(t, len(roster), me.mask_seed, ssss=False)
    dealt = {}
    for name, (index, self_share), (_, mask_share) in zip(sorted(roster), selfs, masks, strict=True):
        body = struct.pack(">H", index) + self_share + mask_share
        dealt[name] = _boxed(share_key(me, name, me.name, name, roster, context), body)
    return dealt


def open_dealt(me: Member, sender: str, sealed: bytes, roster: Roster, context: Context) -> tuple[bytes, bytes]:
    """Return my share of the sender's self seed and of its mask seed."""
    body = _unboxed(share_key(me, sender, sender, me.name, roster, context), sealed)
    require(len(body) == 34 and struct.unpack_from(">H", body)[0] == place(me.name, roster), "index")
    return body[2:18], body[18:]


def place(name: str, roster: Roster) -> int:
    return sorted(roster).index(name) + 1


def lists_digest(survivors: Collection[str], dropped: Collection[str]) -> str:
    return hashlib.sha256(join(*sorted(survivors), "", *sorted(dropped))).hexdigest()


Pairs = Mapping[str, tuple[bytes, bytes]]


def reveal(
    me: str,
    pairs: Pairs,
    survivors: Collection[str],
    dropped: Collection[str],
    alliance_key: bytes,
    roster: Roster,
    context: Context,
) -> bytes:
    shares = [pairs[name][0] for name in sorted(survivors)] + [pairs[name][1] for name in sorted(dropped)]
    key = derive("revealed-shares", alliance_key, context, me, lists_digest(survivors, dropped))
    return _boxed(key, struct.pack(">H", place(me, roster)) + b"".join(shares))


def recover(
    revealed: Mapping[str, bytes],
    survivors: Collection[str],
    dropped: Collection[str],
    t: int,
    alliance_key: bytes,
    roster: Roster,
    context: Context,
) -> dict[str, bytes]:
    """Return self seeds of survivors and mask seeds of dropped. (Here all must open.)"""
    rows = []
    for sender in sorted(revealed):
        key = derive("revealed-shares", alliance_key, context, sender, lists_digest(survivors, dropped))
        body = _unboxed(key, revealed[sender])
        require(struct.unpack_from(">H", body)[0] == place(sender, roster), "index")
        require(len(body) == 2 + 16 * (len(survivors) + len(dropped)), "length")
        rows.append((place(sender, roster), body[2:]))
    require(len(rows) >= t, "too few")
    seeds = {}
    for at, name in enumerate([*sorted(survivors), *sorted(dropped)]):
        points = [(index, row[16 * at : 16 * at + 16]) for index, row in rows]
        found = {
            Shamir.combine(some, ssss=False) for some in (points[:t], points[1:][:t], points[-t:]) if len(some) == t
        }
        require(len(found) == 1, f"shares of {name} do not agree")
        seeds[name] = found.pop()
    for name in dropped:
        require(public(derive("mask-private", seeds[name], None)) == roster[name][0], f"mask key of {name}")
    return seeds


# ---- 5.10  open


def decrypt(total: bytes, alliance_key: bytes, p: Parameters, slots: int) -> list[int]:
    context = seal_context(p)
    decryptor = sealapi.Decryptor(context, _loaded(sealapi.SecretKey(), context, alliance_key))
    values: list[int] = []
    for one in _ciphertexts(2, total, p, slots):
        plain = sealapi.Plaintext()
        decryptor.decrypt(one, plain)
        values += sealapi.BatchEncoder(context).decode_uint64(plain)
    require(all(value <= p.n * (2**p.m - 1) for value in values[:slots]) and not any(values[slots:]), "slots")
    return [value % 2**p.m for value in values[:slots]]


def unmask(
    total: Sequence[int],
    seeds: Mapping[str, bytes],
    survivors: Collection[str],
    dropped: Collection[str],
    roster: Roster,
    context: Context,
    m: int,
) -> list[int]:
    for name in survivors:
        total = _plus(total, keystream(derive("self-mask", seeds[name], context, name), len(total), m), -1)
    for gone in dropped:
        private = derive("mask-private", seeds[gone], None)
        for there in survivors:
            key = pair_key(private, roster[there][0], gone, there, context)
            total = _plus(total, keystream(key, len(total), m), -1 if there < gone else 1)
    return [slot % 2**m for slot in total]


def mean(digits: Sequence[int], c: float, b: int, survivors: int) -> list[float]:
    top = 2**b - 1
    require(all(digit <= survivors * top for digit in digits), "digit")
    return [float(2 * digit - survivors * top) * (c / top) / survivors for digit in digits]


# ---- S6.2


def drawn(survivors_digest: str, confirmed: Collection[str], v: int | None) -> list[str]:
    if v is None:
        return sorted(confirmed)
    order = sorted(confirmed, key=lambda name: hashlib.sha256(f"{survivors_digest}|{name}".encode()).digest())
    return sorted(order[: 2 * v])
