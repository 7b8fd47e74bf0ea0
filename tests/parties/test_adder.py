"""The coordinator's adder: a cache of work done early, that never changes what the sum is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_alliance.errors import BadUpload, SumRefused
from fl_alliance.parties.adder import UploadAdder
from fl_alliance.protocol.ids import BlobRef, blob_ref
from fl_alliance.secagg import cipher
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.secagg.worker import Performance
from tests.rounds.real import MemoryBlobs, names_of, real_plan

NAMES = names_of(3)
PARAMETERS = sum_parameters(members=3, bits=16)
KEY = cipher.AllianceKey.generate(PARAMETERS)
HERE = Performance(processes=0)


def upload_of(value: int, slots: int = 5) -> bytes:
    return cipher.seal(np.full(slots, value, np.uint64), key=KEY, parameters=PARAMETERS)


UPLOADS = {(name, number): upload_of(10 * number + place) for number in (1, 2) for place, name in enumerate(NAMES)}
BLOBS = MemoryBlobs()
REFS: dict[tuple[str, int], BlobRef] = {}
for _key, _data in UPLOADS.items():
    REFS[_key] = blob_ref(_data)
    BLOBS.put(REFS[_key], [_data])


def adder() -> UploadAdder:
    return UploadAdder(real_plan(3, 16), BLOBS, HERE)


def in_round(number: int, names: tuple[str, ...] = NAMES) -> Mapping[str, BlobRef]:
    return {name: REFS[name, number] for name in names}


def plainly(uploads: Mapping[str, BlobRef]) -> bytes:
    data = [BLOBS.data[ref.digest] for ref in uploads.values()]
    return cipher.add(data, parameters=PARAMETERS, slots=5, count=len(data))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from((1, 2))), max_size=8), st.booleans())
def test_whatever_arrived_before_and_in_whatever_order_the_sum_is_that_of_the_uploads_named(
    arrivals: list[tuple[str, int]], twice: bool
) -> None:
    """Late ones of the last round, the same one again, some of this round: as if nothing had been added early."""
    busy = adder()
    if twice:
        busy.total(in_round(1))
    for member, number in arrivals:
        busy.arrived(member, REFS[member, number])
    assert busy.total(in_round(2)) == plainly(in_round(2))


def test_the_last_upload_of_a_round_that_is_heard_of_after_its_sum_is_not_in_the_next_one() -> None:
    busy = adder()
    assert busy.total(in_round(1)) == plainly(in_round(1))
    busy.arrived(NAMES[2], REFS[NAMES[2], 1])
    for name in (NAMES[2], NAMES[0]):
        busy.arrived(name, REFS[name, 2])
    assert busy.total(in_round(2)) == plainly(in_round(2))


def test_an_upload_that_arrived_and_is_not_named_is_left_out() -> None:
    busy = adder()
    for name in NAMES:
        busy.arrived(name, REFS[name, 1])
    two = in_round(1, NAMES[:2])
    assert busy.total(two) == plainly(two)


def test_the_bad_one_is_named_and_the_others_are_added_without_it() -> None:
    busy, bad = adder(), upload_of(9)
    ref = blob_ref(bad)
    BLOBS.put(ref, [bad[:-1] + b"\0" if bad[-1] else bad[:-1] + b"\1"])
    busy.arrived(NAMES[1], ref)
    with pytest.raises(BadUpload) as refused:
        busy.total({**in_round(1), NAMES[1]: ref})
    assert refused.value.member == NAMES[1]
    rest = in_round(1, (NAMES[0], NAMES[2]))
    assert busy.total(rest) == plainly(rest)


def test_the_one_of_another_size_is_named_though_it_came_first() -> None:
    busy, long = adder(), upload_of(9, slots=6)
    ref = blob_ref(long)
    BLOBS.put(ref, [long])
    busy.arrived(NAMES[0], ref)
    with pytest.raises(BadUpload, match="6 slots, the others have 5"):
        busy.total({**in_round(1), NAMES[0]: ref})


def test_no_upload_is_no_sum() -> None:
    with pytest.raises(SumRefused):
        adder().total({})
