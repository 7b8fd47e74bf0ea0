"""What left this house in a round, by its digest, on the house's own disk: noted before it leaves, and never another.

The journal says what was done, and a database may lose what it held last: it was put back from a copy, or a standby
took over too early. Work that is then done again by an honest program would give a second vector under the same masks,
or shares for a second list of survivors. Nothing secret is in a note: a digest of what has noise and all masks' keys
behind it, or of two lists of names.
"""

from __future__ import annotations

from pathlib import Path

from fl_alliance.errors import OutOfOrder, StoreFailed
from fl_alliance.parties.files import sync_folder, write_atomically


class Once:
    """Notes of one job, a file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, what: str, round_number: int, digest: str) -> None:
        """Note durably that the `what` of a round with this digest is about to leave; it may be noted again.

        Raises:
            OutOfOrder: another one was noted: it may have left.
            StoreFailed: the note can't be read or written.
        """
        path = self._folder / f"{round_number:04d}.{what}"
        try:
            noted = path.read_text() if path.exists() else None
        except (OSError, ValueError) as error:
            raise StoreFailed(f"{path.name} can't be read in {path.parent}: {type(error).__name__}") from None
        if noted is None:
            write_atomically(path, digest.encode())
            sync_folder(self._folder)
        elif noted != digest:
            raise OutOfOrder(
                f"another {what} of round {round_number} left this house before: its journal has lost that"
            )
