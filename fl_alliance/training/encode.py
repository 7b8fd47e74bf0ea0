"""Chats to token ids, ids to padded batches. Only the assistant's tokens carry loss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from fl_alliance.errors import BadModel
from fl_alliance.training.records import Dialogue, Records

IGNORED = -100
"""The label of a token without loss."""

_ANSWER = re.compile(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", re.DOTALL)


@dataclass(frozen=True, repr=False)
class Encoded:
    """One record: `ids` and `labels` of the same length; `labels` is `IGNORED` outside the assistant's turns.

    Private, so it has no repr.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def targets(self) -> int:
        """How many tokens are predicted with loss (the first token of a row is never predicted)."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True, repr=False)
class Batch:
    """Right-padded rows. `ids`: (rows, width). The targets, flat: where each is predicted, what it is, its weight."""

    ids: Tensor
    row: Tensor
    """(targets,) the row of each target."""
    position: Tensor
    """(targets,) the position whose hidden state predicts it."""
    label: Tensor
    """(targets,)"""
    weight: Tensor
    """(targets,) one over the number of targets of its row: a row's loss depends on that row only."""

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on `device`."""
        parts = (self.ids, self.row, self.position, self.label, self.weight)
        return Batch(*(part.to(device) for part in parts))


def encode(tokenizer: Any, dialogues: Sequence[Dialogue], max_tokens: int) -> list[Encoded]:
    """Render each chat in ChatML and cut it at `max_tokens`.

    Each assistant turn is learnt up to and including its <|im_end|>; a token that straddles the border is not.

    Raises:
        BadModel: the tokenizer has no chat template, one that is not ChatML or refuses a record, or no offsets.
    """
    if not dialogues:
        return []
    texts = [_render(tokenizer, dialogue) for dialogue in dialogues]
    if not tokenizer.is_fast:
        raise BadModel("the tokenizer gives no offsets: a tokenizer.json is needed")
    coded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    rows = zip(texts, coded["input_ids"], coded["offset_mapping"], strict=True)
    return [_label(text, ids[:max_tokens], offsets[:max_tokens]) for text, ids, offsets in rows]


def encode_units(tokenizer: Any, records: Records, max_tokens: int) -> list[list[Encoded]]:
    """Return the encoded records of each unit; records without a target after the cut are left out."""
    sizes = [len(dialogues) for dialogues in records.units.values()]
    coded = iter(encode(tokenizer, [one for many in records.units.values() for one in many], max_tokens))
    return [[row for row in (next(coded) for _ in range(size)) if row.targets] for size in sizes]


def collate(rows: Sequence[Encoded], pad: int) -> Batch:
    """Pad `rows` on the right with `pad` to the longest. Causal attention never looks at what is to the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        labels[place, : len(row.ids)] = torch.tensor(row.labels)
    row_of, position = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    weight = 1.0 / torch.bincount(row_of, minlength=len(rows)).clamp(min=1)[row_of].float()
    return Batch(ids=ids, row=row_of, position=position, label=labels[row_of, position + 1], weight=weight)


def pad_id(tokenizer: Any) -> int:
    """Return the id that fills a row: the tokenizer's own, or 0 (padding is never looked at)."""
    return int(tokenizer.pad_token_id or 0)


def _render(tokenizer: Any, dialogue: Iterable[Any]) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in dialogue]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except ValueError:
        raise BadModel("the tokenizer has no chat template") from None
    except TemplateError:  # its text may quote the record
        raise BadModel("the tokenizer's chat template refuses the order of roles in a record") from None
    if not _ANSWER.search(text):
        raise BadModel("the tokenizer's chat template is not ChatML: no <|im_start|>assistant ... <|im_end|>")
    return text


def _label(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Encoded:
    spans = [match.span(1) for match in _ANSWER.finditer(text)]
    labels = [
        token if any(start <= begin and end <= stop for start, stop in spans) else IGNORED
        for token, (begin, end) in zip(ids, offsets, strict=True)
    ]
    return Encoded(tuple(ids), tuple(labels))
