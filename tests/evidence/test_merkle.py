"""The Merkle tree: the published vectors of transparency-dev/merkle, and any history that only grows."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_alliance.errors import LogForked, NotInLog
from fl_alliance.evidence.merkle import Tree, climb, leaf_hash, node_hash, require_consistency, require_inclusion

VECTORS = Path(__file__).parents[1] / "vectors" / "merkle"


def vectors(kind: str) -> list[Any]:
    rows = [json.loads(line) for line in (VECTORS / f"{kind}.jsonl").read_text().splitlines()]
    return [pytest.param(row, id=row["name"]) for row in rows]


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def grown(size: int) -> Tree:
    return Tree(leaf_hash(str(place).encode()) for place in range(size))


@pytest.mark.parametrize("case", vectors("inclusion"))
def test_published_inclusion_proof(case: dict[str, Any]) -> None:
    proof = [raw(text) for text in case["proof"] or []]

    def verify() -> None:
        require_inclusion(raw(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, raw(case["root"]))

    _expect(verify, NotInLog if case["wantErr"] else None)


@pytest.mark.parametrize("case", vectors("consistency"))
def test_published_consistency_proof(case: dict[str, Any]) -> None:
    proof = [raw(text) for text in case["proof"] or []]

    def verify() -> None:
        require_consistency(case["size1"], raw(case["root1"]), case["size2"], raw(case["root2"]), proof)

    _expect(verify, LogForked if case["wantErr"] else None)


def _expect(verify: Any, error: type[Exception] | None) -> None:
    if error is None:
        verify()
        return
    with pytest.raises(error):
        verify()


def test_roots_are_those_of_the_definition() -> None:
    """MTH, word by word from RFC 6962, section 2.1."""

    def mth(data: list[bytes]) -> bytes:
        if not data:
            return hashlib.sha256(b"").digest()
        if len(data) == 1:
            return hashlib.sha256(b"\x00" + data[0]).digest()
        k = max(2**e for e in range(12) if 2**e < len(data))
        return hashlib.sha256(b"\x01" + mth(data[:k]) + mth(data[k:])).digest()

    tree = grown(70)
    for size in range(71):
        assert tree.root(size) == mth([str(place).encode() for place in range(size)])


SIZES = st.integers(1, 200)


@given(SIZES, st.data())
def test_every_entry_of_any_history_has_a_proof(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    tree = grown(data.draw(st.integers(size, size + 60)))
    leaf, proof, root = leaf_hash(str(index).encode()), tree.inclusion(index, size), tree.root(size)
    require_inclusion(leaf, index, size, proof, root)
    assert len(proof) <= (size - 1).bit_length()
    with pytest.raises(NotInLog):
        require_inclusion(leaf_hash(b"another"), index, size, proof, root)


@given(SIZES, st.data())
def test_any_log_that_only_grew_has_a_proof(first: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(first, first + 100))
    tree = grown(size)
    require_consistency(first, tree.root(first), size, tree.root(), tree.consistency(first, size))


@given(SIZES, st.data())
def test_a_log_whose_past_was_changed_has_none(first: int, data: st.DataObject) -> None:
    """Any entry that was seen is changed, dropped, or swapped with another; then the log grows."""
    size = data.draw(st.integers(first + 1, first + 100))
    leaves = list(grown(size).leaves(size))
    place = data.draw(st.integers(0, first - 1))
    changed = data.draw(st.sampled_from(["rewritten", "dropped", "swapped"]))
    if changed == "rewritten":
        leaves[place] = leaf_hash(b"another")
    elif changed == "dropped":
        del leaves[place]
    else:
        leaves[place], leaves[place + 1 - size] = leaves[place + 1 - size], leaves[place]
    forked = Tree(leaves)
    if list(forked.leaves(first)) == list(grown(first).leaves(first)):
        return
    proof = forked.consistency(min(first, forked.size), forked.size)
    with pytest.raises(LogForked):
        require_consistency(first, grown(first).root(), forked.size, forked.root(), proof)


@given(st.integers(2, 100), st.data())
def test_one_changed_byte_of_a_proof_is_refused(size: int, data: st.DataObject) -> None:
    tree, place = grown(size), data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size - 1))
    path, past = _flipped(tree.inclusion(place, size), data), _flipped(tree.consistency(first, size), data)
    with pytest.raises(NotInLog):
        require_inclusion(leaf_hash(str(place).encode()), place, size, path, tree.root())
    with pytest.raises(LogForked):
        require_consistency(first, tree.root(first), size, tree.root(), past)


def _flipped(proof: tuple[bytes, ...], data: st.DataObject) -> tuple[bytes, ...]:
    at = data.draw(st.integers(0, len(proof) - 1))
    bad = bytearray(proof[at])
    bad[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    return (*proof[:at], bytes(bad), *proof[at + 1 :])


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_tree_that_is_cut_is_the_one_that_never_grew(size: int, more: int) -> None:
    tree = grown(size + more)
    tree.cut(size)
    assert (tree.size, tree.root()) == (size, grown(size).root())
    tree.append(leaf_hash(b"next"))
    assert tree.root() == Tree([*grown(size).leaves(size), leaf_hash(b"next")]).root()


def test_the_steps_that_people_compute_end_in_the_root() -> None:
    tree = grown(33)
    for size in range(1, 34):
        for index in range(size):
            node = tree.leaves(size)[index]
            for on_left, hashed, above in climb(node, index, size, tree.inclusion(index, size)):
                assert above == (node_hash(hashed, node) if on_left else node_hash(node, hashed))
                node = above
            assert node == tree.root(size), (index, size)


def test_a_node_is_no_leaf() -> None:
    """Else the hash of two nodes would pass as an entry: 0x00 and 0x01 come first."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
