"""Versions: of the product, of what a connector reports, and of the protocols."""

from __future__ import annotations

#: Kept equal to pyproject.toml by a test; reading package metadata at run time would cost start-up time.
PRODUCT_VERSION = "0.1.0"
#: What klinket's connector reports: its feature level in the numbering that admins' version gates use (facts §5), then our own.
CONNECTOR_VERSION = f"1.80.0+klinket.{PRODUCT_VERSION}"
#: ALPN of a link's TLS handshake; a new value for every incompatible change of links or pipes.
LINK_PROTOCOL = "klinket/1"
