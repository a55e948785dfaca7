"""The environment variables by which programs find their proxy."""

from __future__ import annotations


def of(http: str, socks: str) -> dict[str, str]:
    """Return the variables for two proxies (host:port), in both spellings."""
    named = {
        "HTTP_PROXY": f"http://{http}",
        "HTTPS_PROXY": f"http://{http}",
        "ALL_PROXY": f"socks5h://{socks}",
        "NO_PROXY": "localhost,127.0.0.1,::1",
    }
    return {spelling: value for name, value in named.items() for spelling in (name, name.lower())}
