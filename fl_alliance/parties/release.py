"""What an institution lays beside a released adapter: model card, signed provenance, OpenSSF model signature.

Written after the vote, into the adapter's folder, `model.sig` last: a folder without it is not finished. Done again,
as after a crash, everything but the adapter's own files is written anew.
"""

from __future__ import annotations

import base64
import contextlib
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from fl_alliance.errors import StoreFailed
from fl_alliance.evidence.adapter import ADAPTER_FILES, CARD, PROVENANCE, SIGNATURE, digest_of_adapter, file_at
from fl_alliance.evidence.keys import IdentityKey
from fl_alliance.evidence.model_signature import new_model_key, public_half, public_pem, sign_model
from fl_alliance.evidence.sign import open_document, sign_document
from fl_alliance.parties.files import write_atomically
from fl_alliance.privacy.model_card import render_card
from fl_alliance.protocol.documents import ModelProvenance, PrivacyReport, RoundRecord, Software
from fl_alliance.protocol.ids import digest_of
from fl_alliance.protocol.plan import ModelFile, TrainingPlan

PACKAGES: Final = (
    "dp-accounting", "fl-alliance", "model-signing", "numpy", "opacus", "peft", "safetensors", "tenseal", "torch",
    "transformers",
)  # fmt: skip
"""What decides over the adapter's numbers, its epsilon and its signature."""
HELD: Final = 0o644


@dataclass(frozen=True)
class ModelReleaser:
    """Signs an institution's released adapters."""

    identity: IdentityKey
    key: Path
    """EC key for model signatures; made when it is first needed, its public half as .pub.pem beside it."""

    def write(self, folder: Path, plan: TrainingPlan, plan_digest: str, evidence: Path, record: RoundRecord) -> None:
        """Lay card, provenance and signature into the adapter's `folder`; `evidence` holds report and records.

        Raises:
            StoreFailed: a file can't be read or written.
            BadConfig: the key is none, or others may read it.
        """
        _sweep(folder)
        model_key = self._public_key()
        try:
            files = tuple(file_at(folder / name) for name in ADAPTER_FILES)
            report = (evidence / "report.dsse.json").read_bytes()
            last = (evidence / "rounds" / f"{record.round:04d}" / "record.dsse.json").read_bytes()
        except OSError as error:
            raise StoreFailed(f"{folder.name} can't be described: {error.strerror}") from None
        draft = ModelProvenance(
            key=self.identity.public_text,
            model_key=base64.b64encode(model_key).decode(),
            files=files,
            plan=plan,
            plan_digest=plan_digest,
            rounds=record.round,
            record_digest=digest_of(last),
            report=open_document(report, PrivacyReport, public_key=self.identity.public),
            report_digest=digest_of(report),
            software=software(),
        )
        card = render_card(draft, adapter_digest=digest_of_adapter(files))
        card_file = ModelFile(name=CARD, digest=digest_of(card))
        provenance = draft.model_copy(update={"files": (card_file, *files)})
        write_atomically(folder / CARD, card, mode=HELD)
        write_atomically(folder / PROVENANCE, sign_document(self.identity, provenance), mode=HELD)
        write_atomically(folder / SIGNATURE, sign_model(folder, self.key), mode=HELD)

    def _public_key(self) -> bytes:
        if not self.key.exists():
            write_atomically(self.key, new_model_key())
        public = public_half(self.key)
        write_atomically(self.key.with_suffix(".pub.pem"), public_pem(public), mode=HELD)
        return public


def software() -> tuple[Software, ...]:
    """Return the versions of Python and of those of `PACKAGES` that are installed, sorted by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return tuple(Software(name=name, version=version) for name, version in sorted(found.items()))


def _sweep(folder: Path) -> None:
    """Remove what an earlier try left, drafts of a killed process among it."""
    try:
        for path in folder.iterdir():
            if path.name not in ADAPTER_FILES:
                path.unlink()
    except OSError as error:
        raise StoreFailed(f"{folder.name} can't be cleared: {error.strerror}") from None
