"""Typed ids: handing a connector's id where a resource's is meant is a type error.

Numbers are rows of the store; the Admin API shows them as opaque global ids. Texts travel between parts.
"""

from __future__ import annotations

from typing import NewType

RemoteNetworkId = NewType("RemoteNetworkId", int)
ConnectorId = NewType("ConnectorId", int)
ResourceId = NewType("ResourceId", int)
ServiceAccountId = NewType("ServiceAccountId", int)
ServiceKeyId = NewType("ServiceKeyId", int)
GroupId = NewType("GroupId", int)
RelayId = NewType("RelayId", int)
CutId = NewType("CutId", int)

#: `service_account_id` of the key file: a UUID, what parts other than the controller know an account by.
ServiceAccountUuid = NewType("ServiceAccountUuid", str)
#: `key_id` of the key file, `kid` of a login assertion: what other parts know a service key by.
Kid = NewType("Kid", str)
#: 22 characters of base64url (16 random bytes).
SessionId = NewType("SessionId", str)
#: 32 hexadecimal digits (16 random bytes), the same at client, connector and in flow events.
FlowId = NewType("FlowId", str)
#: RFC 7638 SHA-256 thumbprint of a public key, base64url.
Thumbprint = NewType("Thumbprint", str)
