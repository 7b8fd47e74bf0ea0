"""The Merkle tree of RFC 6962, section 2.1: its root, proofs that a leaf is in it, proofs that it only grew.

Held here, and not by a library, for reasons in docs/decisions/0014; guarded by the published vectors of
transparency-dev/merkle (`tests/vectors/merkle`). Verification follows RFC 9162, sections 2.1.3.2 and 2.1.4.2, which
says the same in numbered steps. Pure: nobody here reads a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from fl_alliance.errors import LogForked, NotInLog

HASH_BYTES = 32
Hashes = tuple[bytes, ...]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node above two others, 32 bytes each."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree. Keeps every node that is complete, 64 bytes a leaf; roots and proofs of any size are quick."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        """`leaves` are leaf hashes."""
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    def leaves(self, size: int) -> Sequence[bytes]:
        """Return the hashes of the first `size` leaves."""
        return self._levels[0][:size]

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash, and each node that it completes."""
        level, node = 0, leaf
        self._levels[0].append(node)
        while len(self._levels[level]) % 2 == 0:
            node = node_hash(*self._levels[level][-2:])
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)

    def cut(self, size: int) -> None:
        """Keep the first `size` leaves."""
        for level, nodes in enumerate(self._levels):
            del nodes[size >> level :]

    def root(self, size: int | None = None) -> bytes:
        """Return the Merkle tree hash of the first `size` leaves (None: of all). `size` is at most `self.size`."""
        count = self.size if size is None else size
        return self._hash(0, count) if count else hashlib.sha256(b"").digest()

    def inclusion(self, index: int, size: int) -> Hashes:
        """Return the audit path of leaf `index` in the tree of the first `size` leaves; 0 <= index < size."""
        return self._path(index, 0, size)

    def consistency(self, first: int, size: int) -> Hashes:
        """Return the proof that the tree of `size` leaves begins with that of `first`; 0 < first <= size."""
        return self._subproof(first, 0, size, whole=True)

    def _hash(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]); `start` is a multiple of the largest power of two within, as the RFC's splits give it."""
        level = (end - start).bit_length() - 1
        if end - start == 1 << level:
            return self._levels[level][start >> level]
        middle = _split(start, end)
        return node_hash(self._hash(start, middle), self._hash(middle, end))

    def _path(self, index: int, start: int, end: int) -> Hashes:
        if end - start == 1:
            return ()
        middle = _split(start, end)
        if index < middle:
            return (*self._path(index, start, middle), self._hash(middle, end))
        return (*self._path(index, middle, end), self._hash(start, middle))

    def _subproof(self, first: int, start: int, end: int, *, whole: bool) -> Hashes:
        """SUBPROOF(first - start, D[start:end], whole)."""
        if first == end:
            return () if whole else (self._hash(start, end),)
        middle = _split(start, end)
        if first <= middle:
            return (*self._subproof(first, start, middle, whole=whole), self._hash(middle, end))
        return (*self._subproof(first, middle, end, whole=False), self._hash(start, middle))


def _split(start: int, end: int) -> int:
    """Return where the RFC splits: the largest power of two below the length."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def require_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return if `proof` shows that the tree of `size` leaves under `root` has the leaf hash `leaf` at `index`.

    Raises:
        NotInLog: it does not.
    """
    if not 0 <= index < size:  # (1)
        raise NotInLog(f"entry {index} of a log with {size} entries")
    at, last, node = index, size - 1, leaf  # (2), (3)
    for hashed in proof:  # (4)
        if last == 0:
            raise NotInLog(f"entry {index}: the proof has {len(proof)} hashes, more than a log of {size} needs")
        if at & 1 or at == last:
            node = node_hash(hashed, node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, hashed)
        at, last = at >> 1, last >> 1
    if last or not _same(node, root):  # (5)
        raise NotInLog(f"entry {index}: the proof does not lead to root {root.hex()} of {size} entries")


def climb(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> Iterator[tuple[bool, bytes, bytes]]:
    """Yield each step from the leaf hash `leaf` to the root: whether the other hash is left, that hash, the node above.

    For people who compute a path again by hand: what it proves, `require_inclusion` says.
    """
    at, last, node = index, size - 1, leaf
    for hashed in proof:
        on_left = bool(at & 1) or at == last
        node = node_hash(hashed, node) if on_left else node_hash(node, hashed)
        yield on_left, hashed, node
        while on_left and not at & 1 and at:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1


def require_consistency(first: int, first_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Return if `proof` shows that the tree of `size` leaves under `root` begins with that of `first` leaves.

    Raises:
        LogForked: it does not. That a log began empty says nothing and is refused too.
    """
    wrong = LogForked(f"{size} entries under {root.hex()} are not shown to begin with {first} under {first_root.hex()}")
    if not 0 < first <= size or (first == size and (proof or first_root != root)):
        raise wrong
    if first == size:
        return
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)  # (1), (2)
    at, last = first - 1, size - 1  # (3)
    while at & 1:  # (4)
        at, last = at >> 1, last >> 1
    if not path or not _climbs(path, at, last, first_root, root):
        raise wrong


def _climbs(path: Sequence[bytes], at: int, last: int, first_root: bytes, root: bytes) -> bool:
    old = new = path[0]  # (5)
    for hashed in path[1:]:  # (6)
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node_hash(hashed, old), node_hash(hashed, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, hashed)
        at, last = at >> 1, last >> 1
    return last == 0 and _same(old, first_root) and _same(new, root)  # (7)


def _same(found: bytes, stated: bytes) -> bool:
    return len(stated) == HASH_BYTES and found == stated
