"""Steps 1 to 3: who signed the lists, and whether anybody knows him."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from fl_alliance.evidence.bundle import BUNDLE, MANIFEST
from fl_alliance.evidence.keys import AllianceRoot
from fl_alliance.protocol.codec import encode
from fl_alliance.protocol.documents import AllianceMembers
from tests.evidence.alliance import key_of, members_of, plan_of, policy_of
from tests.evidence.cases.case import (
    COLLUDERS,
    COORDINATOR,
    INSTITUTION,
    MEMBER,
    OUTSIDER,
    ROOT_HOLDER,
    Inputs,
    refused,
)
from tests.evidence.cases.doctor import ORDER, again, fields, honest, one, signature, tiny
from tests.evidence.paper import NEUTRAL, Neutral, Paper, signed
from tests.evidence.sealing import STANDING, bundled, coordinators, handed_out, listed, manifested, zipped

MEMBERS, KEYS = "members.dsse.json", "root.pub.json"
LIST = f"jobs/job-1/{MANIFEST}"


def with_identity(name: str, key: str) -> AllianceMembers:
    """The list with another key for one of its members; nobody has validated it."""
    members = members_of()
    changed_one = tuple(m.model_copy(update={"identity": key}) if m.name == name else m for m in members.members)
    return members.model_copy(update={"members": changed_one})


def with_key(change: Callable[[bytes], bytes]) -> Inputs:
    """The smallest bundle with another file of the root's key; the coordinator signed the list again."""
    files = Paper().standing("office")
    return zipped(coordinators({}, files | {KEYS: change(files[KEYS])}))


# ---- (1) manifest


@refused(1, MEMBERS, "digest", by=OUTSIDER)
def file_changed_and_checksum_mended() -> Inputs:
    """One letter of a file is another, and the zip file's checksums are right again: only the digest is not."""
    files = tiny()
    return zipped(files | {MEMBERS: files[MEMBERS].replace(b"A", b"B", 1)})


@refused(1, "ledger.jsonl", "is missing", by=OUTSIDER)
def file_taken_out() -> Inputs:
    """The ledger was taken out; the lists still name it."""
    files = bundled({"job-1": manifested(honest())})
    return zipped({name: data for name, data in files.items() if name != "ledger.jsonl"})


@refused(1, "jobs/job-1/rounds/0001/messages/adapter-vote.oslo.json", "is not listed", by=OUTSIDER)
def file_put_in() -> Inputs:
    """A file was put in that no list names."""
    files = bundled({"job-1": manifested(honest())})
    return zipped(files | {"jobs/job-1/rounds/0001/messages/adapter-vote.oslo.json": b"{}"})


@refused(1, LIST, "is missing", by=OUTSIDER)
def manifest_taken_out() -> Inputs:
    """The job's own list was taken out: nothing says what belongs to the job."""
    files = bundled({"job-1": manifested(honest())})
    return zipped({name: data for name, data in files.items() if name != LIST})


@refused(1, "jobs/job-2", "is not one of the jobs", by=OUTSIDER)
def job_put_in() -> Inputs:
    """A second job's folder, of another bundle of the same institution, was put in."""
    first, second = bundled({"job-1": manifested(honest())}), manifested(honest())
    return zipped(first | {f"jobs/job-2/{name}": data for name, data in second.items()})


@refused(1, "jobs/job-1/report.html", "alone", by=INSTITUTION)
def file_listed_twice() -> Inputs:
    """The page for people is in the list of the job and in that of the bundle: two lists could disagree."""
    part = manifested(honest())
    besides = {name: part[name] for name in STANDING}
    own = besides | {LIST: part[MANIFEST], "jobs/job-1/report.html": part["report.html"]}
    return zipped(bundled({"job-1": part}, files=listed(own)))


@refused(1, "notes.txt", "does not belong to evidence", by=INSTITUTION)
def file_that_nobody_checks() -> Inputs:
    """The bundle's signed list names a file that no step reads: records could leave the house in it."""
    return zipped(bundled({"job-1": manifested(honest())}, more=Paper().standing("lagos") | {"notes.txt": b"a record"}))


@refused(1, "jobs/job-1/update.bin", "does not belong to evidence", by=INSTITUTION)
def file_that_nobody_checks_in_a_job() -> Inputs:
    """The job's signed list names a file that no step reads: an update could leave the house in it."""
    return again({**honest(), "update.bin": b"an update"})


