"""Chats to ids: only the assistant's tokens carry loss, cut where the plan says; no error shows a record."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from fl_alliance.errors import BadModel
from fl_alliance.training.batches import groups
from fl_alliance.training.encode import IGNORED, Encoded, collate, encode, encode_units, pad_id
from fl_alliance.training.records import Dialogue, Turn, records_of

SECRET = "mrs-miller-has-gout"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def chat(*turns: tuple[str, str]) -> Dialogue:
    return tuple(Turn(role, content) for role, content in turns)


ONE = chat(("user", "Define: stapes"), ("assistant", "A small bone of the ear."))
MANY = chat(
    ("system", "You are brief."),
    ("user", "Define: the word assistant"),
    ("assistant", "One who helps."),
    ("user", "And again?"),
    ("assistant", "A helper."),
)


def learnt(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED]))


def test_the_special_tokens_of_chatml_are_one_id_each(tokenizer: Any) -> None:
    (row,) = encode(tokenizer, [ONE], 512)
    assert tokenizer.convert_ids_to_tokens(row.ids[:1]) == ["<|im_start|>"]
    assert [tokenizer.decode([one]) for one in row.ids].count("<|im_end|>") == 2


@pytest.mark.parametrize(
    ("dialogue", "expected"),
    [
        (ONE, "A small bone of the ear.<|im_end|>"),
        (MANY, "One who helps.<|im_end|>A helper.<|im_end|>"),
        (chat(("assistant", "Alone.")), "Alone.<|im_end|>"),
        (chat(("user", "assistant\nof whom?"), ("assistant", "Of\nyou.")), "Of\nyou.<|im_end|>"),
    ],
    ids=["one", "many", "alone", "the-word-assistant"],
)
def test_exactly_the_assistant_s_turns_are_learnt(tokenizer: Any, dialogue: Dialogue, expected: str) -> None:
    (row,) = encode(tokenizer, [dialogue], 512)
    assert learnt(tokenizer, row) == expected
    assert all(label in (IGNORED, token) for token, label in zip(row.ids, row.labels, strict=True))
    assert tokenizer.decode(row.ids) == tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in dialogue], tokenize=False
    )


def test_a_long_record_is_cut_at_the_end(tokenizer: Any) -> None:
    (whole,) = encode(tokenizer, [MANY], 512)
    for most in (8, 20, len(whole.ids), len(whole.ids) + 1):
        (cut,) = encode(tokenizer, [MANY], most)
        assert (cut.ids, cut.labels) == (whole.ids[:most], whole.labels[:most])


def test_the_first_token_is_no_target() -> None:
    assert Encoded((5, 6, 7), (5, 6, IGNORED)).targets == 1
    assert Encoded((5,), (5,)).targets == 0


def test_nothing_to_encode_is_nothing(tokenizer: Any) -> None:
    assert encode(tokenizer, [], 64) == []


def test_records_without_a_target_are_left_out_and_units_stay_apart(tokenizer: Any) -> None:
    long = chat(("user", "word " * 100), ("assistant", "cut off"))
    units = encode_units(tokenizer, records_of({"a": [long, ONE], "b": [long], "c": [], "d": [ONE, ONE]}), 32)
    (one,) = encode(tokenizer, [ONE], 32)
    shown = [[row.ids for row in unit] for unit in units]
    assert shown == [[one.ids], [], [], [one.ids, one.ids]]


def test_a_row_s_weights_add_up_to_one_whatever_lies_beside_it() -> None:
    long = Encoded((3, 4, 5, 6, 7), (IGNORED, IGNORED, 5, 6, 7))
    short = Encoded((8, 9), (IGNORED, 9))
    batch = collate([long, short], 1)
    assert batch.ids.tolist() == [[3, 4, 5, 6, 7], [8, 9, 1, 1, 1]]
    assert batch.row.tolist() == [0, 0, 0, 1]
    assert batch.position.tolist() == [1, 2, 3, 0]
    assert batch.label.tolist() == [5, 6, 7, 9]
    assert batch.weight.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


def test_the_pad_is_the_tokenizer_s_or_zero(tokenizer: Any) -> None:
    assert pad_id(tokenizer) == tokenizer.pad_token_id
    assert pad_id(SimpleNamespace(pad_token_id=None)) == 0


TEMPLATES: dict[str, tuple[str | None, str]] = {
    "none": (None, "has no chat template"),
    "another format": ("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}", "not ChatML"),
    "refuses": ("{{ raise_exception('no place for ' + messages[0]['content']) }}", "refuses the order of roles"),
    "not jinja": ("{% for", "refuses the order of roles"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_can_not_be_used_is_refused_without_the_record(tokenizer: Any, name: str) -> None:
    template, expected = TEMPLATES[name]
    broken = copy.deepcopy(tokenizer)
    broken.chat_template = template
    with pytest.raises(BadModel, match=expected) as caught:
        encode(broken, [chat(("user", SECRET), ("assistant", SECRET))], 64)
    assert SECRET not in "".join(map(str, (caught.value, caught.value.__cause__)))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_tokenizer_without_offsets_is_refused(tokenizer: Any) -> None:
    slow = SimpleNamespace(is_fast=False, apply_chat_template=tokenizer.apply_chat_template)
    with pytest.raises(BadModel, match="gives no offsets"):
        encode(slow, [ONE], 64)


def test_an_encoded_record_does_not_print_itself(tokenizer: Any) -> None:
    (row,) = encode(tokenizer, [ONE], 64)
    (group,) = groups([[row]], 9, 999)
    for private in (row, collate([row], 0), group):
        assert re.fullmatch(r"<[\w.]+ object at 0x[0-9a-f]+>", repr(private))
