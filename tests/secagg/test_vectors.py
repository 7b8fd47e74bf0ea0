"""Both implementations against the vectors of docs/SPEC.md, against the page itself, and against each other."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from fl_alliance.errors import AllianceError
from fl_alliance.evidence.sign import open_message, read_envelope
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.codec import decode, encode
from fl_alliance.protocol.ids import digest_of
from fl_alliance.secagg import cipher, parameters, shares
from tests.secagg import make_vectors
from tests.secagg import second_implementation as second
from tests.secagg.implementations import First, Implementation, Round, Second, raw

SPEC = Path(__file__).parents[2] / "docs" / "SPEC.md"
REFUSALS = (AllianceError, second.Refused, InvalidTag)


def load(name: str) -> Any:
    return json.loads((make_vectors.HERE / f"{name}.json").read_text())


def doubles(text: str) -> list[float]:
    return [value for (value,) in struct.iter_unpack("<d", bytes.fromhex(text))]


@pytest.fixture(params=[First, Second])
def one(request: pytest.FixtureRequest) -> Implementation:
    return request.param()


# ---- the files


def test_parameters_are_the_ones_of_the_file(one):
    rows = load("parameters")
    assert len(rows) == 40
    for row in rows:
        assert one.parameters(row["n"], row["b"]) == row


@pytest.mark.parametrize(("n", "b"), [(2, 16), (1001, 16), (3, 7), (3, 32)])
def test_parameters_that_do_not_exist_are_refused(one, n, b):
    with pytest.raises(REFUSALS):
        one.parameters(n, b)


def test_keys_are_the_ones_of_the_file(one):
    file = load("keys")
    for row in file["keys"]:
        context = file["context"] if row["in_context"] else None
        assert one.derive(row["purpose"], bytes.fromhex(row["input"]), context, row["fields"]).hex() == row["key"]
    assert len({row["key"] for row in file["keys"]}) == len(file["keys"])
    x = raw(file["x25519"])
    assert one.x25519(x["private"], x["other"]) == (x["public"], x["shared"])


def test_keystreams_are_the_ones_of_the_file(one):
    for row in load("keystream"):
        made = one.keystream(bytes.fromhex(row["key"]), row["slots"], row["m"])
        assert len(made) == row["slots"]
        assert (made[:4], made[-4:]) == (row["first"], row["last"])
        assert hashlib.sha256(struct.pack(f"<{len(made)}Q", *made)).hexdigest() == row["sha256_of_le_words"]


def test_digits_and_means_are_the_ones_of_the_file_to_the_bit(one):
    for row in load("quantise"):
        clip, bits = float(row["clip"]), row["b"]
        assert one.quantise(doubles(row["update"]), clip, bits, bytes.fromhex(row["random"])) == row["digits"]
        mean = one.mean(row["total"], clip, bits, row["survivors"])
        assert struct.pack(f"<{len(mean)}d", *mean).hex() == row["mean"]


def test_a_digit_that_the_survivors_can_not_make_is_refused(one):
    assert one.mean([3 * 65535], 0.05, 16, 3) == pytest.approx([0.05])
    with pytest.raises(REFUSALS):
        one.mean([3 * 65535 + 1], 0.05, 16, 3)


def test_slots_are_the_ones_of_the_file_and_give_the_digits_back(one):
    for row in load("pack")["packed"]:
        assert one.pack(row["digits"], row["n"], row["b"]) == row["slots"]
        assert one.unpack(row["slots"], row["n"], row["b"], len(row["digits"])) == row["digits"]


@pytest.mark.parametrize("row", load("pack")["refused"], ids=lambda row: row["why"])
def test_slots_that_no_sum_leaves_are_refused(one, row):
    with pytest.raises(REFUSALS):
        one.unpack(row["slots"], row["n"], row["b"], row["dimension"])


def test_verifiers_are_the_ones_of_the_file(one):
    for row in load("draw"):
        assert one.drawn(row["survivors_digest"], row["confirmed"], row["v"]) == row["drawn"]


def test_frames_are_the_ones_of_the_file_and_give_the_chunks_back(one):
    file = load("frame")
    chunks = [bytes.fromhex(chunk) for chunk in file["chunks"]]
    about = (file["n"], file["b"], file["slots"])
    for kind, name in ((1, "upload"), (2, "sum")):
        assert one.frame(kind, chunks, *about).hex() == file[name]
        assert one.chunks(kind, bytes.fromhex(file[name]), *about) == chunks


@pytest.mark.parametrize("row", load("frame")["refused"], ids=lambda row: row["why"])
def test_frames_that_must_be_refused_are(one, row):
    with pytest.raises(REFUSALS):
        one.chunks(1, bytes.fromhex(row["frame"]), 4, 16, 5000)


def test_the_wrapped_content_key_opens_for_its_holder_and_info_only(one):
    row = load("keywrap")
    wrapped, private = bytes.fromhex(row["wrapped"]), bytes.fromhex(row["private"])
    assert len(wrapped) == 80
    assert one.unwrap(wrapped, private, row["wrap_info"]).hex() == row["content_key"]
    with pytest.raises((*REFUSALS, InvalidTag)):
        one.unwrap(wrapped, private, row["wrap_info"].replace("lagos", "quito"))


def test_the_content_key_opens_the_sealed_key_under_its_fingerprint_only(one):
    row = load("keywrap")
    sealed, content_key = bytes.fromhex(row["sealed"]), bytes.fromhex(row["content_key"])
    key = one.open_key(sealed, content_key, row["seal_info"])
    assert (key.hex(), one.fingerprint(key)) == (row["key"], row["fingerprint"])
    assert row["seal_info"].endswith(row["fingerprint"])
    with pytest.raises((*REFUSALS, InvalidTag)):
        one.open_key(sealed, content_key, row["seal_info"].replace(row["fingerprint"], one.fingerprint(b"")))


# ---- the whole round of the file


ROUND = load("round")
THERE, GONE = ROUND["survivors"], ROUND["dropped"]
DEALERS = sorted([*THERE, *GONE])
FILE_ROUND = Round(
    ROUND["plan"]["n"], ROUND["plan"]["b"], ROUND["plan"]["threshold"], ROUND["context"], ROUND["members"]
)
SLOTS = len(ROUND["result"]["opened"])


def blob(name: str) -> bytes:
    data = (make_vectors.HERE / "round" / name).read_bytes()
    assert {"digest": digest_of(data), "length": len(data)} == ROUND["files"][name]
    return data


def test_round_keys_and_masked_vectors_are_the_ones_of_the_file(one):
    party = one.party(FILE_ROUND)
    for name, row in ROUND["members"].items():
        assert tuple(key.hex() for key in party.keys(name)) == (row["mask_key"], row["channel_key"])
        digits = one.quantise(doubles(row["update"]), float(ROUND["plan"]["clip"]), 16, bytes.fromhex(row["random"]))
        assert digits == row["digits"]
        assert one.pack(digits, 4, 16) == row["slots"]
        assert party.mask(name, row["slots"], DEALERS) == row["masked"]


def test_dealt_shares_of_the_file_open_to_the_shares_of_the_file(one):
    party = one.party(FILE_ROUND)
    for name, row in ROUND["members"].items():
        opened = party.open_dealt(name, {sender: bytes.fromhex(to[name]) for sender, to in ROUND["dealt"].items()})
        assert {
            sender: {"self_share": self_share.hex(), "mask_share": mask_share.hex()}
            for sender, (self_share, mask_share) in opened.items()
        } == row["holds"]


def test_shares_dealt_to_another_do_not_open(one):
    with pytest.raises(REFUSALS):
        one.party(FILE_ROUND).open_dealt("lagos", {"berlin": bytes.fromhex(ROUND["dealt"]["berlin"]["quito"])})


def test_shares_of_another_place_than_the_recipients_are_refused(one):
    """A dealer that lies can seal what it likes; a share of another index would spoil the seed later."""
    mine = FILE_ROUND.second["berlin"]
    roster = {name: member.keys for name, member in FILE_ROUND.second.items()}
    key = second.share_key(mine, "lagos", "berlin", "lagos", roster, Second().context(FILE_ROUND.context))
    for index, opens in ((2, True), (3, False)):
        sealed = {"berlin": second._boxed(key, struct.pack(">H", index) + bytes(32))}
        if opens:
            assert one.party(FILE_ROUND).open_dealt("lagos", sealed) == {"berlin": (bytes(16), bytes(16))}
        else:
            with pytest.raises(REFUSALS):
                one.party(FILE_ROUND).open_dealt("lagos", sealed)


def test_revealed_shares_of_the_file_recover_its_seeds(one):
    seeds = one.party(FILE_ROUND).recover(raw(ROUND["revealed"]), THERE, GONE, blob("alliance-key.bin"))
    expected = {**ROUND["result"]["self_seeds"], **ROUND["result"]["mask_seeds"]}
    assert {name: seed.hex() for name, seed in seeds.items()} == expected
    assert all(expected[name] == ROUND["members"][name]["self_seed"] for name in THERE)
    assert all(expected[name] == ROUND["members"][name]["mask_seed"] for name in GONE)


def test_revealed_shares_do_not_open_under_other_lists(one):
    with pytest.raises(REFUSALS):
        one.party(FILE_ROUND).recover(raw(ROUND["revealed"]), DEALERS, [], blob("alliance-key.bin"))


def test_two_revealed_shares_of_three_recover_nothing(one):
    two = dict(list(raw(ROUND["revealed"]).items())[:2])
    with pytest.raises(REFUSALS):
        one.party(FILE_ROUND).recover(two, THERE, GONE, blob("alliance-key.bin"))


def test_uploads_of_the_file_add_to_the_same_bytes_in_any_order(one):
    uploads = [blob(f"upload-{name}.bin") for name in THERE]
    party = one.party(FILE_ROUND)
    assert party.add(uploads, SLOTS) == party.add(uploads[::-1], SLOTS) == blob("sum.bin")


def test_the_sum_of_the_file_opens_to_the_survivors_exact_sum_and_mean(one):
    party, result = one.party(FILE_ROUND), ROUND["result"]
    key = blob("alliance-key.bin")
    assert one.fingerprint(key) == ROUND["alliance_key_fingerprint"]
    opened = party.decrypt(blob("sum.bin"), key, SLOTS)
    assert opened == result["opened"]
    clear = party.unmask(opened, raw({**result["self_seeds"], **result["mask_seeds"]}), THERE, GONE)
    assert clear == result["unmasked"]
    digits = one.unpack(clear, 4, 16, ROUND["plan"]["dimension"])
    expected = [sum(digit) for digit in zip(*(ROUND["members"][name]["digits"] for name in THERE), strict=True)]
    assert digits == result["digits"] == expected
    mean = one.mean(digits, float(ROUND["plan"]["clip"]), 16, len(THERE))
    assert struct.pack(f"<{len(mean)}d", *mean).hex() == result["mean"]


def test_without_the_dropped_members_masks_the_sum_is_refused(one):
    party, result = one.party(FILE_ROUND), ROUND["result"]
    clear = party.unmask(result["opened"], raw(result["self_seeds"]), THERE, [])
    with pytest.raises(REFUSALS):
        one.unpack(clear, 4, 16, ROUND["plan"]["dimension"])


# ---- messages


def identities() -> dict[str, bytes]:
    return {name: bytes.fromhex(row["identity"]) for name, row in ROUND["members"].items()}


LISTS = {"key-roster": "round_keys", "share-delivery": "sealed_shares", "survivor-list": "sealed_updates"}


@pytest.mark.parametrize(("kind", "field"), LISTS.items())
def test_lists_have_their_digests_and_hold_what_was_signed(kind, field):
    payload, digest = ROUND["messages"][kind]["payload"].encode(), ROUND["messages"][kind]["digest"]
    assert encode(decode(m.REQUEST, payload)) == payload == second.canonical(json.loads(payload))
    assert digest_of(payload) == digest == second.digest(payload)
    senders = []
    for text in json.loads(payload)[field]:
        envelope = base64.b64decode(text)
        sender, message = second.read_answer(envelope, identities(), ROUND["coordinator"])
        label = read_envelope(envelope).payload_type
        ours = open_message(envelope, expected_label=label, public_key=identities()[sender])
        assert encode(decode(m.ANSWER, ours)) == second.canonical(message)
        assert message.get("roster_digest", ROUND["context"]["roster_digest"]) == ROUND["context"]["roster_digest"]
        senders.append(sender)
    assert senders == (THERE if kind == "survivor-list" else DEALERS)


def test_each_digest_is_what_the_next_message_was_signed_for():
    messages = ROUND["messages"]
    assert messages["key-roster"]["digest"] == ROUND["context"]["roster_digest"]
    survivors = json.loads(messages["survivor-list"]["payload"])
    assert survivors["sum"] == ROUND["files"]["sum.bin"]
    for text in survivors["sealed_updates"]:
        sender, update = second.read_answer(base64.b64decode(text), identities(), "hub")
        assert update["dealers_digest"] == messages["share-delivery"]["digest"]
        assert update["upload"] == ROUND["files"][f"upload-{sender}.bin"]


def test_lists_digest_is_the_one_of_the_file():
    ours = shares.Lists.of(dealers=DEALERS, survivors=THERE).digest
    assert ours == second.lists_digest(THERE, GONE) == ROUND["lists_digest"]


# ---- rounds that are not in a file: five in the roster, one of whom vanishes


NAMES = ["ants", "bees", "cats", "dogs", "elks"]


def five(what: str) -> Round:
    sizes = {"mask_seed": 16, "self_seed": 16, "channel_private": 32}
    secrets = {
        name: {key: make_vectors.drawn_bytes(f"{what} {name} {key}", size).hex() for key, size in sizes.items()}
        for name in NAMES
    }
    context = {"alliance": "zoo", "job": "j", "round": 9, "roster_digest": digest_of(b"roster")}
    return Round(5, 12, 3, context, secrets)


@pytest.mark.parametrize("mix", ["12121", "21212", "11222"])
def test_members_with_either_implementation_finish_one_round(mix):
    """One deals no shares, one vanishes after it dealt, three finish; each opens by itself."""
    this = five(mix)
    party = {name: (First, Second)[int(which) - 1]().party(this) for name, which in zip(NAMES, mix, strict=True)}
    dealers = ["ants", "cats", "dogs", "elks"]
    there, gone = ["ants", "cats", "elks"], ["dogs"]
    dealt = {name: party[name].deal(name) for name in dealers}
    pairs = {name: party[name].open_dealt(name, {s: dealt[s][name] for s in dealers}) for name in there}
    p = second.parameters(5, 12)
    digits = {name: list(make_vectors.drawn_bytes(name, 40)) for name in there}
    slots = p.slots(40)
    key = cipher.AllianceKey.generate(parameters.sum_parameters(members=5, bits=12)).to_bytes()
    uploads = [
        party[name].encrypt(party[name].mask(name, second.pack(digits[name], p), dealers), key) for name in there
    ]
    sums = {party[name].add(uploads, slots) for name in there}
    assert len(sums) == 1
    revealed = {name: party[name].reveal(name, pairs[name], there, gone, key) for name in there}
    for name in there:
        opened = party[name].decrypt(next(iter(sums)), key, slots)
        clear = party[name].unmask(opened, party[name].recover(revealed, there, gone, key), there, gone)
        assert second.unpack(clear, p, 40) == [sum(column) for column in zip(*digits.values(), strict=True)]


def revealed_with_a_lie(one: Implementation, liar: str, about: str, revealers: list[str]) -> None:
    """Recover from the shares of `revealers`, of whom `liar` reveals a wrong one about `about`."""
    party, key = one.party(five("lie")), b"alliance key"
    dealt = {name: party.deal(name) for name in NAMES}
    there, gone = [name for name in NAMES if name != "dogs"], ["dogs"]
    revealed = {}
    for name in revealers:
        pairs = party.open_dealt(name, {sender: dealt[sender][name] for sender in NAMES})
        if name == liar:
            pairs[about] = (bytes(16), bytes(16))
        revealed[name] = party.reveal(name, pairs, there, gone, key)
    party.recover(revealed, there, gone, key)


@pytest.mark.parametrize("liar", ["ants", "bees", "cats", "elks"])
def test_one_wrong_share_among_more_than_the_threshold_is_refused(one, liar):
    with pytest.raises(REFUSALS, match="do not agree"):
        revealed_with_a_lie(one, liar, "cats", ["ants", "bees", "cats", "elks"])


@pytest.mark.parametrize("liar", ["ants", "bees", "elks"])
def test_a_wrong_share_of_a_mask_seed_is_refused_also_at_the_threshold(one, liar):
    with pytest.raises(REFUSALS, match="mask key"):
        revealed_with_a_lie(one, liar, "dogs", ["ants", "bees", "elks"])


def test_shares_without_a_lie_are_not_refused(one):
    revealed_with_a_lie(one, "nobody", "cats", ["ants", "bees", "cats", "elks"])
    revealed_with_a_lie(one, "nobody", "dogs", ["ants", "bees", "elks"])


# ---- page and files


def test_the_page_has_the_primes_and_sizes_of_both_implementations():
    page = SPEC.read_text()
    table = [int(word) for word in re.search(r"so that SEAL can batch:\n\n((?: +[\d ]+\n)+)", page)[1].split()]
    assert tuple(table) == parameters.PLAIN_MODULI == second.PRIMES
    assert f"0x{parameters.CIPHER_MODULUS:X}" in page
    assert second.Q == parameters.CIPHER_MODULUS
    assert f"s + {parameters.CHECK_SLOTS} with s = ceil(d / k)" in page


def test_the_page_names_every_message_and_each_of_its_fields():
    page = SPEC.read_text()
    bound = set(m.Bound.model_fields) | {"kind"}
    for adapter in (m.REQUEST, m.ANSWER):
        for schema in adapter.json_schema()["$defs"].values():
            fields = set(schema["properties"]) - bound
            kind = schema["properties"].get("kind", {}).get("const")
            if kind:
                assert kind in page
            missing = sorted(field for field in fields if field not in page)
            assert not missing, (kind, missing)


@pytest.mark.parametrize("name", sorted(make_vectors.FILES))
def test_the_files_are_what_the_generator_writes(name):
    """All but the wrapping of the key, which has randomness that no caller gives."""
    made = json.loads(make_vectors.text_of(make_vectors.FILES[name]()))
    file = load(name)
    if name == "keywrap":
        for drawn in ("wrapped", "content_key", "sealed"):
            assert len(made.pop(drawn)) == len(file.pop(drawn))
    assert made == file


def test_the_second_implementation_knows_nothing_of_the_first():
    assert "fl_alliance" not in Path(second.__file__).read_text().replace("fl-alliance", "")
