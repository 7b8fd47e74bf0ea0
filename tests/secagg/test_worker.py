"""The worker: the same results as without one, and whatever breaks in it is an error here, never the caller's end."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_alliance.errors import BadUpload, NotAuthentic, StoreFailed, SumRefused, WrongCipher
from fl_alliance.parties.adder import UploadAdder, signed_pieces
from fl_alliance.protocol.ids import blob_ref
from fl_alliance.secagg import cipher, frame
from fl_alliance.secagg import worker as workers
from fl_alliance.secagg.frame import Kind
from fl_alliance.secagg.parameters import sum_parameters
from fl_alliance.secagg.worker import ISOLATED, CipherWorker, Performance
from tests.rounds.real import MemoryBlobs, real_plan

P = sum_parameters(members=3, bits=16)
SLOTS = 3 * 4096 + 5
KEY = cipher.AllianceKey.generate(P)
TOP = 2**P.modulus_bits - 1
VALUES = np.random.default_rng(11).integers(0, TOP + 1, (3, SLOTS), dtype=np.uint64)
UPLOADS = [cipher.seal(row, key=KEY, parameters=P) for row in VALUES]
TOTAL = cipher.add(UPLOADS, parameters=P, slots=SLOTS)
OPENED = VALUES.sum(0) & np.uint64(TOP)
QUICK = Performance(seconds=1.0)


def program(code: str) -> tuple[str, ...]:
    """The worker's own program, after `code` changed something in it."""
    start = "import os, signal, sys\nfrom fl_alliance.secagg import cipher, worker_main\nRoom = worker_main.Room\n"
    return (sys.executable, "-P", "-c", f"{start}{code}\nworker_main.main(sys.argv[1:])")


def on(request: str, what: str) -> tuple[str, ...]:
    """A worker that does `what` in place of one kind of request."""
    return program(f"def bad(room, body):\n    {what}\nworker_main._REQUESTS[b'{request}'] = bad")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[at : at + size] for at in range(0, len(data), size))


# ---- the same results


@pytest.mark.parametrize("processes", [0, 1, 2, 3, 9])
def test_any_number_of_processes_gives_the_same_bytes(processes: int) -> None:
    """Four ciphertexts, so nine processes are more than there is work for."""
    worker = CipherWorker(P, Performance(processes=processes))
    assert worker.add(UPLOADS, slots=SLOTS) == TOTAL
    with worker.running_sum(SLOTS) as total:
        for upload, size in zip(UPLOADS, (1000, 1 << 20, 33), strict=True):
            total.take(pieces(upload, size))
        assert total.to_bytes() == TOTAL
    assert (worker.open_sum(TOTAL, key=KEY, slots=SLOTS) == OPENED).all()
    sealed = [worker.seal(row, key=KEY) for row in VALUES]
    assert (worker.open_sum(worker.add(sealed, slots=SLOTS), key=KEY, slots=SLOTS) == OPENED).all()
    assert worker.load_key(KEY.to_bytes()).fingerprint() == KEY.fingerprint()


def test_no_worker_and_no_open_file_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    worker = CipherWorker(P, Performance(processes=2))
    before = len(list(Path("/proc/self/fd").iterdir()))
    worker.open_sum(worker.add(UPLOADS, slots=SLOTS), key=KEY, slots=SLOTS)
    with pytest.raises(WrongCipher):
        worker.add([UPLOADS[0][:-1]], slots=SLOTS, count=1)
    assert len(started) == 6
    assert all(process.returncode is not None for process in started)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_sum_that_nobody_closed_ends_its_worker() -> None:
    total = CipherWorker(P).running_sum(SLOTS)
    total.take(UPLOADS[0])
    (process,) = [worker._process for worker in total._chunks._workers]  # type: ignore[attr-defined]
    assert process.poll() is None
    del total
    assert process.returncode is not None


# ---- an upload that is refused changes nothing


