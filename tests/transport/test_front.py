"""What the listeners let through, tried from outside with a real handshake."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx
import pytest
from cryptography import x509

from fl_alliance.errors import CertificateRefused
from fl_alliance.protocol.ids import BlobRef, blob_ref, digest_of
from fl_alliance.transport.flower.blobs import HttpBlobs
from fl_alliance.transport.flower.front import MAX_FLEET_BODY, PublicFront
from fl_alliance.transport.flower.institution import FlowerInstitutionLink
from fl_alliance.transport.flower.internals.superlink import FLEET_ROUTES, superlink_app
from fl_alliance.transport.flower.uploads import PIECE
from tests.transport.conftest import Flower
from tests.transport.pki import Pki

UPLOAD = {"upload-id": "0" * 32}


@pytest.fixture
def client(flower: Flower):
    context = flower.parties["lima"].tls.client_context()
    with httpx.Client(verify=context, base_url=f"https://{flower.address}") as http:
        yield http


def url(ref: BlobRef) -> str:
    return f"/blobs/{ref.digest.removeprefix('sha256:')}?length={ref.length}"


def piece(ref: BlobRef, first: int, data: bytes) -> dict[str, str]:
    return UPLOAD | {"content-range": f"bytes {first}-{first + len(data) - 1}/{ref.length}"}


def test_a_stranger_without_a_client_certificate_is_refused(flower: Flower) -> None:
    context = ssl.create_default_context(cafile=str(flower.pki.ca))
    with httpx.Client(verify=context) as http, pytest.raises(httpx.TransportError):
        http.post(f"https://{flower.address}/v1/fleet/pull-messages")


def test_a_certificate_of_another_authority_is_refused(flower: Flower, tmp_path) -> None:
    stranger = Pki(tmp_path).party("stranger").tls
    context = ssl.create_default_context(cafile=str(flower.pki.ca))
    context.load_cert_chain(stranger.certificate, stranger.key)
    with httpx.Client(verify=context) as http, pytest.raises(httpx.TransportError):
        http.post(f"https://{flower.address}/v1/fleet/pull-messages")


def test_an_expired_client_certificate_is_refused_and_the_institution_says_so(flower: Flower, tmp_path) -> None:
    """The listener closes without a word in TLS 1.3, so the institution looks at its own certificate."""
    late = flower.pki.party("late", days=-1)
    with httpx.Client(verify=late.tls.client_context()) as http, pytest.raises(httpx.TransportError):
        http.post(f"https://{flower.address}/v1/fleet/pull-messages")
    link = FlowerInstitutionLink(address=flower.address, tls=late.tls, node_key=late.node_key, state=tmp_path / "late")
    with pytest.raises(CertificateRefused, match=r"certificate of CN=late: valid .*run `institution rotate`"):
        link.serve(lambda request: request, keep_going=lambda: True)
    link.close()


def test_a_revoked_certificate_is_refused_by_name_on_an_open_connection(flower: Flower, client: httpx.Client) -> None:
    path = "/v1/fleet/pull-messages"
    assert client.post(path).status_code != 403
    shown = x509.load_pem_x509_certificate(flower.parties["lima"].tls.certificate.read_bytes())
    front, before = flower.link._front, flower.link._front.revoked
    try:
        front.revoked = before | {shown.serial_number}
        for refused in (client.post(path), client.get("/blobs/")):
            assert (refused.status_code, refused.headers["fl-alliance-refused"]) == (403, "certificate revoked")
    finally:
        front.revoked = before
    assert client.post(path).status_code != 403


def test_a_request_whose_certificate_nobody_noted_is_refused() -> None:
    """As if another server stood in front: closed rather than open."""
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    front = PublicFront(None, {}, FLEET_ROUTES, frozenset())
    asyncio.run(front({"type": "http", "method": "POST", "path": min(FLEET_ROUTES), "headers": []}, None, send))
    assert sent[0]["status"] == 403


def test_only_the_nine_fleet_routes_exist_outside(client: httpx.Client) -> None:
    """All routes that Flower's own app knows, of whatever API, are tried."""
    paths = set(superlink_app(":flwr-in-memory:", 1).openapi()["paths"]) | {"/docs", "/openapi.json", "/", "/health"}
    assert paths >= FLEET_ROUTES
    assert {"/v1/fleet/register-node", "/v1/fleet/get-fab", "/v1/control/start-run"} < paths - FLEET_ROUTES
    for path in sorted(paths - FLEET_ROUTES):
        for method in ("GET", "POST"):
            assert client.request(method, path).status_code == 404, path
    for path in sorted(FLEET_ROUTES):
        assert client.get(path).status_code == 404
        assert client.post(path).status_code in (400, 401, 415, 422), path


