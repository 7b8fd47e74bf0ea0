"""How the alliance's bytes lie in Flower's messages, on both ends."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from flwr.app import ConfigRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from fl_alliance.errors import LinkFailed
from fl_alliance.protocol.limits import MAX_MESSAGE_BYTES

logging.getLogger("flwr").setLevel(logging.WARNING)
logging.getLogger("httpx").setLevel(logging.WARNING)

LOST = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE})
"""Codes of Flower's own replies: the request or its reply is gone, and asking again may help."""

REFUSED_BUNDLE = ErrorCode.INVALID_FAB
HANDLER_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
MAX_OBJECTS = 8
"""Objects of one message: the message, its records, one record with the bytes."""
MAX_OBJECT_BYTES = MAX_MESSAGE_BYTES + (64 << 10)
KIND = "query.alliance"


class Unfit(LinkFailed):
    """What arrived has not the form of a message of the alliance."""


class Gone(LinkFailed):
    """What was announced is no longer there: asking again may help."""


@dataclass(frozen=True)
class Note:
    """One Flower message, opened: a payload, or an error's code and reason."""

    payload: bytes
    error: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Parcel:
    """A message that was announced, with the ids of the objects it consists of."""

    id: str
    answers: str
    run: int
    objects: tuple[str, ...]
    proto: Any


class Headers:
    """A client interceptor: the version headers that Flower asks for, and `extra`."""

    def __init__(self, component: str, extra: Mapping[str, str]) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component(component).as_metadata()) | dict(extra)

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the headers."""
        context.request.headers.update(self._headers)
        return call_next(context)


def on(client: Any, http: httpx.Client) -> Any:
    """Let one of Flower's clients speak through `http`, which keeps its own TLS, proxy and redirect settings."""
    client._client.close()
    client._client = http
    return client


def content(payload: bytes) -> RecordDict:
    """Return the records of a message that carries `payload`."""
    # The nonce keeps objects apart that Flower would share by content, and message ids beyond guessing.
    return RecordDict({"alliance": ConfigRecord({"nonce": secrets.token_bytes(16), "payload": payload})})


def seal(message: Any) -> tuple[Any, Any, dict[str, bytes]]:
    """Give `message` its id; return its head, its object tree and its objects by id."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        tree = get_object_tree(message)
        objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        head = remove_content_from_message(message) if message.has_content() else message
        return message_to_proto(head), tree, objects


def parcel_of(proto: Any, tree: Any) -> Parcel:
    """Return what a message's head and object tree announce."""
    objects = tuple(node.object_id for node in iterate_object_tree(tree))
    meta = proto.metadata
    return Parcel(meta.message_id, meta.reply_to_message_id, meta.run_id, objects, proto)


def collect(parcel: Parcel, pull: Callable[[str], Any]) -> dict[str, bytes] | None:
    """Return the objects of `parcel`, or None if one is still being uploaded.

    Raises:
        Unfit: too many or too large.
        Gone: one was announced and never came.
    """
    if len(parcel.objects) > MAX_OBJECTS:
        raise Unfit(f"{len(parcel.objects)} objects in one message, at most {MAX_OBJECTS}")
    contents: dict[str, bytes] = {}
    for name in parcel.objects:
        answer = pull(name)
        if not answer.object_found:
            raise Gone(f"object {name} of message {parcel.id} is gone")
        if not answer.object_available:
            return None
        if len(answer.object_content) > MAX_OBJECT_BYTES:
            raise Unfit(f"an object of {len(answer.object_content)} bytes, at most {MAX_OBJECT_BYTES}")
        contents[name] = answer.object_content
    return contents


def open_parcel(parcel: Parcel, contents: dict[str, bytes]) -> Note:
    """Return what the message carries.

    Raises:
        Unfit: it is malformed or too large.
    """
    try:
        message = inflate_object_from_contents(parcel.id, contents)
        if message.has_error():
            return Note(b"", message.error.code, message.error.reason or "")
        payload = message.content["alliance"]["payload"]
    except Exception as error:  # Flower's parser raises whatever foreign bytes make it raise
        raise Unfit(f"message {parcel.id} cannot be opened: {type(error).__name__}") from error
    if not isinstance(payload, bytes) or len(payload) > MAX_MESSAGE_BYTES:
        raise Unfit(f"message {parcel.id} carries no payload of at most {MAX_MESSAGE_BYTES} bytes")
    return Note(payload)
