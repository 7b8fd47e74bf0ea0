"""Which proxy a call goes through: HTTPS_PROXY and NO_PROXY, as curl and pip read them; decided here for all calls.

A proxy is asked to CONNECT and then carries TLS that it can't read: the coordinator's certificate is checked as without
one. So a proxy that opens TLS to look inside is refused like any man in the middle.
"""

from __future__ import annotations

import ssl
import urllib.parse
import urllib.request

import httpx

from fl_alliance.errors import BadConfig


def proxy_for(address: str) -> str | None:
    """Return the URL of the proxy for calls to `address` (host:port); None: the call goes straight.

    NO_PROXY is a list of hosts and suffixes of hosts, each with or without a port, or `*`.

    Raises:
        BadConfig: HTTPS_PROXY is no http or https URL. The text does not hold a password that is in it.
    """
    proxies = urllib.request.getproxies_environment()
    url = proxies.get("https")
    if not url or urllib.request.proxy_bypass(address):
        return None
    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfig(f"HTTPS_PROXY: {parts.scheme}://..., must be http://HOST:PORT")
    return parts.geturl()


def without_password(url: str) -> str:
    """Return `url` as it may be shown."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def https_client(address: str, context: ssl.SSLContext, *, timeout: float) -> httpx.Client:
    """Return a client for calls to `address` (host:port) by relative URLs: through its proxy, never redirected."""
    return httpx.Client(
        verify=context,
        timeout=timeout,
        follow_redirects=False,
        base_url=f"https://{address}",
        proxy=proxy_for(address),
        trust_env=False,
    )
