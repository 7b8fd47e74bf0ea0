"""A coordinator that puts its own keys where members' keys belong: the man in the middle of everything.

With its wrap key in place of a member's it gets the alliance key; with its round keys in place of everybody else's it
gets the victim's shares and knows the other end of each of its masks. Signatures of pinned identities stand against it.
"""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.parties import mail
from fl_alliance.protocol import messages as m
from fl_alliance.protocol.ids import digest_of
from fl_alliance.secagg import keywrap, masks, shares
from fl_alliance.secagg.frame import Kind
from tests.attacks import lattice
from tests.attacks.alliance import read, rebuild, share_read, strip
from tests.attacks.wire import Refused, Wire, relay


def switch_signatures_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: whoever a label names is believed."""
    patch.setattr(mail, "open_envelope", lambda envelope, **_: envelope.body)


class PosingKey(IdentityKey):
    """The attacker's own key that states the fingerprint of a member's."""

    def __init__(self, poses_as: IdentityKey) -> None:
        super().__init__(Ed25519PrivateKey.generate())
        self.stated = poses_as.keyid

    @property
    def keyid(self) -> str:
        return self.stated


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Middle:
    """The coordinator, without a helper, between the victim and everybody else."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.others = [name for name in wire.names if name != wire.victim]
        self.secrets = {name: masks.RoundSecrets.generate() for name in self.others}
        self.alliance_key = b""

    def forge(self, name: str, answer: m.Answer) -> str:
        """Return an answer of `name`, signed with an own key that states the fingerprint of its key."""
        return self.wire.sign(name, answer, PosingKey(self.wire.identities[name]))

    def swap_a_wrap_key(self) -> None:
        """Name an own wrap key as that of a member that is not the key maker, and unwrap what is wrapped to it."""
        wire, whose = self.wire, self.others[-1]
        accepted = wire.ask_all(wire.proposal())
        private, public = keywrap.generate_wrap_key()
        genuine = wire.answer(m.Acceptance, whose)
        accepted[whose] = self.forge(whose, genuine.model_copy(update={"wrap_key": text(public)}))
        envelope = wire.ask(wire.names[0], m.KeyRequest(**wire.bound, acceptances=relay(accepted)))
        keys = wire.answer(m.WrappedKeys, wire.names[0])
        wrapped = {to.member: base64.b64decode(to.sealed) for to in keys.wrapped}
        content_key = keywrap.unwrap_key(wrapped[whose], private, wire.info("content-key", whose))
        self.alliance_key = keywrap.open_key(
            base64.b64decode(keys.sealed_key), content_key, wire.info("alliance-key", keys.key_fingerprint)
        )
        wire.ask(wire.victim, m.KeyDelivery(**wire.bound, acceptances=relay(accepted), wrapped_keys=envelope))

    def swap_round_keys(self) -> None:
        """Give the victim a roster in which all others' keys are the coordinator's, and play these others to it."""
        wire = self.wire
        wire.round = 1
        keys = {wire.victim: wire.ask(wire.victim, m.RoundOpening(**wire.bound, previous_record=None))}
        for name, own in self.secrets.items():
            answer = m.RoundKeys(
                **wire.bound,
                plan_digest=digest_of(wire.plan_envelope),
                checkpoint=digest_of(wire.shown),
                mask_key=text(own.public.mask),
                channel_key=text(own.public.channel),
            )
            keys[name] = wire.said["round-keys", 1][name] = self.forge(name, answer)
        wire.roster, wire.dealers = m.KeyRoster(**wire.bound, round_keys=relay(keys)), wire.names
        dealt = {wire.victim: wire.ask(wire.victim, wire.roster)}
        dealt |= {name: self.forge(name, self.deal(name)) for name in self.others}
        wire.ask(wire.victim, m.ShareDelivery(**wire.bound, sealed_shares=relay(dealt)))

    def deal(self, name: str) -> m.SealedShares:
        sealed = shares.deal_shares(threshold=self.wire.plan.threshold, **self.session(name))
        to = tuple(m.ToMember(member=other, sealed=text(data)) for other, data in sorted(sealed.items()))
        return m.SealedShares(**self.wire.bound, roster_digest=self.wire.context.roster_digest, shares=to)

    def session(self, name: str) -> dict[str, object]:
        return {"secrets": self.secrets[name], "me": name, "publics": self.wire.publics, "context": self.wire.context}

    def read_the_victim(self) -> float:
        """Decrypt its upload, rebuild its self seed from its shares, strip; return the share that is read."""
        wire, victim = self.wire, self.wire.victim
        dealt = {to.member: base64.b64decode(to.sealed) for to in wire.answer(m.SealedShares, victim).shares}
        pairs = [
            shares.open_shares({victim: dealt[name]}, **self.session(name))[victim]  # type: ignore[arg-type]
            for name in self.others
        ]
        seed = rebuild([(pair.index, pair.self_share) for pair in pairs[: wire.plan.threshold]])
        key = lattice.key_from_bytes(self.alliance_key, wire.parameters)
        upload = wire.blob(wire.answer(m.SealedUpdate, victim).upload)
        masked = lattice.decrypt(Kind.UPLOAD, upload, key, wire.parameters, wire.slots)
        privates = {name: own.mask_private for name, own in self.secrets.items()}
        left = strip(masked, victim, wire, self_seed=seed, privates=privates)
        return share_read(read(left, wire.parameters, wire.dimension), wire.digits[victim])


