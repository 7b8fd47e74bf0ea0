"""The files of mutual TLS, and the two contexts made from them."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from fl_alliance.errors import BadConfig, CertificateRefused


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of one party: the alliance's own CA, and the party's certificate with its unencrypted private key."""

    ca: Path
    certificate: Path
    key: Path

    def require_valid(self) -> None:
        """Return if the party's certificate is valid today.

        Raises:
            CertificateRefused: it is not; the text has both dates.
        """
        shown = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        if not shown.not_valid_before_utc <= datetime.datetime.now(datetime.UTC) <= shown.not_valid_after_utc:
            dates = f"{shown.not_valid_before_utc:%Y-%m-%d} to {shown.not_valid_after_utc:%Y-%m-%d}"
            raise CertificateRefused(
                f"certificate of {shown.subject.rfc4514_string()}: valid {dates}: run `institution rotate`"
            )

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
