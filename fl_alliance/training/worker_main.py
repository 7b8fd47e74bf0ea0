"""A training worker's own program. `workers` starts it and talks to it.

    python -P -m fl_alliance.training.worker_main FD

FD is one end of a socket pair. Its messages (`multiprocessing.connection`: a length and bytes; nothing is pickled):

    settings (JSON), plan (canonical JSON)     -> it loads the model and answers READY
    the group's secret                         -> it joins the group of ranks (`ranks.SumGroup`)
    units (`pack_units`), once for each step   -> it takes the weights from rank 0 over the group, answers READY
    READY                                      -> it adds its sum into rank 0's over the group

Instead of READY it may say its last word: the type of an error, and where it was raised.

It holds no key, draws no sample, makes no noise and opens no file but the model's and the meeting's. What a step left
is forgotten before the next. It ends at once when the other end closes, whatever it is doing then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import sys
import threading
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fl_alliance.training.ranks import SumGroup
    from fl_alliance.training.session import TrainingSession


def main(arguments: list[str]) -> None:
    """Run a worker."""
    (descriptor,) = arguments
    talk = Connection(int(descriptor))
    keep_quiet()
    end_with(talk)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # records would be in it
    try:
        serve(talk, *join(talk))
    except EOFError:
        return
    except Exception as error:
        with contextlib.suppress(OSError):
            talk.send_bytes(last_word(error))
        raise SystemExit(1) from None


def keep_quiet() -> None:
    """Let no library write to standard error, which is the institution's log: its text may quote a record."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def last_word(error: Exception) -> bytes:
    """Return what ended this process and where, without the error's text: `TYPE FILE:LINE > FILE:LINE ...`."""
    places = [f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} {' > '.join(places[-12:])}".encode()


def end_with(talk: Connection) -> None:
    """End this process when the other end of `talk` closes.

    Not by PR_SET_PDEATHSIG: that would be the end of the *thread* which started us.
    """
    poll = select.poll()
    poll.register(talk.fileno(), select.POLLRDHUP)

    def watch() -> None:
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def join(talk: Connection) -> tuple[TrainingSession, SumGroup]:
    """Load the model that the first messages name, and join the group."""
    import torch

    from fl_alliance.protocol.codec import decode
    from fl_alliance.protocol.plan import TrainingPlan
    from fl_alliance.training.batches import Performance
    from fl_alliance.training.process import prepare_process
    from fl_alliance.training.ranks import SECRET_BYTES, SumGroup
    from fl_alliance.training.session import TrainingSession
    from fl_alliance.training.workers import READY

    prepare_process()
    settings = json.loads(talk.recv_bytes())
    plan = decode(TrainingPlan, talk.recv_bytes())
    performance, rank = Performance(**settings["performance"]), settings["rank"]
    if (device := performance.torch_device(rank)).type == "cuda":
        torch.cuda.set_device(device)
    session = TrainingSession(Path(settings["folder"]), plan, settings["member"], performance, rank=rank)
    talk.send_bytes(READY)
    secret = talk.recv_bytes(SECRET_BYTES)
    return session, SumGroup(Path(settings["meeting"]), rank, performance.processes, secret)


def serve(talk: Connection, session: TrainingSession, group: SumGroup) -> None:
    """Do this rank's part of each step (EOFError: the other end closed)."""
    import torch

    from fl_alliance.training.ranks import unpack_units
    from fl_alliance.training.workers import READY

    while True:
        units = unpack_units(talk.recv_bytes())
        weights = torch.from_numpy(session.vector)
        group.broadcast(weights)
        total = session.clipped_sum(weights, units)
        talk.send_bytes(READY)
        talk.recv_bytes(len(READY))
        group.reduce(total)
        del units, total


if __name__ == "__main__":
    main(sys.argv[1:])