@pytest.mark.parametrize("processes", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 3])
def test_a_bad_chunk_in_any_worker_leaves_the_sum_as_it_was(processes: int, place: int) -> None:
    """With two workers, the one whose chunks are good must not keep them; nor those of an upload that was cut off."""
    chunks = frame.read(Kind.UPLOAD, UPLOADS[1], P, SLOTS)
    chunks[place] = chunks[place][:60] + bytes(len(chunks[place]) - 60)
    bad = frame.write(Kind.UPLOAD, P, SLOTS, chunks)
    with CipherWorker(P, Performance(processes=processes)).running_sum(SLOTS) as total:
        total.take(UPLOADS[0])
        with pytest.raises(WrongCipher, match="lagos: ciphertext: SEAL refuses"):
            total.take(bad, "lagos")
        with pytest.raises(WrongCipher, match="lagos: the bytes end inside a chunk"):
            total.take(UPLOADS[1][:-1], "lagos")
        assert (total.taken, total.lost) == (1, False)
        for upload in UPLOADS[1:]:
            total.take(upload)
        assert total.to_bytes() == TOTAL


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_bytes_that_turn_out_not_to_be_the_signed_ones_are_never_parsed(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is known at the end only: until then the chunks are held, and SEAL sees none, here or there."""

    def parsed(*_: Any) -> Any:
        raise AssertionError("SEAL saw it")

    monkeypatch.setattr(cipher._Memory, "read", parsed)
    blobs, signed = MemoryBlobs(), blob_ref(UPLOADS[1])
    worker = CipherWorker(P, Performance(processes=processes), command=on("l", "os.kill(os.getpid(), signal.SIGSEGV)"))
    blobs.data[signed.digest] = UPLOADS[2]
    with worker.running_sum(SLOTS) as total:
        with pytest.raises(NotAuthentic, match=f"signed was {signed.digest}"):
            total.take(signed_pieces(blobs, signed))
        assert (total.taken, total.lost) == (0, False)


def test_an_upload_longer_than_signed_is_not_read_to_its_end() -> None:
    class Endless(MemoryBlobs):
        def read(self, ref: Any, offset: int = 0, chunk: int = 1 << 20) -> Iterator[bytes]:
            while True:
                yield bytes(1000)

    with pytest.raises(NotAuthentic):
        list(signed_pieces(Endless(), blob_ref(b"short")))


# ---- crash, memory, hang


DEATHS = {
    "SIGSEGV": ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
    "a wild pointer": ("import ctypes; ctypes.string_at(8)", "was ended by SIGSEGV"),
    "abort": ("os.abort()", "was ended by SIGABRT"),
    "exit": ("os._exit(0)", "ended with status 0"),
    "an error that is not named": ("raise RuntimeError", "ended with status 1"),
    "memory": ("bytearray(1 << 40)", "ran out of the memory"),
    "a hang": ("signal.pause()", "did not finish within 1 s"),
    "a busy loop": ("while True: pass", "did not finish within 1 s"),
    "an answer out of turn": ("return [b'more']", "answered out of turn"),
    "an endless answer": ("return iter(lambda: b'more', 0)", "answered out of turn"),
    "a long answer": ("return [bytes(10**6)]", "answered with 1000000 bytes"),
}


@pytest.mark.parametrize(("what", "said"), DEATHS.values(), ids=DEATHS.keys())
def test_a_worker_that_breaks_over_an_upload_is_an_error_that_names_it(what: str, said: str) -> None:
    broken = CipherWorker(P, QUICK, command=on("l", what))
    with broken.running_sum(SLOTS) as total:
        with pytest.raises(WrongCipher, match=f"^the upload of lagos: the cipher's worker {said}.* over an upload"):
            total.take(UPLOADS[0], "the upload of lagos")
        assert total.lost
        with pytest.raises(StoreFailed, match="begin a new one"):
            total.take(UPLOADS[1])
    assert CipherWorker(P).add(UPLOADS, slots=SLOTS) == TOTAL, "a new worker does"


@pytest.mark.parametrize("request_", ["o", "k"])
@pytest.mark.parametrize(("what", "said"), list(DEATHS.values())[:6:2], ids=list(DEATHS)[:6:2])
def test_a_worker_that_breaks_over_a_sum_or_a_key(request_: str, what: str, said: str) -> None:
    """A key that another member made is foreign; the same key on its way to open a sum is our own."""
    broken = CipherWorker(P, QUICK, command=on(request_, what))
    if request_ == "k":
        with pytest.raises(WrongCipher, match=f"{said}.* over the alliance key"):
            broken.load_key(KEY.to_bytes())
        with pytest.raises(StoreFailed, match=said):
            broken.open_sum(TOTAL, key=KEY, slots=SLOTS)
    else:
        with pytest.raises(WrongCipher, match=f"{said}.* over the sum"):
            broken.open_sum(TOTAL, key=KEY, slots=SLOTS)


def test_a_worker_that_does_not_listen_is_given_up() -> None:
    deaf = program("worker_main.serve = lambda talk, *_: (worker_main.send(talk, b'y'), signal.pause())")
    many = frame.write(Kind.UPLOAD, P, 4096 * 100, frame.read(Kind.UPLOAD, UPLOADS[0], P, SLOTS)[:1] * 100)
    with (
        CipherWorker(P, QUICK, command=deaf).running_sum(4096 * 100) as total,
        pytest.raises(WrongCipher, match="did not listen for 1 s"),
    ):
        total.take(many)


@pytest.mark.parametrize("limit", [130, 140, 145, 150, 155, 160, 165, 180])
def test_a_worker_with_too_little_memory_for_an_upload_refuses_it(limit: int) -> None:
    """No hook here. At its limit SEAL leaves a lock behind on which it spins for ever; it must not come so far.

    Which of its allocations would be the one too many differs by limit. With the usual one the upload is taken.
    """
    slots = 4096 * 800
    many = frame.write(Kind.UPLOAD, P, slots, frame.read(Kind.UPLOAD, UPLOADS[0], P, SLOTS)[:1] * 800)
    with (
        CipherWorker(P, Performance(memory_bytes=limit << 20)).running_sum(slots) as total,
        pytest.raises(WrongCipher, match="ran out of the memory"),
    ):
        total.take(many)
    with CipherWorker(P).running_sum(slots) as total:
        total.take(many)


@pytest.mark.parametrize("sent", ["SIGKILL", "SIGTERM"])
def test_a_worker_that_is_killed_from_outside_is_no_fault_of_the_bytes(sent: str) -> None:
    """The system's memory killer, or a person: no member is to be left out for it."""
    broken = CipherWorker(P, command=on("l", f"os.kill(os.getpid(), signal.{sent})"))
    with broken.running_sum(SLOTS) as total, pytest.raises(StoreFailed, match=f"was ended by {sent}"):
        total.take(UPLOADS[0])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nowhere/python",), "can't be started: No such file"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with status 3"),
        (program("worker_main.forbid = lambda _: signal.pause()"), "did not finish within 1 s"),
    ],
    ids=["no program", "ends at once", "never ready"],
)
def test_a_worker_that_does_not_start_is_no_fault_of_the_bytes(
    command: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_START_SECONDS", 1.0)
    worker = CipherWorker(P, QUICK, command=command)
    with worker.running_sum(SLOTS) as total, pytest.raises(StoreFailed, match=said):
        total.take(UPLOADS[0])
    with pytest.raises(StoreFailed, match=said):
        worker.open_sum(TOTAL, key=KEY, slots=SLOTS)


def test_a_worker_that_breaks_over_our_own_slots_is_no_fault_of_the_bytes() -> None:
    worker = CipherWorker(P, Performance(processes=2), command=on("s", "os.abort()"))
    with pytest.raises(StoreFailed, match="SIGABRT"):
        worker.seal(VALUES[0], key=KEY)


@pytest.mark.parametrize(
    "body", [b"", b"StoreFailed: no", b"SystemExit: 1", pickle.dumps(ValueError("x")), b"\xff" * 900]
)
def test_a_refusal_is_text_and_nothing_else_whatever_the_worker_sends(body: bytes) -> None:
    """What a worker that was taken over says of an upload is at most that it is wrong."""
    code = f"worker_main._answer = lambda talk, *_: worker_main.send(talk, b'n', {body!r})"
    with CipherWorker(P, command=program(code)).running_sum(SLOTS) as total, pytest.raises(WrongCipher):
        total.take(UPLOADS[0])


@pytest.mark.parametrize("given", ["[]", "[b'']", "[bytes(8)] * 4", "[bytes(4096 * 8)] * 5"])
def test_an_opening_of_another_size_is_refused(given: str) -> None:
    with pytest.raises(WrongCipher, match=r"out of turn|other parts"):
        CipherWorker(P, command=on("o", f"return {given}")).open_sum(TOTAL, key=KEY, slots=SLOTS)


# ---- what a worker is and what it gets

LOOK = """
import ctypes, json, resource
take_key = worker_main._REQUESTS[b'k']
def look(room, body):
    with open(PLACE, 'w') as file:
        json.dump({
            'core': resource.getrlimit(resource.RLIMIT_CORE),
            'memory': resource.getrlimit(resource.RLIMIT_AS),
            'dumpable': ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
            'modules': sorted({name.partition('.')[0] for name in sys.modules}),
            'arguments': open('/proc/self/cmdline').read(),
            'environment': open('/proc/self/environ').read(),
            'files': [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if int(fd) > 2
                      and os.path.exists(f'/proc/self/fd/{fd}')],
            'mark': hasattr(cipher, 'mark'),
            'session': os.getsid(0) == os.getpid(),
        }, file)
    return REST(room, body)
"""


def looking(place: Path, request: str) -> tuple[str, ...]:
    """A worker that writes down what it is when the request comes."""
    rest = f"REST, PLACE = worker_main._REQUESTS[b'{request}'], {str(place)!r}\n"
    return program(f"{rest}{LOOK}\nworker_main._REQUESTS[b'{request}'] = look")


def test_a_worker_is_a_bare_interpreter_under_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher, "mark", "a fork would have this", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    worker = CipherWorker(P, Performance(memory_bytes=700 << 20), command=looking(tmp_path / "seen", "o"))
    assert (worker.open_sum(TOTAL, key=KEY, slots=SLOTS) == OPENED).all()
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["core"] == [0, 0]
    assert seen["memory"] == [700 << 20] * 2
    assert seen["dumpable"] == 0
    assert not seen["mark"]
    assert seen["session"], "an interrupt at the terminal does not reach it"
    assert not {"torch", "transformers", "flwr", "sqlalchemy", "pydantic"} & set(seen["modules"])
    assert "hf_secret" not in seen["environment"]
    assert sum(name.startswith("socket:") for name in seen["files"]) == 1
    for form in (KEY.to_bytes()[64:96], KEY.to_bytes()[64:96].hex().encode()):
        assert form not in (seen["arguments"] + seen["environment"]).encode(errors="surrogateescape")


def test_workers_that_add_foreign_uploads_never_get_a_key(tmp_path: Path) -> None:
    place = tmp_path / "key came"
    worker = CipherWorker(P, Performance(processes=2), command=looking(place, "k"))
    assert worker.add(UPLOADS, slots=SLOTS) == TOTAL
    with worker.running_sum(SLOTS) as total:
        total.take(UPLOADS[0])
        total.to_bytes()
    assert not place.exists()
    worker.open_sum(TOTAL, key=KEY, slots=SLOTS)
    assert place.exists(), "the look has power: here a key came"


def test_a_worker_without_a_key_opens_nothing() -> None:
    with CipherWorker(P).running_sum(SLOTS) as total:
        total.take(UPLOADS[0])
        (process,) = total._chunks._workers  # type: ignore[attr-defined]
        process.tell(frame.read(Kind.SUM, TOTAL, P, SLOTS), b"o")
        with pytest.raises(WrongCipher, match="was given no key"):
            process.answer(4, 1 << 20)


def test_what_holds_a_key_prints_nothing_of_it() -> None:
    worker = CipherWorker(P, command=on("k", "os.abort()"))
    with pytest.raises(StoreFailed) as refused:
        worker.open_sum(TOTAL, key=KEY, slots=SLOTS)
    assert f"{KEY!r} {KEY} {KEY:s}" == "*** *** ***"
    for thing in (worker, refused.value):
        assert KEY.to_bytes()[64:80].hex() not in f"{thing!r} {thing} {vars(thing)}"
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(KEY)


PARENT = """
import os, sys
from tests.secagg.test_worker import CipherWorker, P, Performance, SLOTS, UPLOADS, on
total = CipherWorker(P, Performance(seconds=0.5), command=on("l", sys.argv[1])).running_sum(SLOTS)
total._chunks._workers = total._chunks._owner.start(1)
worker, = total._chunks._workers
worker.tell((), b"l")
print(worker._process.pid, flush=True)
os.read(0, 1)
os._exit(0)
"""


@pytest.mark.parametrize("what", ["return []", "while True: pass"], ids=["idle", "in a hang"])
def test_a_worker_ends_with_its_caller(what: str) -> None:
    """Also when the caller was killed and could end nothing, and also out of a hang: by its own alarm."""
    caller = subprocess.Popen([sys.executable, "-c", PARENT, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    worker = os.pidfd_open(int(caller.stdout.readline()))
    try:
        caller.kill()
        caller.communicate()
        poll = select.poll()
        poll.register(worker, select.POLLIN)
        assert poll.poll(30_000), "the worker outlives its caller"
    finally:
        os.close(worker)


# ---- the coordinator's adder

PLAN = real_plan(3, 16)
NAMES = PLAN.names


def adder_of(command: tuple[str, ...] | None = None) -> tuple[UploadAdder, dict[str, Any], MemoryBlobs]:
    blobs = MemoryBlobs()
    refs = {name: blob_ref(upload) for name, upload in zip(NAMES, UPLOADS, strict=True)}
    for name, upload in zip(NAMES, UPLOADS, strict=True):
        blobs.put(refs[name], [upload])
    adder = UploadAdder(PLAN, blobs)
    if command is not None:
        adder._worker = CipherWorker(P, ISOLATED, command=command)
    return adder, refs, blobs


def crash_over(upload: bytes) -> tuple[str, ...]:
    """A worker that dies of one upload and of no other."""
    mark = frame.read(Kind.UPLOAD, upload, P, SLOTS)[0][-64:]
    return program(
        f"load = worker_main._REQUESTS[b'l']\n"
        f"def bad(room, body):\n"
        f"    if room._chunks[0].endswith(bytes.fromhex('{mark.hex()}')): os.abort()\n"
        f"    return load(room, body)\n"
        f"worker_main._REQUESTS[b'l'] = bad"
    )


@pytest.mark.parametrize("victim", range(3))
def test_an_upload_that_kills_the_adders_worker_is_named_and_the_others_are_added(victim: int) -> None:
    adder, refs, _ = adder_of(crash_over(UPLOADS[victim]))
    for name, ref in refs.items():
        adder.arrived(name, ref)
    assert set(adder._added) == set(NAMES[victim + 1 :]), "a new worker adds those that come after it"
    with pytest.raises(BadUpload, match="was ended by SIGABRT") as refused:
        adder.total(refs)
    assert refused.value.member == NAMES[victim]
    rest = {name: ref for name, ref in refs.items() if name != NAMES[victim]}
    others = [upload for number, upload in enumerate(UPLOADS) if number != victim]
    assert adder.total(rest) == cipher.add(others, parameters=P, slots=SLOTS, count=2)


def test_an_adder_whose_idle_worker_was_killed_adds_again() -> None:
    """The sum in a worker is a cache: the uploads are in the store."""
    adder, refs, _ = adder_of()
    for name in NAMES[:2]:
        adder.arrived(name, refs[name])
    assert adder._sum is not None
    (worker,) = adder._sum._chunks._workers  # type: ignore[attr-defined]
    os.kill(worker._process.pid, signal.SIGKILL)
    assert adder.total(refs) == TOTAL


def test_an_adder_that_can_start_no_worker_blames_no_member() -> None:
    adder, refs, _ = adder_of(("/nowhere/python",))
    adder.arrived(NAMES[0], refs[NAMES[0]])
    with pytest.raises(StoreFailed, match="can't be started"):
        adder.total(refs)


def test_an_upload_that_is_not_in_the_store_or_not_as_signed_is_its_senders_fault() -> None:
    for change in (lambda data, digest: data.pop(digest), lambda data, digest: data.update({digest: UPLOADS[0]})):
        adder, refs, blobs = adder_of()
        change(blobs.data, refs[NAMES[1]].digest)
        with pytest.raises(BadUpload) as refused:
            adder.total(refs)
        assert refused.value.member == NAMES[1]
        adder.close()


def test_no_uploads_have_no_sum() -> None:
    with pytest.raises(SumRefused, match="no upload to add"):
        adder_of()[0].total({})
