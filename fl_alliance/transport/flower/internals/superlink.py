"""The coordinator's side of Flower: the embedded SuperLink, its Control API, the seat of the run's ServerApp."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.app import Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from fl_alliance.transport.flower.internals.direct import Direct
from fl_alliance.transport.flower.internals.wire import (
    KIND,
    Headers,
    Note,
    Parcel,
    Unfit,
    collect,
    content,
    on,
    open_parcel,
    parcel_of,
    seal,
)

FLEET_ROUTES = frozenset(
    f"/v1/fleet/{verb}"
    for verb in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run",
        "pull-object", "push-object", "confirm-message-received",
    )
)  # fmt: skip
"""What the public listener lets through. Not among them: register-node, unregister-node, get-fab."""


def node_key_pem(ssh: bytes) -> bytes:
    """Return the PEM form, in which Flower keeps node keys, of an OpenSSH EC P-384 public key.

    Raises:
        ValueError: it is none.
    """
    key = load_ssh_public_key(ssh)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("a node key is an OpenSSH EC P-384 public key")  # noqa: TRY004
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def superlink_app(database: str, private_port: int) -> Any:
    """Return Flower's SuperLink as an ASGI app: no process of its own, node authentication on, `database` for state."""
    config = SuperLinkLifespanConfig(
        control_address="", health_server_address=None, host="127.0.0.1", port=private_port, insecure=True,
        certificates=None, superexec_auth_secret=None, authn_plugin=NoOpControlAuthnPlugin(), event_log_plugin=None,
        fleet_event_log_plugin=None, enable_event_log=False, artifact_provider=None, enable_supernode_auth=True,
        fleet_api_type="grpc-rere", fleet_api_address=None, simulation=False, ssl_ca_certfile=None, ssl_certfile=None,
        ssl_keyfile=None, database=database, isolation="process", runtime_dependency_install=False,
    )  # fmt: skip
    return create_app(config, SuperLinkLifespan)


class Control:
    """The private listener's Control API: who may take part, and which run is open."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._client = on(ControlHttpClient(url, interceptors=[Headers("flwr-cli", {})], verify=False), http)

    def enrol(self, keys: Mapping[str, bytes]) -> dict[int, str]:
        """Make `keys` (member -> PEM) the enrolled nodes, neither more nor fewer; return node id -> member."""
        known = {
            node.public_key: node.node_id
            for node in self._client.ListNodes(ListNodesRequest()).nodes_info
            if node.status != NodeStatus.UNREGISTERED
        }
        for key in known.keys() - set(keys.values()):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=known[key]))
        for name, key in keys.items():
            if key not in known:
                known[key] = self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=name)).node_id
        return {known[key]: name for name, key in keys.items()}

    def open_run(self, bundle: bytes) -> int:
        """Stop whatever run an earlier process left behind, and start one in the same series; return its id."""
        series = None
        runs = self._client.ListRuns(ListRunsRequest(limit=1000)).run_dict.values()
        for run in sorted(runs, key=lambda run: str(run.pending_at)):
            series = run.series_id or series
            if run.status.status != "finished":
                self._client.StopRun(StopRunRequest(run_id=run.run_id))
        request = StartRunRequest(fab=Fab(content=bundle))
        if series is not None:
            request.series_id = series
        return int(self._client.StartRun(request).run_id)


class Seat:
    """The seat of a run's ServerApp, taken by the coordinator itself: push to nodes, pull from them.

    `app` is the SuperLink of this process, whose private listener is at `url`.
    """

    def __init__(self, http: httpx.Client, url: str, app: Any, run: int) -> None:
        self.run = run
        visitor = on(RuntimeHttpClient(url, interceptors=[Headers("SuperExec", {})], verify=False), http)
        task = visitor.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
        if not task.token or task.task.run_id != run:
            raise Unfit(f"got the task of run {task.task.run_id}, not of {run}")
        headers = Headers("flwr-serverapp", {TASK_TOKEN_HEADER: task.token})
        self._client = on(RuntimeHttpClient(url, interceptors=[headers], verify=False), http)
        self._task = self._client.PullTaskInput(PullTaskInputRequest()).task_id
        self._direct = Direct(app, task.token)
        self._node = Node(node_id=SUPERLINK_NODE_ID)

    def beat(self) -> bool:
        """Say that the task is alive; False when Flower has given it up."""
        return bool(self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)

    def online(self) -> dict[int, str]:
        """Return the ids of the nodes whose heartbeat is recent, each with the time at which it came online."""
        nodes = self._direct.GetNodes(GetNodesRequest()).nodes
        return {node.node_id: node.last_activated_at for node in nodes if node.status == NodeStatus.ONLINE}

    def push(self, node: int, payload: bytes, ttl: float) -> str:
        """Send `payload` to `node`, valid for `ttl` seconds; return the message's id."""
        meta = Metadata(self.run, "", SUPERLINK_NODE_ID, node, "", "", time.time(), ttl, KIND, self._task)
        meta.delivered_at = ""
        proto, tree, objects = seal(make_message(meta, content(payload)))
        answer = self._direct.PushMessages(PushAppMessagesRequest(messages_list=[proto], message_object_trees=[tree]))
        if list(answer.message_ids) != [proto.metadata.message_id]:
            raise Unfit(f"Flower did not take the message for node {node}")
        for name in answer.objects_to_push:
            push = PushObjectRequest(
                node=self._node, run_id=self.run, object_id=name, object_content=objects[name],
                session_id=answer.session_id,
            )  # fmt: skip
            self._direct.PushObject(push)
        return str(answer.message_ids[0])

    def announced(self, asked: Iterable[str]) -> list[Parcel]:
        """Return the replies to the messages `asked` that were announced since the last call."""
        answer = self._direct.PullMessages(PullAppMessagesRequest(message_ids=asked))
        return [parcel_of(*pair) for pair in zip(answer.messages_list, answer.message_object_trees, strict=True)]

    def fetch(self, parcel: Parcel) -> Note | None:
        """Return the reply, or None while it is still being uploaded.

        Raises:
            Unfit: it is too large or malformed.
            Gone: it was announced and never came.
        """
        request = PullObjectRequest(node=self._node, run_id=self.run)

        def pull(name: str) -> Any:
            request.object_id = name
            return self._direct.PullObject(request)

        contents = collect(parcel, pull)
        if contents is None:
            return None
        self._direct.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._node, run_id=self.run, message_object_id=parcel.id)
        )
        return open_parcel(parcel, contents)

    def leave(self) -> None:
        """End the run."""
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status="completed", details=""))
