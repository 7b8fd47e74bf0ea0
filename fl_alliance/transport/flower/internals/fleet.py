"""The institution's side of Flower: one node that fetches messages, and no bundle."""

from __future__ import annotations

import time
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Metadata
from flwr.app.message import make_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fl_alliance.transport.flower.internals.wire import (
    KIND,
    Headers,
    Note,
    Parcel,
    collect,
    content,
    on,
    open_parcel,
    parcel_of,
    seal,
)


class Fleet:
    """One node's view of the public listener."""

    def __init__(self, http: httpx.Client, url: str, key: ec.EllipticCurvePrivateKey) -> None:
        self._public = public_key_to_bytes(key.public_key())
        interceptors = [Headers("SuperNode", {}), NodeAuthHttpInterceptor(key, key.public_key())]
        self._client = on(FleetHttpClient(url, interceptors=interceptors, verify=False), http)

    def activate(self) -> int:
        """Come online for the first time; return the node id."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        return int(self._client.ActivateNode(request).node_id)

    def beat(self, node: int) -> bool:
        """Say that `node` is alive, which also brings it back online; False when it is not known."""
        request = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        return bool(self._client.SendNodeHeartbeat(request).success)

    def deactivate(self, node: int) -> None:
        """Go offline."""
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=node))

    def next(self, node: int) -> Parcel | None:
        """Claim the oldest message for `node`; it is not handed out a second time."""
        answer = self._client.PullMessages(PullMessagesRequest(node=Node(node_id=node)))
        if not answer.messages_list:
            return None
        return parcel_of(answer.messages_list[0], answer.message_object_trees[0])

    def bundle_of(self, node: int, run: int) -> tuple[str, str]:
        """Return the app id and the bundle hash that `run` claims."""
        answer = self._client.GetRun(GetRunRequest(node=Node(node_id=node), run_id=run)).run
        return str(answer.fab_id), str(answer.fab_hash)

    def fetch(self, node: int, parcel: Parcel) -> Note | None:
        """Return what the message carries, or None while it is still being uploaded.

        Raises:
            Unfit: it is too large or malformed.
            Gone: it was announced and never came.
        """
        request = PullObjectRequest(node=Node(node_id=node), run_id=parcel.run)

        def pull(name: str) -> Any:
            request.object_id = name
            return self._client.PullObject(request)

        contents = collect(parcel, pull)
        if contents is None:
            return None
        confirm = ConfirmMessageReceivedRequest(node=Node(node_id=node), run_id=parcel.run, message_object_id=parcel.id)
        self._client.ConfirmMessageReceived(confirm)
        return open_parcel(parcel, contents)

    def answer(self, node: int, parcel: Parcel, reply: Note) -> None:
        """Send `reply` to `parcel`. Does nothing if the request has expired."""
        asked = parcel.proto.metadata
        now = time.time()
        ttl = asked.created_at + asked.ttl - now
        if ttl <= 0:
            return
        meta = Metadata(
            parcel.run, "", node, SUPERLINK_NODE_ID, parcel.id, asked.group_id, now, ttl, KIND, None,
            asked.src_task_id or None,
        )  # fmt: skip
        meta.delivered_at = ""
        error = None if reply.error is None else Error(reply.error, reply.reason)
        message = make_message(meta, None if error else content(reply.payload), error)
        proto, tree, objects = seal(message)
        me = Node(node_id=node)
        answer = self._client.PushMessages(
            PushMessagesRequest(
                node=me, messages_list=[proto], message_object_trees=[tree], clientapp_runtime_list=[0.0]
            )
        )
        for name in answer.objects_to_push:
            request = PushObjectRequest(
                node=me, run_id=parcel.run, object_id=name, object_content=objects[name], session_id=answer.session_id
            )
            self._client.PushObject(request)
