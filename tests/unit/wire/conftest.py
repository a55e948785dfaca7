"""What the tests of the wire share: a pace, tokens forged by hand, JSON of any shape, messages of any type."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import settings
from hypothesis import strategies as st

from klinket.domain.address import ResourceAddress
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import ALL_PROTOCOLS, Protocols
from klinket.domain.resource import Resource

MODERATE = settings(max_examples=100, deadline=None)
NOW = 1_800_000_000.0

#: Text with lone surrogates too, as it can come out of JSON escapes and of a command line.
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | ANY_TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unbase64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return header, claims and signature of a token."""
    header, claims, signature = (unbase64url(part) for part in token.split("."))
    return json.loads(header), json.loads(claims), signature


def signing_input(header: Mapping[str, Any], claims: object) -> str:
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))


def forge(key: ec.EllipticCurvePrivateKey, header: Mapping[str, Any], claims: object) -> str:
    """Return a token with any header and claims and a right ES256 signature, made without the code under test."""
    text = signing_input(header, claims)
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def resource(
    id: int, address: str, *, network: int = 1, alias: str | None = None, protocols: Protocols = ALL_PROTOCOLS
) -> Resource:
    return Resource(ResourceId(id), f"resource {id}", ResourceAddress.parse(address), RemoteNetworkId(network), alias, protocols)


@functools.cache
def messages(type: type[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of msgspec structs of a type, with every field drawn."""
    return _of(msgspec.inspect.type_info(type))


def _of(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            drawn = {field.name: _of(field.type) for field in fields}
            return st.builds(cls, *drawn.values()) if info.array_like else st.builds(cls, **drawn)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*(_of(one) for one in types))
        case msgspec.inspect.ListType(item_type=item):
            return st.lists(_of(item), max_size=3)
        case msgspec.inspect.DictType():
            return st.dictionaries(st.text(max_size=6), st.none() | st.integers(-9, 9) | st.text(max_size=6), max_size=3)
        case msgspec.inspect.StrType():
            return st.text(max_size=20)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.IntType():
            least = -(2**63) if info.ge is None else info.ge
            return st.integers(least, 2**63 - 1 if info.lt is None else info.lt - 1)
        case msgspec.inspect.BytesType():
            return st.binary(max_size=20)
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case msgspec.inspect.NoneType():
            return st.none()
    raise AssertionError(f"no strategy for {info}")


def hostile_json(tags: list[str]) -> st.SearchStrategy[bytes]:
    """Return a strategy of bytes, JSON, and objects with one of these types and any fields."""
    tagged = st.dictionaries(st.text(max_size=8), JSON, max_size=5).flatmap(
        lambda fields: st.sampled_from(tags).map(lambda tag: {**fields, "type": tag})
    )
    return st.binary(max_size=80) | (JSON | tagged).map(lambda value: json.dumps(value).encode())
