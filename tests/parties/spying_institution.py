"""The institution's command line, which notes its own secrets in a file; and a hook that leaves masks and cipher off.

    python -m tests.parties.spying_institution NOTES institution run HOME

NOTES has a line of JSON for each secret: what it is, and its bytes in hexadecimal. While there is a file
NOTES.naked, the update is uploaded as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir

from fl_alliance import cli
from fl_alliance.parties import desk
from fl_alliance.parties.trainer import QwenTrainer
from fl_alliance.secagg import cipher, keywrap, masks

Notes = dict[str, bytes]


def spy(place: Any, name: str, notes_of: Callable[..., Notes], write: Callable[[Notes], None]) -> None:
    """Let `place.name` do its work, then note `notes_of(result, *arguments)`."""
    work = getattr(place, name)

    def spied(*args: Any, **kwargs: Any) -> Any:
        result = work(*args, **kwargs)
        write(notes_of(result, *args))
        return result

    setattr(place, name, spied)


def off_when(switch: Path, place: Any, name: str, instead: Callable[[Any], Any]) -> None:
    """Let `place.name` give `instead` of its first argument while `switch` exists."""
    work = getattr(place, name)
    setattr(place, name, lambda *a, **k: instead(a[0]) if switch.exists() else work(*a, **k))


def update(result: Any, *_: Any) -> Notes:
    return {"update in float64": result.tobytes(), "update in float32": result.astype(np.float32).tobytes()}


def packed(result: Any, digits: Any, *_: Any) -> Notes:
    short = digits.astype(np.uint16).tobytes()
    return {"packed update": result.tobytes(), "digits": digits.tobytes(), "digits of 16 bits": short}


def opened(result: Any, *_: Any) -> Notes:
    return {"sum": result.tobytes()}


def alliance_key(result: cipher.AllianceKey, *_: Any) -> Notes:
    return {"alliance key": result.to_bytes()[64:]}


def round_secrets(result: masks.RoundSecrets, *_: Any) -> Notes:
    return {
        "mask seed": result.mask_seed,
        "self seed": result.self_seed,
        "channel key": result.channel_private,
        "mask key": result.mask_private,
    }


def wrap_key(result: tuple[bytes, bytes], *_: Any) -> Notes:
    return {"wrap key": result[0]}


def content_key(result: tuple[bytes, bytes], *_: Any) -> Notes:
    return {"content key": result[0]}


def unwrapped(result: bytes, *_: Any) -> Notes:
    return {"unwrapped key": result}


def shares(result: list[tuple[int, bytes]], *_: Any) -> Notes:
    return {f"share {index}": share for index, share in result}


def main() -> None:
    path = Path(sys.argv.pop(1))

    def write(notes: Notes) -> None:
        with path.open("a") as file:
            file.writelines(json.dumps([what, secret.hex()]) + "\n" for what, secret in notes.items())

    spy(QwenTrainer, "train_round", update, write)
    spy(desk.packing, "pack", packed, write)
    spy(desk.cipher, "open_sum", opened, write)
    spy(desk.masks, "remove_self_masks", opened, write)
    spy(cipher.AllianceKey, "generate", alliance_key, write)
    spy(masks.RoundSecrets, "generate", round_secrets, write)
    spy(keywrap, "generate_wrap_key", wrap_key, write)
    spy(keywrap, "seal_key", content_key, write)
    spy(keywrap, "unwrap_key", unwrapped, write)
    spy(Shamir, "split", shares, write)
    naked = path.with_name(f"{path.name}.naked")
    off_when(naked, desk.masks, "add_masks", lambda slots: slots)
    off_when(naked, desk.cipher, "seal", lambda slots: slots.tobytes())
    cli.main()


if __name__ == "__main__":
    main()
