"""A coordinator that shows one list of survivors to some members and another to others.

For a survivor its self seed is rebuilt, for a dropped member its mask seed. Who gets both takes off every mask.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_alliance.errors import SecretUnavailable
from fl_alliance.secagg import derive, shares
from tests.attacks.alliance import Round, read, rebuild, share_read, strip

VICTIM, COLLUDER = "clinic-4", "clinic-0"
HONEST = ("clinic-1", "clinic-2", "clinic-3")
ALL = ("clinic-0", "clinic-1", "clinic-2", "clinic-3", "clinic-4")
ALL_BUT_VICTIM = ALL[:-1]
ALL_BUT_ANOTHER = ("clinic-0", "clinic-1", "clinic-2", "clinic-4")

Pairs = Mapping[str, shares.SharePair]


def revealed(seen: Round, pairs: Mapping[str, Pairs], lists: Mapping[str, Collection[str]]) -> dict[str, bytes]:
    """Return what each member of `lists` reveals to the colluder, for the list that it was shown."""
    return {
        name: shares.reveal_self_shares(pairs[name], shown, **seen.session(name))[COLLUDER]
        for name, shown in lists.items()
    }


def recover(seen: Round, sealed: Mapping[str, bytes], survivors: Collection[str]) -> dict[str, bytes]:
    return shares.recover_self_seeds(sealed, survivors=survivors, threshold=seen.threshold, **seen.session(COLLUDER))


# ---- shares for one list, used for another


def switch_list_off(patch: pytest.MonkeyPatch) -> None:
    """Hook: the keys of revealed shares no longer depend on the list."""
    key_for = shares.key_for
    patch.setattr(shares, "key_for", lambda purpose, secret, context, *f: key_for(purpose, secret, context, *f[:2]))


@pytest.mark.parametrize("other", [ALL, ALL_BUT_ANOTHER])
def test_shares_for_one_list_do_not_open_under_another(other):
    """Attacker relays what was revealed for one list to a member that was shown another. Saw: a refusal."""
    seen = Round(5, threshold=3)
    sealed = revealed(seen, seen.dealt(), dict.fromkeys(HONEST, ALL_BUT_VICTIM))
    with pytest.raises(SecretUnavailable, match=r"shares of 0 members, need 3; not opened: \['clinic-1', 'clinic-2'"):
        recover(seen, sealed, other)
    assert recover(seen, sealed, ALL_BUT_VICTIM) == {name: seen.secrets[name].self_seed for name in ALL_BUT_VICTIM}


def test_without_the_list_in_the_key_shares_of_one_member_pass_for_anothers(monkeypatch):
    """Defence off: the list is not in the key. Learnt by the relay: it can swap seeds under two lists of one length."""
    switch_list_off(monkeypatch)
    seen = Round(5, threshold=3)
    sealed = revealed(seen, seen.dealt(), dict.fromkeys(HONEST, ALL_BUT_VICTIM))
    assert recover(seen, sealed, ALL_BUT_ANOTHER)["clinic-4"] == seen.secrets["clinic-3"].self_seed


def test_neither_list_reaches_the_threshold_when_members_are_split():
    """Attacker shows one list to two honest members and another to the third, and has one colluder, who reveals for
    both. Saw: three shares for one list and two for the other. Learnt: seeds for one list only, as t > n/2 promises.
    """
    seen = Round(5, threshold=3)
    pairs = seen.dealt()
    shown = {"clinic-1": ALL, "clinic-2": ALL, "clinic-3": ALL_BUT_VICTIM}
    first = revealed(seen, pairs, {**shown, COLLUDER: ALL})
    second = revealed(seen, pairs, {**shown, COLLUDER: ALL_BUT_VICTIM})
    assert set(recover(seen, first, ALL)) == set(ALL)
    with pytest.raises(SecretUnavailable, match="shares of 2 members, need 3"):
        recover(seen, second, ALL_BUT_VICTIM)


# ---- both shares of one member

Answer = Callable[[Round, Pairs, str, Collection[str]], list[bytes]]
"""What a member gives to the colluder when it is shown a list: sealed rows of shares."""


def honest_answer(seen: Round, pairs: Pairs, name: str, shown: Collection[str]) -> list[bytes]:
    """Self shares of those in the list, and nothing of those who are not."""
    return [shares.reveal_self_shares(pairs, shown, **seen.session(name))[COLLUDER]]


def answer_with_both(seen: Round, pairs: Pairs, name: str, shown: Collection[str]) -> list[bytes]:
    """Hook: also the mask shares of those who are not in the list, though another list had them."""
    swapped = {
        owner: shares.SharePair(index=pair.index, self_share=pair.mask_share, mask_share=pair.self_share)
        for owner, pair in pairs.items()
    }
    also = [] if VICTIM in shown else honest_answer(seen, swapped, name, ALL)
    return honest_answer(seen, pairs, name, shown) + also


def open_as_colluder(seen: Round, sender: str, data: bytes) -> bytes:
    """Open a sealed row with the colluder's channel key, whichever list it is for; return the shares in it."""
    shared = derive.exchange(seen.secrets[COLLUDER].channel_private, seen.publics[sender].channel, sender)
    for names in (ALL, ALL_BUT_VICTIM):
        digest = hashlib.sha256(derive.join(tuple(names))).hexdigest()
        key = derive.key_for("self-share", shared, seen.context, sender, COLLUDER, digest)
        with contextlib.suppress(InvalidTag):
            return ChaCha20Poly1305(key).decrypt(data[:12], data[12:], None)[2:]
    raise AssertionError("the colluder can open what is sealed to it")


def seeds_in(seen: Round, rows: Mapping[str, bytes]) -> list[bytes]:
    """Rebuild a seed from each place of the senders' rows, whatever it is a seed of."""
    size = len(next(iter(rows.values())))
    index = {name: place for place, name in enumerate(seen.names, 1)}
    return [rebuild([(index[name], row[at : at + 16]) for name, row in rows.items()]) for at in range(0, size, 16)]


def unmask_with_two_lists(answer: Answer) -> float:
    """Ask three members for two lists, rebuild every seed that can be rebuilt, and strip the victim's masks.

    Returns: the share of the victim's coordinates that the best pair of seeds reads.
    """
    seen = Round(5, threshold=3, dimension=1000)
    pairs, seeds = seen.dealt(), []
    for shown in (ALL, ALL_BUT_VICTIM):
        given = {name: answer(seen, pairs[name], name, shown) for name in HONEST}
        for column in zip(*given.values(), strict=True):
            rows = {name: open_as_colluder(seen, name, data) for name, data in zip(given, column, strict=True)}
            seeds += seeds_in(seen, rows)
    masked = seen.masked(VICTIM)
    tried = (strip(masked, VICTIM, seen, self_seed=one, mask_seed=two) for one in seeds for two in seeds)
    return max(share_read(read(left, seen.parameters, seen.dimension), seen.digits[VICTIM]) for left in tried)


def test_answers_to_two_lists_do_not_unmask_the_one_whom_they_disagree_on():
    """Attacker holds: the wire, the alliance key, a colluder's secrets; it even gets three honest members to answer
    both a list with the victim and one without. Saw: its self seed. Learnt: nothing; its mask seed is in no answer.
    """
    assert unmask_with_two_lists(honest_answer) < 0.01


def test_members_that_give_both_shares_unmask_the_one_whom_the_lists_disagree_on():
    """Defence off: who is shown a list without the victim gives the share of its mask seed, after that of its self
    seed. Learnt: the victim's update, exactly.
    """
    assert unmask_with_two_lists(answer_with_both) == 1.0
