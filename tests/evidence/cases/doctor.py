"""Hands for the forger: one honest job, changed, and signed again by whoever can."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.sign import read_envelope, sign_message
from fl_alliance.protocol.envelope import STATEMENT_TYPE
from tests.evidence.alliance import key_of, plan_of
from tests.evidence.paper import Files, Lie, Paper
from tests.evidence.sealing import STANDING, bundled, coordinators, manifested, zipped

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's base point (RFC 8032, 5.1)."""


def one(*, lies: Mapping[str, Lie] | None = None, signers: Mapping[str, str] | None = None, **plan: Any) -> Paper:
    """One job of one round; everybody took part."""
    return Paper(lies=lies, signers=signers).job(plan_of(**{"rounds": 1} | plan))


@functools.cache
def _honest() -> Files:
    return one().evidence["lagos", "job-1"]


def honest() -> Files:
    """The files of one honest job, without a manifest."""
    return dict(_honest())


def again(files: Mapping[str, bytes]) -> bytes:
    """The bundle, after the institution signed both lists again; what it holds besides the job is honest."""
    return zipped(bundled({"job-1": manifested(files)}, more={name: honest()[name] for name in STANDING}))


def tiny(**changes: Any) -> Files:
    """The files of a bundle that holds, the smallest one: the coordinator's, before its first job."""
    return coordinators({}, Paper().standing("office"), **changes)


def changed(name: str, change: Callable[[bytes], bytes], files: Mapping[str, bytes] | None = None) -> bytes:
    """One file changed; the institution signed both lists again."""
    given = honest() if files is None else files
    return again({**given, name: change(given[name])})


def without(*names: str) -> bytes:
    """Files taken out, those whose names begin so; the institution signed both lists again."""
    files = {name: data for name, data in honest().items() if not name.startswith(names)}
    assert len(files) < len(honest())
    return again(files)


def enveloped(payload: bytes, signer: str | IdentityKey, label: str = STATEMENT_TYPE) -> bytes:
    """Whatever bytes, signed: a signature makes no document canonical."""
    return sign_message(key_of(signer) if isinstance(signer, str) else signer, label, payload)


def respelt(old: bytes, new: bytes, signer: str) -> Callable[[bytes], bytes]:
    """The payload with other bytes in one place, signed again."""

    def change(data: bytes) -> bytes:
        body = base64.b64decode(json.loads(data)["payload"])
        assert body.count(old) >= 1, body
        return enveloped(body.replace(old, new, 1), signer)

    return change


def relabelled(label: str, signer: str) -> Callable[[bytes], bytes]:
    """The same payload as something else, signed again."""
    return lambda data: enveloped(read_envelope(data).body, signer, label)


def fields(data: bytes, **changes: Any) -> bytes:
    """An envelope with other fields, canonical as before."""
    return json.dumps(json.loads(data) | changes, sort_keys=True, separators=(",", ":")).encode()


def signature(data: bytes, **changes: Any) -> bytes:
    """An envelope with another signature."""
    (only,) = json.loads(data)["signatures"]
    return fields(data, signatures=[only | changes])
