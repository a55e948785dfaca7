"""Identities in certificates: one URI, exactly one spelling (security.md 11)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, Kid, ServiceAccountUuid, SessionId
from klinket.wire.identity import ClientIdentity, ConnectorIdentity, IdentityInvalid, parse_network_name
from tests.unit.wire.conftest import ANY_TEXT, MODERATE

UUID = "a1111111-2222-3333-4444-55555555555f"
CLIENT_URI = f"spiffe://acme/service-account/{UUID}/key/Kid_-1/session/{'s' * 22}"
CLIENT = ClientIdentity("acme", Principal(ServiceAccountUuid(UUID), Kid("Kid_-1"), SessionId("s" * 22)))

NETWORK = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
WORD = "abcXYZ019_-"


def test_the_uris_are_as_documented() -> None:
    assert CLIENT.uri == CLIENT_URI
    assert ClientIdentity.parse(CLIENT_URI) == CLIENT
    assert ConnectorIdentity("acme", ConnectorId(7)).uri == "spiffe://acme/connector/7"
    assert ConnectorIdentity.parse("spiffe://acme/connector/7") == ConnectorIdentity("acme", ConnectorId(7))


@MODERATE
@given(
    NETWORK, st.uuids(), st.text(WORD, min_size=1, max_size=64), st.text(WORD, min_size=22, max_size=22), st.integers(1, 10**17)
)
def test_identities_survive_their_uri(network: str, account: object, key: str, session: str, connector: int) -> None:
    client = ClientIdentity(network, Principal(ServiceAccountUuid(str(account)), Kid(key), SessionId(session)))
    assert ClientIdentity.parse(client.uri) == client
    other = ConnectorIdentity(network, ConnectorId(connector))
    assert ConnectorIdentity.parse(other.uri) == other
    with pytest.raises(IdentityInvalid):
        ConnectorIdentity.parse(client.uri)
    with pytest.raises(IdentityInvalid):
        ClientIdentity.parse(other.uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://acme/connector/0",
        "spiffe://acme/connector/07",
        "spiffe://acme/connector/-7",
        "spiffe://acme/connector/７",
        "spiffe://acme/connector/7/",
        "spiffe://acme/connector/7\n",
        "spiffe://acme/connector/7?x",
        "spiffe://acme/connector/" + "9" * 19,
        "spiffe://ACME/connector/7",
        "SPIFFE://acme/connector/7",
        "https://acme/connector/7",
        "spiffe:///connector/7",
        "spiffe://acme@evil/connector/7",
        "spiffe://acme:443/connector/7",
        "spiffe://" + "a" * 64 + "/connector/7",
        " spiffe://acme/connector/7",
    ],
)
def test_no_other_spelling_is_a_connector(uri: str) -> None:
    with pytest.raises(IdentityInvalid):
        ConnectorIdentity.parse(uri)


@pytest.mark.parametrize(
    "uri",
    [
        CLIENT_URI + "s",
        CLIENT_URI[:-1],
        CLIENT_URI + "\n",
        CLIENT_URI.replace("Kid_-1", ""),
        CLIENT_URI.replace("Kid_-1", "a/b"),
        CLIENT_URI.replace("Kid_-1", "x" * 65),
        CLIENT_URI.replace("Kid_-1", "ключ"),
        CLIENT_URI.replace(UUID, UUID[:-1]),
        CLIENT_URI.replace(UUID, UUID.upper()),
        CLIENT_URI.replace("acme", "Acme"),
        CLIENT_URI + "/connector/7",
        "spiffe://acme/connector/7" + CLIENT_URI,
    ],
)
def test_no_other_spelling_is_a_client(uri: str) -> None:
    with pytest.raises(IdentityInvalid):
        ClientIdentity.parse(uri)


@MODERATE
@given(ANY_TEXT | st.text("spife:/acmeconnector7\n", max_size=40).map(lambda text: "spiffe://" + text))
def test_arbitrary_text_is_exactly_its_identity_or_refused(text: str) -> None:
    for kind in (ClientIdentity, ConnectorIdentity):
        try:
            identity = kind.parse(text)
        except IdentityInvalid:
            continue
        assert identity.uri == text


@pytest.mark.parametrize("name", ["a", "acme", "acme.example-1.com", "0", "a" * 63])
def test_a_network_has_a_plain_name(name: str) -> None:
    assert parse_network_name(name) == name


@pytest.mark.parametrize("name", ["", "Acme", "-a", "a-", ".a", "a.", "a_b", "a/b", "a b", "a\n", "é", "a" * 64])
def test_other_network_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_network_name(name)
    assert refused.value.field == "network"