@refused(1, BUNDLE, "canonical", by=OUTSIDER)
def list_with_blanks() -> Inputs:
    """The signed list is written with blanks: its payload and signature are the same, its bytes are not."""
    files = tiny()
    return zipped(files | {BUNDLE: json.dumps(json.loads(files[BUNDLE])).encode()})


@refused(1, BUNDLE, "exactly one", by=OUTSIDER)
def signature_doubled() -> Inputs:
    """The list's one signature stands twice in its envelope."""
    files = tiny()
    return zipped(files | {BUNDLE: fields(files[BUNDLE], signatures=json.loads(files[BUNDLE])["signatures"] * 2)})


@refused(1, BUNDLE, "does not verify", by=OUTSIDER)
def signature_plus_the_groups_order() -> Inputs:
    """The second half S of the list's signature is S + L: the same modulo the group's order L (RFC 8032, 5.1.7)."""
    files = tiny()
    raw = base64.b64decode(json.loads(files[BUNDLE])["signatures"][0]["sig"])
    more = (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    return zipped(files | {BUNDLE: signature(files[BUNDLE], sig=base64.b64encode(raw[:32] + more).decode())})


@refused(1, BUNDLE, "base64 ends in bits that stand for nothing", by=OUTSIDER)
def base64_with_stray_bits() -> Inputs:
    """The last digit of the signature's base64 has other bits where no decoder looks: the same 64 bytes."""
    files = tiny()
    text = json.loads(files[BUNDLE])["signatures"][0]["sig"]
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:-3] + digits[digits.index(text[-3]) ^ 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(text)
    return zipped(files | {BUNDLE: signature(files[BUNDLE], sig=other)})


# ---- (2) root


@refused(2, KEYS, "is missing", by=OUTSIDER)
def bundle_of_nothing() -> Inputs:
    """A stranger signed a list of one policy as lagos, with no job: nothing in it says whose key it is."""
    policy = signed(key_of("mallory"), policy_of())
    return zipped(bundled({}, signer="mallory", more={"policy.dsse.json": policy}))


@refused(2, KEYS, "fingerprint", by=ROOT_HOLDER)
def another_root() -> Inputs:
    """Somebody made an alliance of the same names and keys with a root of his own; only the fingerprint tells."""
    files = Paper(signers={"members.1": "mallory"}).standing("office")
    return zipped(coordinators({}, files | {KEYS: encode(AllianceRoot(key=key_of("mallory").public_text))}))


@refused(2, f"jobs/job-1/{KEYS}", "fingerprint", by=INSTITUTION)
def another_root_in_a_job() -> Inputs:
    """The bundle has the right root; its job has another one, which signed the list of members there."""
    paper = one(signers={"members.1": "mallory"})
    own = {KEYS: encode(AllianceRoot(key=key_of("mallory").public_text))}
    return again(paper.evidence["lagos", "job-1"] | own)


@refused(2, KEYS, "Invalid JSON", by=COORDINATOR)
def byte_order_mark() -> Inputs:
    """The root's key begins with a byte-order mark: the same text for many a reader."""
    return with_key(lambda data: b"\xef\xbb\xbf" + data)


@refused(2, KEYS, "not JSON", by=COORDINATOR)
def duplicate_key_in_json() -> Inputs:
    """The root's key is given twice, first another one: readers differ in which one counts."""
    other = b'{"key":"' + key_of("mallory").public_text.encode() + b'",'
    return with_key(lambda data: other + data[1:])


@refused(2, KEYS, "small order", by=ROOT_HOLDER, root=None)
def root_of_small_order() -> Inputs:
    """The root's key is the neutral point, under which anybody can sign a list of members."""
    return with_key(lambda _: encode(AllianceRoot(key=Neutral.public_text)))


# ---- (3) members


@refused(3, "jobs/job-1/members.dsse.json", "signed with key", by=COORDINATOR)
def members_signed_by_the_coordinator() -> Inputs:
    """The job's list of members is signed by the coordinator in place of the root: it could admit whom it likes."""
    return again(one(signers={"members.1": "office"}).evidence["lagos", "job-1"])


@refused(3, "jobs/job-1/members.dsse.json", "two members have the same identity key", by=ROOT_HOLDER)
def ghost_with_the_key_of_another() -> Inputs:
    """The job's list has two members of one key: one party that counts twice."""
    paper = Paper(members=with_identity("berlin", key_of("lima").public_text)).job(plan_of(rounds=1))
    return again(paper.evidence["lagos", "job-1"])


@refused(3, "jobs/job-1/members.dsse.json", "small order", by=MEMBER)
def key_of_small_order() -> Inputs:
    """The key of lima in the list is the neutral point: a fixed signature, which anybody can write, verifies under it
    for every message, and lima can deny whatever it signs."""
    paper = Paper(members=with_identity("lima", Neutral.public_text), signers={"lima": NEUTRAL}).job(plan_of(rounds=1))
    return again(paper.evidence["lagos", "job-1"])


@refused(3, "jobs/job-1/members.dsse.json", "lagos has key", by=MEMBER)
def job_signed_by_another_member() -> Inputs:
    """The job's list of files, in lagos' bundle and in its name, is signed with lima's key."""
    besides = {name: honest()[name] for name in STANDING}
    return zipped(bundled({"job-1": manifested(honest(), signer="lima")}, more=besides))


@refused(3, "jobs/job-1/members.dsse.json", "is not among its institutions", by=COLLUDERS)
def job_signed_by_the_coordinator() -> Inputs:
    """The job's list of files, in lagos' bundle, is signed by the coordinator in its own name."""
    besides = {name: honest()[name] for name in STANDING}
    return zipped(bundled({"job-1": manifested(honest(), "office")}, more=besides))


@refused(3, f"jobs/job-1/{MANIFEST}", "party is lima, must be lagos", by=INSTITUTION, whole=True)
def job_of_another_institution() -> Inputs:
    """In lagos' bundle lies lima's own evidence of the job, which holds: lima's budget in place of lagos'."""
    besides = {name: honest()[name] for name in STANDING}
    lima = manifested(one().evidence["lima", "job-1"], "lima")
    return zipped(bundled({"job-1": lima}, more=besides))


@refused(3, MEMBERS, "lagos has key", by=INSTITUTION)
def expired_key() -> Inputs:
    """The list names lagos' new key; the evidence is signed with the one that it had before."""
    return Paper(members=with_identity("lagos", key_of("lagos, renewed").public_text)).job(plan_of(rounds=1))


@refused(3, MEMBERS, "lagos is no institution", by=INSTITUTION)
def revoked_institution() -> Inputs:
    """The root has struck lagos off the list; it hands out evidence of a job all the same."""
    return Paper(members=members_of(("berlin", "lima", "oslo")).model_copy(update={"serial": 2})).job(plan_of(rounds=1))


@refused(3, MEMBERS, "office is no institution", by=COORDINATOR)
def coordinator_as_institution() -> Inputs:
    """The coordinator hands out a bundle as if it were an institution."""
    return zipped(coordinators({}, Paper().standing("office"), role="institution"))


@refused(3, MEMBERS, "lima is no coordinator", by=MEMBER)
def institution_as_coordinator() -> Inputs:
    """An institution hands out a bundle as if it were the coordinator."""
    return zipped(coordinators({}, Paper().standing("office"), signer="lima", party="lima"))


@refused(3, MEMBERS, "the bundle is signed with", by=MEMBER)
def bundle_signed_by_a_stranger() -> Inputs:
    """lima put a bundle around lagos' own evidence and signed it in lagos' name."""
    return handed_out(one(), signer="lima")


@refused(3, MEMBERS, "lima has key", by=INSTITUTION)
def bundle_under_another_name() -> Inputs:
    """The bundle says that it is lima's; the job in it is lagos', whose key signed both."""
    return handed_out(one(), party="lima")


@refused(3, MEMBERS, "the bundle is of schools", by=COORDINATOR)
def bundle_of_another_alliance() -> Inputs:
    """The bundle says that it is of another alliance than its list of members."""
    return zipped(tiny(alliance="schools"))


@refused(4, "jobs/job-2/plan.dsse.json", "job is job-1, must be job-2", by=INSTITUTION, whole=True, written=False)
def cheap_job_under_two_names() -> Inputs:
    """The evidence of one job stands in two folders, the second time under the name of a dearer job."""
    part = manifested(honest())
    return zipped(bundled({"job-1": part, "job-2": part}))
