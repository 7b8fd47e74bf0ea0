"""The files of mutual TLS, and the two contexts made from them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from fl_alliance.errors import BadConfig


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of one party: the alliance's own CA, and the party's certificate with its unencrypted private key."""

    ca: Path
    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts the alliance's CA alone and shows the party's certificate.

        Raises:
            BadConfig: a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise BadConfig(f"TLS files {self.ca}, {self.certificate}, {self.key}: {error}") from error
        return context
