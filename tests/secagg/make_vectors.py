"""Write the vectors of docs/SPEC.md anew: `python -m tests.secagg.make_vectors [FOLDER]`.

What the first implementation draws by itself (nonces, the alliance key, ciphertexts) is other each time; all else is
derived from labels and comes out the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import sign_message
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.draw import drawn_verifiers
from fl_alliance.protocol.envelope import label
from fl_alliance.protocol.ids import blob_ref, digest_of
from fl_alliance.secagg import cipher, derive, fixedpoint, frame, keywrap, masks, packing, shares
from fl_alliance.secagg.parameters import CHECK_SLOTS, SumParameters, sum_parameters

HERE = Path(__file__).parents[1] / "vectors" / "secagg"
CONTEXT = derive.RoundContext("clinics", "nouns-7", 3, digest_of(b"a roster"))
BOUND: dict[str, Any] = {"alliance": "clinics", "job": "nouns-7", "round": 3}
NAMES, DROPPED, THRESHOLD, DIMENSION, CLIP = ("berlin", "lagos", "osaka", "quito"), "osaka", 3, 11, "0.05"
SURVIVORS = tuple(name for name in NAMES if name != DROPPED)


def drawn_bytes(what: str, size: int) -> bytes:
    """Bytes that look random and are the same each time."""
    return hashlib.shake_256(f"fl-alliance vector|{what}".encode()).digest(size)


def doubles(what: str, count: int, scale: float) -> np.ndarray:
    return (np.frombuffer(drawn_bytes(what, 4 * count), "<u4") / 2.0**31 - 1.0) * scale


def hex_doubles(values: np.ndarray) -> str:
    return values.astype("<f8").tobytes().hex()


def context_fields(context: derive.RoundContext) -> dict[str, Any]:
    return {**BOUND, "roster_digest": context.roster_digest}


# ---- one file each


def parameters() -> Any:
    sizes = (3, 4, 5, 12, 20, 64, 100, 1000)
    return [_parameter_row(sum_parameters(members=n, bits=b)) for n in sizes for b in (8, 12, 16, 18, 20)]


def _parameter_row(p: SumParameters) -> dict[str, int]:
    row = {"n": p.members, "b": p.bits, "R": p.radix, "k": p.digits, "m": p.modulus_bits, "T": p.plain_modulus}
    return {**row, "slots_of_1000": p.slots(1000), "chunks_of_1000000": p.chunks(1_000_000)}


def keys() -> Any:
    private = [drawn_bytes(f"private {at}", 32) for at in range(2)]
    shared = derive.exchange(private[0], derive.public_of(private[1]), "other")
    lists = shares.Lists.of(dealers=NAMES, survivors=SURVIVORS)
    seed = drawn_bytes("seed", 16)
    rows: list[tuple[str, bytes, derive.RoundContext | None, tuple[str, ...]]] = [
        ("mask-private", seed, None, ()),
        ("self-mask", seed, CONTEXT, ("lagos",)),
        ("pairwise-mask", shared, CONTEXT, ("berlin", "lagos")),
        ("share", shared, CONTEXT, ("berlin", "lagos")),
        ("share", shared, CONTEXT, ("lagos", "berlin")),
        ("share", private[0], CONTEXT, ("berlin", "berlin")),
        ("revealed-shares", drawn_bytes("alliance key", 100), CONTEXT, ("berlin", lists.digest)),
    ]
    x25519 = {
        "private": private[0].hex(),
        "public": derive.public_of(private[0]).hex(),
        "other": derive.public_of(private[1]).hex(),
        "shared": shared.hex(),
    }
    return {"context": context_fields(CONTEXT), "x25519": x25519, "keys": [_key_row(*row) for row in rows]}


def _key_row(
    purpose: str, secret: bytes, context: derive.RoundContext | None, fields: tuple[str, ...]
) -> dict[str, Any]:
    key = derive.key_for(purpose, secret, context, *fields)
    row = {"purpose": purpose, "input": secret.hex(), "in_context": context is not None, "fields": list(fields)}
    return {**row, "key": key.hex()}


def keystreams() -> Any:
    rows = []
    for slots, bits in ((1, 18), (9, 36), (16_385, 41), (50_000, 52)):
        key = drawn_bytes(f"stream {slots}", 32)
        made = derive.keystream(key, slots, bits)
        whole = hashlib.sha256(made.astype("<u8").tobytes()).hexdigest()
        row = {"key": key.hex(), "slots": slots, "m": bits, "first": made[:4].tolist(), "last": made[-4:].tolist()}
        rows.append({**row, "sha256_of_le_words": whole})
    return rows


def quantise() -> Any:
    edges = np.array([0.0, -0.0, 0.05, -0.05, 9.0, -9.0, 1e-300, 0.049999999999999996, 5e-324, -1e-9])
    rows = []
    for bits in (8, 12, 16, 18, 20):
        update = np.concatenate([edges, doubles(f"update {bits}", 10, 0.07)])
        # a coin of 0 where a coordinate lies on a level: it must stay there
        random = bytes(4 * edges.size) + drawn_bytes(f"coins {bits}", 4 * (update.size - edges.size))
        digits = fixedpoint.quantise(update, clip=0.05, bits=bits, random_bytes=lambda _, random=random: random)
        total = digits * np.uint64(2) + np.uint64(1) - (digits == (1 << bits) - 1)
        summed = fixedpoint.dequantise_sum(total, clip=0.05, bits=bits, members=3)
        row = {"clip": CLIP, "b": bits, "update": hex_doubles(update), "random": random.hex()}
        mean = {"survivors": 3, "total": total.tolist(), "mean": hex_doubles(summed / 3)}
        rows.append({**row, "digits": digits.tolist(), **mean})
    return rows


def pack() -> Any:
    rows = []
    for members, bits, dimension in ((3, 8, 1), (3, 8, 12), (4, 16, 11), (20, 20, 5), (1000, 12, 7)):
        p = sum_parameters(members=members, bits=bits)
        digits = np.frombuffer(drawn_bytes(f"digits {members}", 4 * dimension), "<u4").astype(np.uint64)
        digits = digits & np.uint64((1 << bits) - 1)
        rows.append({"n": members, "b": bits, "digits": digits.tolist(), "slots": packing.pack(digits, p).tolist()})
    noise = packing.pack(np.arange(11, dtype=np.uint64), sum_parameters(members=4, bits=16))
    refused = {"a check slot is not 0": (len(noise) - 1, 1), "left above R^k": (0, 262141**2), "beyond d": (5, 262141)}
    return {"packed": rows, "refused": [_spoilt(noise, why, *how) for why, how in refused.items()]}


def _spoilt(slots: np.ndarray, why: str, at: int, more: int) -> dict[str, Any]:
    spoilt = slots.copy()
    spoilt[at] += np.uint64(more)
    return {"why": why, "n": 4, "b": 16, "dimension": 11, "slots": spoilt.tolist()}


def draw() -> Any:
    rows = []
    for count, verifiers in ((3, None), (3, 1), (4, 3), (12, 2), (40, 3)):
        names = [f"site-{number:02d}" for number in range(count)]
        digest = digest_of(f"survivors {count}".encode())
        drawn = drawn_verifiers(digest, names, verifiers)
        rows.append({"survivors_digest": digest, "confirmed": names, "v": verifiers, "drawn": list(drawn)})
    return rows


def frames() -> Any:
    p = sum_parameters(members=4, bits=16)
    body = b"\x5e\xa1\x10\x04\x03\x02\x00\x00" + (20).to_bytes(8, "little") + b"body"
    good = frame.write(frame.Kind.UPLOAD, p, 5000, [body, body])
    refused = {
        "empty": b"",
        "another magic": b"X" + good[1:],
        "version 2": good[:4] + b"\x02" + good[5:],
        "a sum for an upload": good[:5] + b"\x02" + good[6:],
        "another n": good[:7] + b"\x05" + good[8:],
        "another T": good[:20] + b"\x03" + good[21:],
        "one chunk for two": frame.write(frame.Kind.UPLOAD, p, 5000, [body]),
        "ends inside the table of lengths": good[:33],
        "a byte is missing": good[:-1],
        "a byte is left over": good + b"\x00",
        "a chunk states another length of itself": good.replace(b"\x14" + bytes(7), b"\x15" + bytes(7)),
        "a chunk of another version of SEAL": good.replace(b"\x5e\xa1\x10\x04\x03", b"\x5e\xa1\x10\x04\x01"),
        "a chunk that is not compressed by Zstandard": good.replace(b"\x04\x03\x02", b"\x04\x03\x00"),
    }
    return {
        "n": 4,
        "b": 16,
        "slots": 5000,
        "chunks": [body.hex()] * 2,
        "upload": good.hex(),
        "sum": frame.write(frame.Kind.SUM, p, 5000, [body, body]).hex(),
        "refused": [{"why": why, "frame": data.hex()} for why, data in refused.items()],
    }


def key_wrap() -> Any:
    private = drawn_bytes("wrap", 32)
    key, job = cipher.AllianceKey(drawn_bytes("alliance key", 100)), f"clinics|nouns-7|{digest_of(b'')}"
    wrap_info, seal_info = (
        f"fl-alliance/1|{bound}" for bound in (f"content-key|{job}|lagos", f"alliance-key|{job}|{key.fingerprint()}")
    )
    content_key, sealed = keywrap.seal_key(key.to_bytes(), seal_info)
    wrapped = keywrap.wrap_key(content_key, derive.public_of(private), wrap_info)
    return {
        "private": private.hex(),
        "wrap_info": wrap_info,
        "wrapped": wrapped.hex(),
        "content_key": content_key.hex(),
        "seal_info": seal_info,
        "sealed": sealed.hex(),
        "key": key.to_bytes().hex(),
        "fingerprint": key.fingerprint(),
    }


# ---- a whole round of four members, one of whom vanishes before its upload


class Round:
    def __init__(self) -> None:
        self.p = sum_parameters(members=len(NAMES), bits=16)
        self.slots = self.p.slots(DIMENSION)
        self.key = cipher.AllianceKey.generate(self.p)
        self.identities = {
            name: IdentityKey(Ed25519PrivateKey.from_private_bytes(drawn_bytes(f"identity {name}", 32)))
            for name in NAMES
        }
        self.secrets = {
            name: masks.RoundSecrets(
                mask_seed=drawn_bytes(f"mask seed {name}", 16),
                self_seed=drawn_bytes(f"self seed {name}", 16),
                channel_private=drawn_bytes(f"channel {name}", 32),
            )
            for name in NAMES
        }
        self.publics = {name: secrets.public for name, secrets in self.secrets.items()}
        self.messages: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    def session(self, me: str) -> dict[str, Any]:
        return {"secrets": self.secrets[me], "me": me, "publics": self.publics, "context": self.context}

    def envelope(self, name: str, answer: m.Bound) -> str:
        kind = str(type(answer).model_fields["kind"].default)
        text = label(
            kind=kind, sender=name, receiver="hub", alliance="clinics", job="nouns-7", round_number=BOUND["round"]
        )
        return b64(sign_message(self.identities[name], text, encode(answer)))

    def say(self, request: m.Bound) -> str:
        """Note a request's payload; return its digest."""
        payload = encode(request)
        self.messages[json.loads(payload)["kind"]] = {"payload": payload.decode(), "digest": digest_of(payload)}
        return digest_of(payload)

    def advertise(self) -> None:
        plan = digest_of(b"a plan")
        keys = [
            self.envelope(
                name,
                m.RoundKeys(
                    **BOUND,
                    plan_digest=plan,
                    checkpoint=digest_of(b"a checkpoint"),
                    mask_key=b64(public.mask),
                    channel_key=b64(public.channel),
                ),
            )
            for name, public in self.publics.items()
        ]
        self.roster = self.say(m.KeyRoster(**BOUND, round_keys=tuple(keys)))
        self.context = derive.RoundContext("clinics", "nouns-7", 3, self.roster)

    def share(self) -> None:
        self.dealt = {name: shares.deal_shares(threshold=THRESHOLD, **self.session(name)) for name in NAMES}
        self.pairs = {
            name: shares.open_shares({sender: to[name] for sender, to in self.dealt.items()}, **self.session(name))
            for name in NAMES
        }
        sealed = [
            self.envelope(
                name,
                m.SealedShares(
                    **BOUND,
                    roster_digest=self.roster,
                    shares=tuple(m.ToMember(member=to, sealed=b64(data)) for to, data in dealt.items()),
                ),
            )
            for name, dealt in self.dealt.items()
        ]
        self.dealers = self.say(m.ShareDelivery(**BOUND, sealed_shares=tuple(sealed)))

    def upload(self) -> None:
        self.inputs = {name: self._input(name) for name in NAMES}
        for name in SURVIVORS:
            masked = np.array(self.inputs[name]["masked"], np.uint64)
            self.files[f"upload-{name}.bin"] = cipher.seal(masked, key=self.key, parameters=self.p)
        uploads = [self.files[f"upload-{name}.bin"] for name in SURVIVORS]
        self.files["sum.bin"] = cipher.add(uploads, parameters=self.p, slots=self.slots, count=len(SURVIVORS))
        self.files["alliance-key.bin"] = self.key.to_bytes()
        updates = [
            self.envelope(
                name,
                m.SealedUpdate(
                    **BOUND,
                    roster_digest=self.roster,
                    dealers_digest=self.dealers,
                    upload=blob_ref(self.files[f"upload-{name}.bin"]),
                    ledger_head=digest_of(b"a ledger"),
                ),
            )
            for name in SURVIVORS
        ]
        self.say(m.SurvivorList(**BOUND, sealed_updates=tuple(updates), sum=blob_ref(self.files["sum.bin"])))

    def _input(self, name: str) -> dict[str, Any]:
        update, random = doubles(f"input {name}", DIMENSION, 0.06), drawn_bytes(f"coins {name}", 4 * DIMENSION)
        digits = fixedpoint.quantise(update, clip=float(CLIP), bits=16, random_bytes=lambda _: random)
        slots = packing.pack(digits, self.p)
        masked = masks.add_masks(slots, modulus_bits=self.p.modulus_bits, **self.session(name))
        row = {"update": hex_doubles(update), "random": random.hex(), "digits": digits.tolist()}
        return {**row, "slots": slots.tolist(), "masked": masked.tolist()}

    def reveal(self) -> dict[str, str]:
        self.lists = shares.Lists.of(dealers=NAMES, survivors=SURVIVORS)
        return {
            name: shares.reveal_shares(
                self.pairs[name], self.lists, me=name, group_secret=self.key.to_bytes(), context=self.context
            ).hex()
            for name in SURVIVORS
        }

    def open(self, revealed: dict[str, str]) -> dict[str, Any]:
        sealed = {name: bytes.fromhex(data) for name, data in revealed.items()}
        seeds = shares.recover_seeds(
            sealed,
            self.lists,
            threshold=THRESHOLD,
            group_secret=self.key.to_bytes(),
            publics=self.publics,
            context=self.context,
        )
        common: dict[str, Any] = {"context": self.context, "modulus_bits": self.p.modulus_bits}
        opened = cipher.open_sum(self.files["sum.bin"], key=self.key, parameters=self.p, slots=self.slots)
        clear = masks.remove_self_masks(opened, self_seeds=seeds.selfs, **common)
        clear = masks.remove_pairwise_masks(
            clear, mask_seeds=seeds.masks, survivors=SURVIVORS, publics=self.publics, **common
        )
        digits = packing.unpack(clear, self.p, DIMENSION)
        summed = fixedpoint.dequantise_sum(digits, clip=float(CLIP), bits=16, members=len(SURVIVORS))
        return {
            "self_seeds": {name: seed.hex() for name, seed in seeds.selfs.items()},
            "mask_seeds": {name: seed.hex() for name, seed in seeds.masks.items()},
            "opened": opened.tolist(),
            "unmasked": clear.tolist(),
            "digits": digits.tolist(),
            "mean": hex_doubles(summed / len(SURVIVORS)),
        }

    def member(self, name: str) -> dict[str, Any]:
        secrets, public = self.secrets[name], self.publics[name]
        return {
            "identity": self.identities[name].public.hex(),
            "mask_seed": secrets.mask_seed.hex(),
            "self_seed": secrets.self_seed.hex(),
            "channel_private": secrets.channel_private.hex(),
            "mask_key": public.mask.hex(),
            "channel_key": public.channel.hex(),
            **self.inputs[name],
            "holds": {
                sender: {"self_share": pair.self_share.hex(), "mask_share": pair.mask_share.hex()}
                for sender, pair in self.pairs[name].items()
            },
        }


