"""Both implementations of docs/SPEC.md behind the same words, so that one test runs for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_alliance.protocol.draw import drawn_verifiers
from fl_alliance.secagg import cipher, derive, fixedpoint, frame, keywrap, masks, packing, parameters, shares
from tests.secagg import make_vectors
from tests.secagg import second_implementation as second

Row = dict[str, Any]


def raw(table: dict[str, str]) -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in table.items()}


class First:
    """The package, in the words of the vectors."""

    def parameters(self, n: int, b: int) -> Row:
        return make_vectors._parameter_row(parameters.sum_parameters(members=n, bits=b))

    def derive(self, purpose: str, secret: bytes, context: Row | None, fields: list[str]) -> bytes:
        return derive.key_for(purpose, secret, self.context(context) if context else None, *fields)

    def context(self, row: Row) -> derive.RoundContext:
        return derive.RoundContext(row["alliance"], row["job"], row["round"], row["roster_digest"])

    def x25519(self, private: bytes, other: bytes) -> tuple[bytes, bytes]:
        return derive.public_of(private), derive.exchange(private, other, "other")

    def keystream(self, key: bytes, slots: int, bits: int) -> list[int]:
        return derive.keystream(key, slots, bits).tolist()

    def quantise(self, update: list[float], clip: float, bits: int, random: bytes) -> list[int]:
        return fixedpoint.quantise(np.array(update), clip=clip, bits=bits, random_bytes=lambda _: random).tolist()

    def mean(self, total: list[int], clip: float, bits: int, survivors: int) -> list[float]:
        summed = fixedpoint.dequantise_sum(np.array(total, np.uint64), clip=clip, bits=bits, members=survivors)
        return (summed / survivors).tolist()

    def pack(self, digits: list[int], n: int, b: int) -> list[int]:
        return packing.pack(np.array(digits, np.uint64), parameters.sum_parameters(members=n, bits=b)).tolist()

    def unpack(self, slots: list[int], n: int, b: int, dimension: int) -> list[int]:
        p = parameters.sum_parameters(members=n, bits=b)
        return packing.unpack(np.array(slots, np.uint64), p, dimension).tolist()

    def drawn(self, digest: str, confirmed: list[str], verifiers: int | None) -> list[str]:
        return list(drawn_verifiers(digest, confirmed, verifiers))

    def frame(self, kind: int, chunks: list[bytes], n: int, b: int, slots: int) -> bytes:
        return frame.write(frame.Kind(kind), parameters.sum_parameters(members=n, bits=b), slots, chunks)

    def chunks(self, kind: int, data: bytes, n: int, b: int, slots: int) -> list[bytes]:
        p = parameters.sum_parameters(members=n, bits=b)
        return [bytes(chunk) for chunk in frame.read(frame.Kind(kind), data, p, slots)]

    def unwrap(self, wrapped: bytes, private: bytes, info: str) -> bytes:
        return keywrap.unwrap_key(wrapped, private, info)

    def open_key(self, sealed: bytes, content_key: bytes, info: str) -> bytes:
        return keywrap.open_key(sealed, content_key, info)

    def fingerprint(self, key: bytes) -> str:
        return cipher.AllianceKey(key).fingerprint()

    def party(self, round_: Round) -> FirstParty:
        return FirstParty(round_)


class Second:
    """The other implementation, in the same words."""

    def parameters(self, n: int, b: int) -> Row:
        p = second.parameters(n, b)
        row = {"n": n, "b": b, "R": p.radix, "k": p.k, "m": p.m, "T": p.plain, "slots_of_1000": p.slots(1000)}
        return {**row, "chunks_of_1000000": -(-p.slots(1_000_000) // second.N)}

    def derive(self, purpose: str, secret: bytes, context: Row | None, fields: list[str]) -> bytes:
        return second.derive(purpose, secret, self.context(context) if context else None, *fields)

    def context(self, row: Row) -> second.Context:
        return second.Context(row["alliance"], row["job"], row["round"], row["roster_digest"])

    def x25519(self, private: bytes, other: bytes) -> tuple[bytes, bytes]:
        return second.public(private), second.agree(private, other)

    def keystream(self, key: bytes, slots: int, bits: int) -> list[int]:
        return second.keystream(key, slots, bits)

    def quantise(self, update: list[float], clip: float, bits: int, random: bytes) -> list[int]:
        return second.quantise(update, clip, bits, random)

    def mean(self, total: list[int], clip: float, bits: int, survivors: int) -> list[float]:
        return second.mean(total, clip, bits, survivors)

    def pack(self, digits: list[int], n: int, b: int) -> list[int]:
        return second.pack(digits, second.parameters(n, b))

    def unpack(self, slots: list[int], n: int, b: int, dimension: int) -> list[int]:
        return second.unpack(slots, second.parameters(n, b), dimension)

    def drawn(self, digest: str, confirmed: list[str], verifiers: int | None) -> list[str]:
        return second.drawn(digest, confirmed, verifiers)

    def frame(self, kind: int, chunks: list[bytes], n: int, b: int, slots: int) -> bytes:
        return second.frame(kind, second.parameters(n, b), slots, chunks)

    def chunks(self, kind: int, data: bytes, n: int, b: int, slots: int) -> list[bytes]:
        return second.chunks_of(kind, data, second.parameters(n, b), slots)

    def unwrap(self, wrapped: bytes, private: bytes, info: str) -> bytes:
        return second.unwrap(wrapped, private, info)

    def open_key(self, sealed: bytes, content_key: bytes, info: str) -> bytes:
        return second.open_key(sealed, content_key, info)

    def fingerprint(self, key: bytes) -> str:
        return second.fingerprint(key)

    def party(self, round_: Round) -> SecondParty:
        return SecondParty(round_)


class Round:
    """Who has which secrets in a round, and what all know."""

    def __init__(self, n: int, bits: int, threshold: int, context: Row, secrets: dict[str, Row]) -> None:
        self.n, self.bits, self.threshold, self.context = n, bits, threshold, context
        self.first = {name: _first_secrets(row) for name, row in secrets.items()}
        self.second = {name: _second_secrets(name, row) for name, row in secrets.items()}


def _first_secrets(row: Row) -> masks.RoundSecrets:
    given = raw({key: row[key] for key in ("mask_seed", "self_seed", "channel_private")})
    return masks.RoundSecrets(**given)


def _second_secrets(name: str, row: Row) -> second.Member:
    seeds = raw({key: row[key] for key in ("mask_seed", "self_seed", "channel_private")})
    return second.Member(name, seeds["mask_seed"], seeds["self_seed"], seeds["channel_private"])


class FirstParty:
    """Steps of a round by the package."""

    def __init__(self, of: Round) -> None:
        self.t, self.secrets = of.threshold, of.first
        self.p = parameters.sum_parameters(members=of.n, bits=of.bits)
        self.publics = {name: secrets.public for name, secrets in of.first.items()}
        self.context = First().context(of.context)

    def session(self, me: str) -> Row:
        return {"secrets": self.secrets[me], "me": me, "publics": self.publics, "context": self.context}

    def keys(self, name: str) -> tuple[bytes, bytes]:
        return self.publics[name].mask, self.publics[name].channel

    def deal(self, me: str) -> dict[str, bytes]:
        return shares.deal_shares(threshold=self.t, **self.session(me))

    def open_dealt(self, me: str, sealed: dict[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
        opened = shares.open_shares(sealed, **self.session(me))
        return {sender: (pair.self_share, pair.mask_share) for sender, pair in opened.items()}

    def mask(self, me: str, slots: list[int], dealers: list[str]) -> list[int]:
        towards = {**self.session(me), "publics": {name: self.publics[name] for name in dealers}}
        return masks.add_masks(np.array(slots, np.uint64), modulus_bits=self.p.modulus_bits, **towards).tolist()

    def encrypt(self, slots: list[int], key: bytes) -> bytes:
        return cipher.seal(np.array(slots, np.uint64), key=cipher.AllianceKey(key), parameters=self.p)

    def add(self, uploads: list[bytes], slots: int) -> bytes:
        return cipher.add(uploads, parameters=self.p, slots=slots, count=len(uploads))

    def reveal(self, me: str, pairs: dict[str, tuple[bytes, bytes]], there: list[str], gone: list[str], key: bytes):
        index = sorted(self.publics).index(me) + 1
        held = {
            name: shares.SharePair(index=index, self_share=one, mask_share=two) for name, (one, two) in pairs.items()
        }
        lists = shares.Lists.of(dealers=[*there, *gone], survivors=there)
        return shares.reveal_shares(held, lists, me=me, group_secret=key, context=self.context)

    def recover(self, revealed: dict[str, bytes], there: list[str], gone: list[str], key: bytes) -> dict[str, bytes]:
        lists = shares.Lists.of(dealers=[*there, *gone], survivors=there)
        known: Row = {"threshold": self.t, "group_secret": key, "publics": self.publics, "context": self.context}
        seeds = shares.recover_seeds(revealed, lists, **known)
        return {**seeds.selfs, **seeds.masks}

    def decrypt(self, total: bytes, key: bytes, slots: int) -> list[int]:
        return cipher.open_sum(total, key=cipher.AllianceKey(key), parameters=self.p, slots=slots).tolist()

    def unmask(self, total: list[int], seeds: dict[str, bytes], there: list[str], gone: list[str]) -> list[int]:
        known: Row = {"context": self.context, "modulus_bits": self.p.modulus_bits}
        selfs, lost = {name: seeds[name] for name in there}, {name: seeds[name] for name in gone}
        clear = masks.remove_self_masks(np.array(total, np.uint64), self_seeds=selfs, **known)
        clear = masks.remove_pairwise_masks(clear, mask_seeds=lost, survivors=there, publics=self.publics, **known)
        return clear.tolist()


class SecondParty:
    """The same steps by the other implementation."""

    def __init__(self, of: Round) -> None:
        self.t, self.members = of.threshold, of.second
        self.p = second.parameters(of.n, of.bits)
        self.roster = {name: member.keys for name, member in of.second.items()}
        self.context = Second().context(of.context)

    def keys(self, name: str) -> tuple[bytes, bytes]:
        return self.roster[name]

    def deal(self, me: str) -> dict[str, bytes]:
        return second.deal(self.members[me], self.roster, self.context, self.t)

    def open_dealt(self, me: str, sealed: dict[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
        mine = self.members[me]
        return {
            sender: second.open_dealt(mine, sender, data, self.roster, self.context) for sender, data in sealed.items()
        }

    def mask(self, me: str, slots: list[int], dealers: list[str]) -> list[int]:
        towards = {name: self.roster[name] for name in dealers}
        return second.mask(self.members[me], slots, towards, self.context, self.p.m)

    def encrypt(self, slots: list[int], key: bytes) -> bytes:
        return second.encrypt(slots, key, self.p)

    def add(self, uploads: list[bytes], slots: int) -> bytes:
        return second.add(uploads, self.p, slots)

    def reveal(self, me: str, pairs: dict[str, tuple[bytes, bytes]], there: list[str], gone: list[str], key: bytes):
        return second.reveal(me, pairs, there, gone, key, self.roster, self.context)

    def recover(self, revealed: dict[str, bytes], there: list[str], gone: list[str], key: bytes) -> dict[str, bytes]:
        return second.recover(revealed, there, gone, self.t, key, self.roster, self.context)

    def decrypt(self, total: bytes, key: bytes, slots: int) -> list[int]:
        return second.decrypt(total, key, self.p, slots)

    def unmask(self, total: list[int], seeds: dict[str, bytes], there: list[str], gone: list[str]) -> list[int]:
        return second.unmask(total, seeds, there, gone, self.roster, self.context, self.p.m)


Implementation = First | Second