@pytest.fixture
def middle(tmp_path) -> Middle:
    return Middle(Wire(tmp_path, 3, helpers=0))


def test_swapped_wrap_key_is_not_authentic(middle):
    """Attacker holds: the wire. Saw: the key maker's refusal, and no wrapped key. Learnt: nothing."""
    with pytest.raises(Refused, match="NotAuthentic: the signature does not verify"):
        middle.swap_a_wrap_key()
    assert not middle.wire.said["wrapped-keys", 0]


def test_swapped_round_keys_are_not_authentic(middle):
    """Attacker as above. Saw: the victim's refusal, and no share and no upload of it. Learnt: nothing."""
    middle.wire.start()
    with pytest.raises(Refused, match="NotAuthentic: the signature does not verify"):
        middle.swap_round_keys()
    assert not middle.wire.said["sealed-shares", 1]
    assert not middle.wire.said["sealed-update", 1]


def test_one_swapped_round_key_of_many_is_not_authentic(middle):
    """All other members' keys are genuine: one end of one mask would be enough for whoever helps the coordinator."""
    wire = middle.wire
    wire.start()
    wire.round = 1
    keys = wire.ask_all(m.RoundOpening(**wire.bound, previous_record=None))
    own = masks.RoundSecrets.generate().public
    changes = {"mask_key": text(own.mask), "channel_key": text(own.channel)}
    for changed in ({"mask_key": changes["mask_key"]}, {"channel_key": changes["channel_key"]}, changes):
        genuine = wire.answer(m.RoundKeys, "site-01")
        swapped = genuine.model_copy(update=changed)
        for forged, reason in (
            (middle.forge("site-01", swapped), "the signature does not verify"),
            (wire.sign("site-01", swapped, IdentityKey.generate()), "signed with key sha256:"),
            (wire.sign("site-01", swapped, wire.identities["coordinator"]), "signed with key sha256:"),
        ):
            roster = m.KeyRoster(**wire.bound, round_keys=relay({**keys, "site-01": forged}))
            with pytest.raises(Refused, match=f"NotAuthentic: {reason}"):
                wire.ask(wire.victim, roster)


def test_genuine_round_keys_of_one_member_do_not_pass_for_anothers(middle):
    """Attacker relabels nothing, as it can't, and puts one member's envelope in twice. Saw: a refusal."""
    wire = middle.wire
    wire.start()
    wire.round = 1
    keys = wire.ask_all(m.RoundOpening(**wire.bound, previous_record=None))
    with pytest.raises(Refused, match="MalformedMessage: key-roster holds two envelopes of site-00"):
        wire.ask(wire.victim, m.KeyRoster(**wire.bound, round_keys=relay({**keys, "site-01": keys["site-00"]})))


def test_without_signatures_the_man_in_the_middle_reads_the_update(monkeypatch, middle):
    """Defence off: signatures of relayed answers. Attacker holds: the wire and not one helper.
    Saw: the alliance key, the victim's shares, its upload. Learnt: every coordinate of it, exactly.
    """
    switch_signatures_off(monkeypatch)
    middle.swap_a_wrap_key()
    middle.swap_round_keys()
    assert middle.read_the_victim() == 1.0