@pytest.mark.parametrize(
    "path", ["/v1/fleet//get-fab", "/v1/fleet/get-run/../get-fab", "/v1/fleet/get-run/", "/blobs/"]
)
def test_other_spellings_of_a_route_do_not_exist(client: httpx.Client, path: str) -> None:
    assert client.post(path, content=b"").status_code == 404


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("transfer-encoding: chunked", b"411"),
        (f"content-length: {MAX_FLEET_BODY + 1}", b"413"),
    ],
)
def test_a_fleet_body_without_or_beyond_a_length_is_refused_unread(flower: Flower, header: str, status: bytes) -> None:
    context = flower.parties["lima"].tls.client_context()
    with socket.create_connection(("127.0.0.1", flower.link.port), 10) as plain:
        sock = context.wrap_socket(plain, server_hostname="localhost")
        sock.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n".encode())
        assert sock.recv(100).split()[1] == status


@pytest.mark.parametrize("token", [None, "Bearer guess", "Bearer"])
def test_the_private_listener_without_the_token_is_refused(flower: Flower, token: str | None) -> None:
    headers = {} if token is None else {"authorization": token}
    for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/pull-messages", "/docs"):
        assert httpx.post(flower.link._url + path, headers=headers).status_code == 401


def test_an_upload_goes_on_where_it_stopped(client: httpx.Client) -> None:
    data = b"0123456789"
    ref = blob_ref(data)
    assert client.put(url(ref), content=data[:4], headers=piece(ref, 0, data[:4])).status_code == 202
    there = client.head(url(ref), headers=UPLOAD)
    assert (there.status_code, there.headers["upload-offset"]) == (404, "4")
    assert client.put(url(ref), content=data[:4], headers=piece(ref, 0, data[:4])).status_code == 409
    assert client.get(url(ref)).status_code == 404
    assert client.put(url(ref), content=data[4:], headers=piece(ref, 4, data[4:])).status_code == 201
    assert client.get(url(ref), headers={"range": "bytes=8-"}).content == b"89"


def test_a_client_that_resumes_sends_only_the_rest(flower: Flower, client: httpx.Client) -> None:
    data = bytes(PIECE) + b"the rest"
    ref = blob_ref(data)
    blobs = HttpBlobs(address=flower.address, tls=flower.parties["lima"].tls, patience=5)

    def broken():
        yield data[: PIECE + 1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blobs.put(ref, broken())
    sent: list[str] = []
    blobs._http.event_hooks["request"].append(lambda request: sent.append(request.headers.get("content-range", "")))
    blobs.put(ref, [data])
    assert [range_ for range_ in sent if range_] == [f"bytes {PIECE}-{PIECE + 7}/{len(data)}"]
    assert b"".join(blobs.read(ref)) == data
    blobs.close()


def test_an_uploaded_whole_with_another_digest_is_refused_and_nothing_is_kept(
    flower: Flower, client: httpx.Client
) -> None:
    ref = BlobRef(digest=digest_of(b"named"), length=5)
    assert client.put(url(ref), content=b"wrong", headers=piece(ref, 0, b"wrong")).status_code == 422
    assert client.head(url(ref), headers=UPLOAD).headers["upload-offset"] == "0"
    assert not flower.blobs.has(ref)
    assert list((flower.home / "coordinator" / "uploads").glob(f"{ref.digest[7:]}*")) == []


def test_nobody_can_spoil_the_upload_of_another(client: httpx.Client) -> None:
    data = b"precious bytes"
    ref = blob_ref(data)
    other = {"upload-id": "f" * 32, "content-range": f"bytes 0-2/{ref.length}"}
    assert client.put(url(ref), content=b"bad", headers=other).status_code == 202
    assert client.put(url(ref), content=data, headers=piece(ref, 0, data)).status_code == 201


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-range": f"bytes 0-{PIECE}/{1 << 30}"}, 413),
        ({"content-range": f"bytes 0-3/{(1 << 30) + 1}"}, 400),
        ({"content-range": "bytes 0-1/x"}, 400),
        ({}, 400),
    ],
)
def test_a_malformed_piece_is_refused(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    ref = BlobRef(digest=digest_of(b"large"), length=1 << 30)
    assert client.put(url(ref), content=b"data", headers=UPLOAD | headers).status_code == status


def test_a_blob_beyond_the_limit_or_with_an_odd_name_does_not_exist(client: httpx.Client) -> None:
    assert client.head(f"/blobs/{'0' * 64}?length={(4 << 30) + 1}").status_code == 404
    assert client.get("/blobs/..%2f..%2fetc?length=1").status_code == 404
    assert client.get(f"/blobs/{'0' * 64}").status_code == 404
    assert client.put(f"/blobs/{'0' * 64}?length=1", headers={"upload-id": "../x"}).status_code == 400
