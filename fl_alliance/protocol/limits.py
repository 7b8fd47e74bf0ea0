"""Upper bounds of everything that arrives from outside. Checked before anything is parsed or stored."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 8 << 20
"""Longest encoded envelope. How many members fit is in `protocol.sizes`."""

SEALED_KEY_BYTES: Final = 33_000
"""Bound of the sealed alliance key: 4096 coefficients of 8 bytes, SEAL's headers, nonce and tag (docs/SPEC.md, 6)."""

WRAPPED_KEY_BYTES: Final = 80
"""A content key of 32 bytes, wrapped to one member: 48 bytes of HPKE more."""

SEALED_SHARES_BYTES: Final = 62
"""What one member deals to another: nonce, place, two shares, tag (docs/SPEC.md, 5.8)."""

MAX_BLOB_BYTES: Final = 4 << 30
"""Longest ciphertext or adapter, in bytes."""

MAX_BUNDLE_BYTES: Final = (4 << 30) - 1
"""Longest evidence bundle: what a zip file without 64-bit lengths can hold."""

MAX_BUNDLE_FILES: Final = 1_000_000
"""Files of an evidence folder or bundle."""

MAX_MANIFEST_BYTES: Final = 512 << 20
"""Longest list of the files of an evidence folder or bundle: a file takes some 450 bytes there."""

MAX_MEMBERS: Final = 1000
"""Institutions in one alliance."""

MIN_MEMBERS: Final = 3
"""Fewest institutions in one sum: with two, the sum minus one's own update is the other's."""

MAX_ROUNDS: Final = 10_000
"""Rounds in one job."""

MAX_LOG: Final = 1_000_000
"""Entries of a transparency log: bounds what a coordinator can make an institution fetch and hold."""

MAX_LOG_PIECE: Final = 10_000
"""Entries in one piece of a log: with the longest names it stays below `MAX_MESSAGE_BYTES`."""

MAX_NAME: Final = 63
"""Longest name of a member, job or data set (a DNS label)."""
