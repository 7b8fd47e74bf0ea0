"""What `bench.rounds` compares with: the ciphers of one round alone, and its blobs over HTTPS with mutual TLS alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fl_alliance.parties import setup, wiring
from fl_alliance.protocol.ids import BlobRef, blob_ref
from fl_alliance.secagg import cipher, fixedpoint, masks, packing
from fl_alliance.secagg.cipher import AllianceKey
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.store.blobs import FolderBlobs
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.flower.front import PublicFront
from fl_alliance.transport.flower.serving import Listener, bind
from fl_alliance.transport.flower.uploads import BlobRoutes

CLIP: Final = 0.25
BITS: Final = 16


@dataclass(frozen=True)
class Alone:
    """CPU seconds."""

    cipher: float
    """Of all members and the coordinator, in one process."""
    blobs: float
    """Of both ends."""


def measure(parameters: int, members: int, folder: Path) -> Alone:
    """Return what ciphers and blobs of a round take; `folder` holds the parties' TLS files."""
    start = time.process_time()
    uploads = _ciphers(parameters, members)
    middle = time.process_time()
    _carry(uploads, folder)
    return Alone(middle - start, time.process_time() - middle)


def _ciphers(dimension: int, members: int) -> list[bytes]:
    """Seal at each member, add at the coordinator and at each member, open at each member; return the uploads."""
    parameters = sum_parameters(members=members, bits=BITS)
    key = AllianceKey.generate(parameters)
    names = [f"member-{number}" for number in range(members)]
    secrets = {name: masks.RoundSecrets.generate() for name in names}
    publics = {name: own.public for name, own in secrets.items()}
    context = masks.RoundContext(alliance="bench", job="rounds", round=1, roster_digest="sha256:" + 64 * "0")
    update = np.random.default_rng().normal(0.0, 0.01, dimension)
    uploads = []
    for name in names:
        slots = packing.pack(fixedpoint.quantise(update, clip=CLIP, bits=BITS), parameters)
        bits = parameters.modulus_bits
        masked = masks.add_masks(
            slots, secrets=secrets[name], me=name, publics=publics, context=context, modulus_bits=bits
        )
        uploads.append(cipher.seal(masked, key=key, parameters=parameters))
    seeds = {name: own.self_seed for name, own in secrets.items()}
    totals = {cipher.add(uploads, parameters=parameters, slots=len(slots)) for _ in range(members + 1)}
    (total,) = totals
    for _ in names:
        opened = cipher.open_sum(total, key=key, parameters=parameters, slots=len(slots))
        opened = masks.remove_self_masks(opened, self_seeds=seeds, context=context, modulus_bits=bits)
        packing.unpack(opened, parameters, dimension)
    return uploads


def _carry(uploads: list[bytes], folder: Path) -> None:
    """Have each upload put by its member, and all fetched by every member."""
    own, member = (wiring.tls_files(setup.Keys(folder / name)) for name in (setup.COORDINATOR, "berlin"))
    routes = BlobRoutes(FolderBlobs(folder / "alone" / "blobs"), folder / "alone" / "uploads")
    door = Listener(
        bind("127.0.0.1", 0), PublicFront(_nothing, {"/blobs/": routes}, frozenset()), tls=own, lifespan=False
    )
    refs: list[BlobRef] = [blob_ref(upload) for upload in uploads]
    try:
        for ref, upload in zip(refs, uploads, strict=True):
            client = HttpBlobs(address=f"127.0.0.1:{door.port}", tls=member)
            client.put(ref, [upload])
            client.close()
        for _ in uploads:
            client = HttpBlobs(address=f"127.0.0.1:{door.port}", tls=member)
            for ref in refs:
                for _ in client.read(ref):
                    pass
            client.close()
    finally:
        door.close()


async def _nothing(*_: Any) -> None:
    """Stand where Flower's routes would be."""
