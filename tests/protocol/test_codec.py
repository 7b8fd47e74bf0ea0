"""What `decode` refuses, by name; and whatever the bytes are, nothing but `MalformedMessage` comes out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fl_alliance.errors import MalformedMessage
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.documents import InstitutionPolicy, Statement
from fl_alliance.protocol.envelope import Envelope
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES
from fl_alliance.protocol.log import LogEntry, LogPiece, LogReceipt
from tests.protocol.examples import DOCUMENTS, MESSAGES, golden, objects

VOTE = golden("messages", "adapter-vote")
UPDATE = golden("messages", "sealed-update")
SHARES = golden("messages", "sealed-shares")
ABORT = golden("messages", "abort")
POLICY = encode(DOCUMENTS["institution-policy"])

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "JSONDecodeError"),
    "not JSON": (b"\x00\xff", "not JSON as expected"),
    "a list": (b"[]", "should be an object"),
    "null": (b"null", "should be an object"),
    "cut off": (VOTE[:-1], "JSONDecodeError"),
    "something behind": (VOTE + b"{}", "JSONDecodeError"),
    "line end behind": (VOTE + b"\n", "canonical form"),
    "byte order mark": (b"\xef\xbb\xbf" + VOTE, "valid|expected"),
    "UTF-16": (VOTE.decode().encode("utf-16-le"), "valid|expected"),
    "overlong UTF-8": (ABORT.replace("é".encode(), b"\xc0\xaf"), "UnicodeDecodeError"),
    "spaces": (VOTE.replace(b'":', b'": '), "canonical form"),
    "keys in another order": (b'{"version":1,' + VOTE[1:].replace(b',"version":1', b""), "canonical form"),
    "an escape that is not needed": (VOTE.replace(b"clinics", b"\\u0063linics"), "canonical form"),
    "escaped letters outside ASCII": (ABORT.replace("é".encode(), b"\\u00e9"), "canonical form"),
    "duplicate key": (VOTE.replace(b'"round":3', b'"round":3,"round":3'), "ValueError"),
    "duplicate key, deep": (UPDATE.replace(b'"length":7000', b'"length":7000,"length":7000'), "ValueError"),
    "duplicate key, escaped": (VOTE.replace(b'"round":3', b'"round":3,"r\\u006fund":3'), "ValueError"),
    "float for integer": (VOTE.replace(b'"round":3', b'"round":3.0'), "round: Input should be a valid integer"),
    "exponent for integer": (VOTE.replace(b'"round":3', b'"round":3e0'), "round: Input should be a valid integer"),
    "text for integer": (VOTE.replace(b'"round":3', b'"round":"3"'), "round: Input should be a valid integer"),
    "true for integer": (VOTE.replace(b'"round":3', b'"round":true'), "round: Input should be a valid integer"),
    "minus zero": (VOTE.replace(b'"round":3', b'"round":-0'), "canonical form"),
    "below zero": (VOTE.replace(b'"round":3', b'"round":-1'), "round: Input should be greater"),
    "a round too many": (VOTE.replace(b'"round":3', b'"round":10001'), "round: Input should be less"),
    "a number of 5000 digits": (VOTE.replace(b'"round":3', b'"round":' + b"9" * 5000), "ValueError"),
    "NaN": (VOTE.replace(b'"round":3', b'"round":NaN'), "ValueError"),
    "Infinity": (VOTE.replace(b'"round":3', b'"round":-Infinity'), "ValueError"),
    "null for a digest": (VOTE.replace(b'"sha256:' + b"09" * 32 + b'"', b"null"), "sum_digest"),
    "unknown field": (VOTE.replace(b'"round":3', b'"round":3,"seed":7'), "seed: Extra inputs"),
    "unknown field, deep": (UPDATE.replace(b'"length":7000', b'"length":7000,"path":"/"'), "path: Extra inputs"),
    "missing field": (VOTE.replace(b',"round":3', b""), "round: Field required"),
    "default left out": (VOTE.replace(b',"version":1', b""), "canonical form"),
    "unknown kind": (VOTE.replace(b"adapter-vote", b"veto"), "does not match any of the expected tags"),
    "another known kind": (VOTE.replace(b"adapter-vote", b"sum-checked"), "Extra inputs"),
    "no kind": (VOTE.replace(b'"kind":"adapter-vote",', b""), "discriminator"),
    "wrong version": (VOTE.replace(b'"version":1', b'"version":2'), "version: Input should be 1"),
    "version as text": (VOTE.replace(b'"version":1', b'"version":"1"'), "version: Input should be 1"),
    "version true": (VOTE.replace(b'"version":1', b'"version":true'), "version|canonical form"),
    "upper-case name": (VOTE.replace(b"clinics", b"Clinics"), "alliance"),
    "name with a line end": (VOTE.replace(b"clinics", b"clinics\\n"), "alliance"),
    "name with a divider": (VOTE.replace(b"clinics", b"clinics|x"), "alliance"),
    "name outside ASCII": (VOTE.replace(b"clinics", "clínics".encode()), "alliance"),
    "name ends in a hyphen": (VOTE.replace(b"clinics", b"clinics-"), "alliance"),
    "name of 64 letters": (VOTE.replace(b"clinics", b"c" * 64), "alliance: String should have at most 63"),
    "empty name": (VOTE.replace(b"clinics", b""), "alliance: String should have at least 1"),
    "digest of another algorithm": (VOTE.replace(b"sha256", b"sha512"), "digest"),
    "upper-case digest": (VOTE.replace(b"0b" * 32, b"0B" * 32), "adapter_digest"),
    "short digest": (VOTE.replace(b"0b" * 32, b"0b" * 31), "adapter_digest"),
    "digest with a line end": (VOTE.replace(b"0b" * 32, b"0b" * 32 + b"\\n"), "adapter_digest"),
    "blob too long": (UPDATE.replace(b"7000", b"4294967297"), "length: Input should be less"),
    "base64 without padding": (SHARES.replace(b"YmVybGluYmVybGlu", b"YmVybGluYmVybGk"), "sealed"),
    "base64 for URLs": (SHARES.replace(b"YmVybGluYmVybGlu", b"YmVybGluYmVybG-_"), "sealed"),
    "base64 with a line end": (SHARES.replace(b"YmVybGluYmVybGlu", b"YmVybGluYmVybGlu\\n"), "sealed"),
    "base64 with stray bits": (SHARES.replace(b"bGltYWxpbWE=", b"bGltYWxpbWF="), "stand for nothing"),
    "base64 with four stray bits": (SHARES.replace(b"bGltYWxpbWE=", b"bGltYWxpbR=="), "stand for nothing"),
    "an object for a list": (SHARES[: SHARES.index(b"[")] + b'{"0":1},"version":1}', "shares: Input should be a valid"),
    "empty list": (SHARES[: SHARES.index(b"[")] + b'[],"version":1}', "shares: Tuple should have at least 1"),
    "empty reason": (ABORT[: ABORT.index(b"no quorum")] + b'","round":3,"version":1}', "reason: String should have at"),
    "lone surrogate": (ABORT.replace("é".encode(), b"\\ud800"), "surrogate|expected|valid"),
    "lone surrogate in UTF-8": (ABORT.replace("é".encode(), b"\xed\xa0\x80"), "invalid unicode"),
    "a raw control character": (ABORT.replace("é".encode(), b"\x01"), "JSONDecodeError"),
    "lists in lists": (VOTE.replace(b'"round":3', b'"round":' + b"[" * 900 + b"]" * 900), "expected|recursion|round"),
    "lists without end": (b"[" * 200_000, "RecursionError"),
    "objects without end": (b'{"a":' * 200_000, "RecursionError"),
}
"""Name -> (bytes, what the reason must say). Most are one change away from a good message."""

POLICY_REFUSED: dict[str, tuple[bytes, str]] = {
    "trailing zero": (POLICY.replace(b'"12.5"', b'"12.50"'), "trailing zeros"),
    "trailing point": (POLICY.replace(b'"12.5"', b'"12."'), "not a plain decimal"),
    "leading zero": (POLICY.replace(b'"12.5"', b'"012.5"'), "not a plain decimal"),
    "leading plus": (POLICY.replace(b'"12.5"', b'"+12.5"'), "not a plain decimal"),
    "below zero": (POLICY.replace(b'"12.5"', b'"-12.5"'), "not a plain decimal"),
    "exponent": (POLICY.replace(b'"12.5"', b'"1.25e1"'), "not a plain decimal"),
    "comma": (POLICY.replace(b'"12.5"', b'"12,5"'), "not a plain decimal"),
    "digits of another script": (POLICY.replace(b'"12.5"', '"1٢.5"'.encode()), "not a plain decimal"),
    "space": (POLICY.replace(b'"12.5"', b'"12.5 "'), "not a plain decimal"),
    "line end": (POLICY.replace(b'"12.5"', b'"12.5\\n"'), "not a plain decimal"),
    "infinity": (POLICY.replace(b'"12.5"', b'"inf"'), "not a plain decimal"),
    "16 digits before the point": (POLICY.replace(b'"12.5"', b'"1000000000000000"'), "not a plain decimal"),
    "19 digits behind the point": (POLICY.replace(b'"12.5"', b'"0.1234567890123456789"'), "not a plain decimal"),
    "a number for a decimal": (POLICY.replace(b'"12.5"', b"12.5"), "epsilon_per_year: Input should be a valid string"),
    "two members": (POLICY.replace(b'"minimum_members":3', b'"minimum_members":2'), "minimum_members"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_message(name: str) -> None:
    data, reason = REFUSED[name]
    kind: TypeAdapter[Any] = m.ANSWER if b'"kind":"abort"' not in data else m.REQUEST
    with pytest.raises(MalformedMessage, match=reason):
        decode(kind, data)


@pytest.mark.parametrize("name", POLICY_REFUSED)
def test_refused_decimal(name: str) -> None:
    data, reason = POLICY_REFUSED[name]
    with pytest.raises(MalformedMessage, match=reason):
        decode(InstitutionPolicy, data)


def test_every_refusal_is_about_changed_bytes() -> None:
    """A `replace` that hits nothing would test nothing."""
    good = {VOTE, UPDATE, SHARES, ABORT, POLICY}
    assert not [name for name, (data, _) in (REFUSED | POLICY_REFUSED).items() if data in good]


def test_too_long_is_refused_before_it_is_parsed() -> None:
    longest = b"[" * MAX_MESSAGE_BYTES
    with pytest.raises(MalformedMessage, match=f"{MAX_MESSAGE_BYTES + 1} bytes, at most {MAX_MESSAGE_BYTES} are"):
        decode(m.ANSWER, longest + b"[")
    with pytest.raises(MalformedMessage, match="RecursionError"):
        decode(m.ANSWER, longest)
    assert decode(m.ANSWER, VOTE, limit=len(VOTE)) == MESSAGES["adapter-vote"]
    with pytest.raises(MalformedMessage, match=f"at most {len(VOTE) - 1} are accepted"):
        decode(m.ANSWER, VOTE, limit=len(VOTE) - 1)


@pytest.mark.parametrize("place", ["field", "value", "kind"])
def test_a_reason_quotes_a_stranger_briefly(place: str) -> None:
    foreign = b"x" * 100_000
    data = {
        "field": VOTE.replace(b'"round":3', b'"round":3,"' + foreign + b'":1'),
        "value": VOTE.replace(b'"clinics"', b'"' + foreign + b'"'),
        "kind": VOTE.replace(b"adapter-vote", foreign),
    }[place]
    with pytest.raises(MalformedMessage) as caught:
        decode(m.ANSWER, data)
    assert len(str(caught.value)) < 3000


READERS: dict[str, list[Any]] = {
    "messages": [m.REQUEST, m.ANSWER],
    "documents": [Statement],
    "envelopes": [Envelope],
    "log": [LogEntry, LogPiece, LogReceipt],
}
GOLDEN = {(folder, name): golden(folder, name) for folder, name in objects()}


def read(folder: str, data: bytes) -> None:
    """Whatever is accepted encodes back to the same bytes; everything else is MalformedMessage."""
    for reader in READERS[folder]:
        try:
            item = decode(reader, data)
        except MalformedMessage:
            continue
        assert encode(item) == data


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_only_malformed_message(folder: str, data: bytes) -> None:
    read(folder, data)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_mutated_golden_bytes_raise_only_malformed_message(data: st.DataObject) -> None:
    folder, name = data.draw(st.sampled_from(sorted(GOLDEN)))
    good = GOLDEN[folder, name]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    inserted = data.draw(
        st.binary(max_size=6) | st.sampled_from([b'"', b"{", b"[", b"null", b"1.0", b"\\u0000", b"\\ud800", b"1e999"])
    )
    read(folder, good[:start] + inserted + good[end:])


FIELDS = sorted({key for data in GOLDEN.values() for key in json.loads(data)})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(FIELDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(GOLDEN)), st.sampled_from(FIELDS), JSON)
@settings(max_examples=300, deadline=None)
def test_golden_with_a_foreign_value_raises_only_malformed_message(
    which: tuple[str, str], field: str, value: object
) -> None:
    """Canonical but for what it says: so that the checks behind the parser are reached."""
    changed = json.loads(GOLDEN[which]) | {field: value}
    read(
        which[0],
        json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"),
    )
