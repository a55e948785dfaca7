"""Identities in certificates: one URI each (SPIFFE), `spiffe://NETWORK/...` (security.md 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from klinket.domain.errors import AuthenticationFailed, InvalidInput
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, Kid, ServiceAccountUuid, SessionId

_NETWORK = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_CLIENT = re.compile(
    r"spiffe://([a-z0-9.-]{1,63})/service-account/([0-9a-f-]{36})/key/([\w-]{1,64})/session/([\w-]{22})", re.ASCII
)
_CONNECTOR = re.compile(r"spiffe://([a-z0-9.-]{1,63})/connector/([1-9][0-9]{0,17})", re.ASCII)


class IdentityInvalid(AuthenticationFailed):
    """A URI that is no identity of this kind."""

    code = "identity-invalid"


def parse_network_name(text: str) -> str:
    """Return the network's name; raises InvalidInput("network"): lower-case letters, digits, `-` and `.`, 1 to 63."""
    if not _NETWORK.fullmatch(text):
        raise InvalidInput("network", f"not a network name: {text[:80]!r}", hint="lower-case letters, digits, '-' and '.'")
    return text


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A session of a service key of a service account, in a network."""

    network: str
    principal: Principal

    @property
    def uri(self) -> str:
        """Return the SPIFFE URI."""
        who = self.principal
        return f"spiffe://{self.network}/service-account/{who.account}/key/{who.key}/session/{who.session}"

    @classmethod
    def parse(cls, uri: str) -> ClientIdentity:
        """Return the identity of a URI; raises IdentityInvalid for any other text."""
        match = _CLIENT.fullmatch(uri)
        if match is None:
            raise IdentityInvalid("not the identity of a client")
        return cls(match[1], Principal(ServiceAccountUuid(match[2]), Kid(match[3]), SessionId(match[4])))


@dataclass(frozen=True, slots=True)
class ConnectorIdentity:
    """A connector of a network."""

    network: str
    connector: ConnectorId

    @property
    def uri(self) -> str:
        """Return the SPIFFE URI."""
        return f"spiffe://{self.network}/connector/{self.connector}"

    @classmethod
    def parse(cls, uri: str) -> ConnectorIdentity:
        """Return the identity of a URI; raises IdentityInvalid for any other text."""
        match = _CONNECTOR.fullmatch(uri)
        if match is None:
            raise IdentityInvalid("not the identity of a connector")
        return cls(match[1], ConnectorId(int(match[2])))