def whole_round() -> tuple[Any, dict[str, bytes]]:
    one = Round()
    one.advertise()
    one.share()
    one.upload()
    revealed = one.reveal()
    result = one.open(revealed)
    p = one.p
    plan = {"n": p.members, "b": p.bits, "clip": CLIP, "threshold": THRESHOLD, "dimension": DIMENSION}
    return {
        "plan": plan,
        "context": context_fields(one.context),
        "coordinator": "hub",
        "dropped": [DROPPED],
        "survivors": list(SURVIVORS),
        "members": {name: one.member(name) for name in NAMES},
        "messages": one.messages,
        "dealt": {name: {to: data.hex() for to, data in dealt.items()} for name, dealt in one.dealt.items()},
        "lists_digest": one.lists.digest,
        "revealed": revealed,
        "alliance_key_fingerprint": one.key.fingerprint(),
        "files": {name: blob_ref(data).model_dump() for name, data in one.files.items()},
        "result": result,
        "check_slots": CHECK_SLOTS,
    }, one.files


FILES: dict[str, Callable[[], Any]] = {
    "parameters": parameters,
    "keys": keys,
    "keystream": keystreams,
    "quantise": quantise,
    "pack": pack,
    "draw": draw,
    "frame": frames,
    "keywrap": key_wrap,
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def text_of(value: Any) -> str:
    """JSON with one line for each list of plain values."""
    text = json.dumps(value, indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def main(folder: Path) -> None:
    """Write all files into `folder`."""
    (folder / "round").mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        (folder / f"{name}.json").write_text(text_of(make()))
    played, files = whole_round()
    (folder / "round.json").write_text(text_of(played))
    for name, data in files.items():
        (folder / "round" / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
