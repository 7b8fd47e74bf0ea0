"""Pins what transport/flower/internals uses of Flower. To fail after an upgrade is their purpose: read, then adapt."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import flwr
import pytest
from flwr.app import Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common import constant
from flwr.common.serde import message_to_proto
from flwr.proto import control_pb2, fleet_pb2, message_pb2, runtime_pb2
from flwr.supercore import constant as core_constant
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from flwr.superlink.servicer.runtime import runtime_handlers
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fl_alliance.transport.flower.bundle import APP_ID, installed_bundle
from fl_alliance.transport.flower.internals.superlink import superlink_app


def names(call: Any) -> list[str]:
    return list(inspect.signature(call).parameters)


def test_the_version_is_the_one_that_was_read() -> None:
    assert flwr.__version__ == "1.41.0"


PARAMETERS = {
    make_message: ["metadata", "content", "error"],
    remove_content_from_message: ["message"],
    message_to_proto: ["message"],
    get_all_nested_objects: ["obj"],
    get_object_tree: ["obj"],
    iterate_object_tree: ["tree"],
    public_key_to_bytes: ["public_key"],
    create_app: ["config", "superlink_lifespan_class"],
    NodeAuthHttpInterceptor: ["private_key", "public_key"],
}


@pytest.mark.parametrize("call", PARAMETERS, ids=lambda call: call.__name__)
def test_the_parameters_are_the_known_ones(call: Any) -> None:
    assert names(call) == PARAMETERS[call]


def test_the_parameters_that_are_passed_by_position_or_name() -> None:
    assert names(Metadata)[:11] == [
        "run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id", "group_id", "created_at", "ttl",
        "message_type", "src_task_id", "dst_task_id",
    ]  # fmt: skip
    assert names(inflate_object_from_contents)[:2] == ["object_id", "object_contents"]
    assert {"base_url", "interceptors", "verify"} <= set(names(ProtobufClient))
    assert names(RuntimeVersionMetadata.from_local_component)[0] == "component_name"


@pytest.mark.parametrize(
    "name",
    ["get_nodes", "push_messages", "pull_messages", "push_object", "pull_object", "confirm_message_received"],
)
def test_the_handlers_that_are_called_directly_take_request_state_and_task(name: str) -> None:
    assert names(getattr(runtime_handlers, name)) == ["request", "state", "task"]


def test_the_app_has_the_state_that_knows_a_task_by_its_token() -> None:
    state = superlink_app(":flwr-in-memory:", 1).state.linkstate_factory.state()
    assert names(state.get_task_by_token) == ["token"]
    assert state.get_task_by_token("guess") is None


def test_the_settings_of_the_superlink_are_the_known_ones() -> None:
    assert {field.name for field in fields(SuperLinkLifespanConfig)} == {
        "control_address", "health_server_address", "host", "port", "insecure", "certificates", "superexec_auth_secret",
        "authn_plugin", "event_log_plugin", "fleet_event_log_plugin", "enable_event_log", "artifact_provider",
        "enable_supernode_auth", "fleet_api_type", "fleet_api_address", "simulation", "ssl_ca_certfile", "ssl_certfile",
        "ssl_keyfile", "database", "isolation", "runtime_dependency_install",
    }  # fmt: skip


def test_a_client_has_the_http_client_that_is_replaced() -> None:
    client = ProtobufClient("http://127.0.0.1:1", verify=False)
    assert type(client._client).__module__.startswith("httpx")
    client.close()


@pytest.mark.parametrize(
    ("client", "calls"),
    [
        (ControlHttpClient, "ListNodes RegisterNode UnregisterNode ListRuns StartRun StopRun"),
        (
            RuntimeHttpClient,
            "AcquireTask PullTaskInput PushTaskOutput SendTaskHeartbeat GetNodes PushMessages PullMessages PushObject "
            "PullObject ConfirmMessageReceived",
        ),
        (
            FleetHttpClient,
            "ActivateNode DeactivateNode SendNodeHeartbeat PullMessages PushMessages GetRun PullObject PushObject "
            "ConfirmMessageReceived",
        ),
    ],
)
def test_the_calls_take_one_request(client: type, calls: str) -> None:
    for call in calls.split():
        assert names(getattr(client, call)) == ["self", "request"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (control_pb2.StartRunRequest, {"fab", "series_id"}),
        (control_pb2.ListNodesResponse, {"nodes_info"}),
        (fleet_pb2.PushMessagesRequest, {"node", "messages_list", "message_object_trees", "clientapp_runtime_list"}),
        (fleet_pb2.PullMessagesResponse, {"messages_list", "message_object_trees"}),
        (runtime_pb2.PushAppMessagesResponse, {"message_ids", "objects_to_push", "session_id"}),
        (message_pb2.PullObjectResponse, {"object_found", "object_available", "object_content"}),
        (message_pb2.PushObjectRequest, {"node", "run_id", "object_id", "object_content", "session_id"}),
    ],
)
def test_the_fields_that_are_used_exist(message: Any, expected: set[str]) -> None:
    assert expected <= {field.name for field in message.DESCRIPTOR.fields}


def test_the_constants_are_the_known_ones() -> None:
    assert (constant.SUPERLINK_NODE_ID, constant.HEARTBEAT_DEFAULT_INTERVAL, constant.HEARTBEAT_PATIENCE) == (1, 30, 2)
    codes = constant.ErrorCode
    assert (codes.CLIENT_APP_RAISED_EXCEPTION, codes.INVALID_FAB, codes.NODE_UNAVAILABLE) == (2, 7, 5)
    assert (codes.MESSAGE_UNAVAILABLE, codes.REPLY_MESSAGE_UNAVAILABLE) == (3, 4)
    assert core_constant.NodeStatus.ONLINE == "online"
    assert core_constant.NodeStatus.UNREGISTERED == "unregistered"


def test_the_trampoline_has_the_same_bytes_everywhere() -> None:
    """Institutions know it by this hash: a change here is a new version of the transport."""
    assert installed_bundle().app == APP_ID == "fl-alliance/trampoline"
    assert installed_bundle().sha256 == "f752c4af1ba526ba2c7b5e39688082d7a34a3c843de290b45ff47864942b41ce"
