"""Who may use what of a controller: one table, from which tests ask and docs/reference/authorization.md is made.

Each line is a door and a word of WHO. The tests show what every caller of CALLERS has at every door; a field, path, page or
message without a line fails, and so does a line that leads nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.routing import WebSocketRoute

from klinket.wire.control import CHANNEL_PATH
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH
from klinket.wire.relay import RELAY_CHANNEL_PATH

#: Every caller, with what it shows.
CALLERS = {
    "nobody": "no credential at all",
    "read": "an API token with the scope `read`",
    "write": "an API token with the scope `write`, which includes `read`",
    "provision": "an API token with the scope `provision`, which includes both",
    "begun": "the cookie of a sign-in whose second factor is still asked for",
    "set-up": "the cookie of a sign-in that has to choose its credentials first",
    "MEMBER": "the cookie of a user whose role has no console",
    "SUPPORT": "a console session of this role",
    "DEVOPS": "a console session of this role",
    "ADMIN": "a console session of this role",
    "client": "a session of a service account: service key, session key, access token",
    "connector": "an enrolled connector: its two tokens, its key, its access token",
    "relay": "a relay's token",
}
_PEOPLE = {"SUPPORT", "DEVOPS", "ADMIN"}
#: The words of the tables below.
WHO: dict[str, frozenset[str]] = {
    "everybody": frozenset(CALLERS),
    "no-one": frozenset(),
    "read": frozenset({"read", "write", "provision"}),
    "write": frozenset({"write", "provision"}),
    "provision": frozenset({"provision"}),
    "begun": frozenset({"begun"}),
    "set-up": frozenset({"set-up"}),
    "set-up-or-people": frozenset({"set-up", *_PEOPLE}),
    "people": frozenset(_PEOPLE),
    "network": frozenset({"DEVOPS", "ADMIN"}),
    "admin": frozenset({"ADMIN"}),
    "client": frozenset({"client"}),
    "connector": frozenset({"connector"}),
    "peers": frozenset({"client", "connector"}),
    "relay": frozenset({"relay"}),
}

#: Fields of Query, then of Mutation, with the least scope that covers them.
CONTRACT = """
    connector                   read
    connectors                  read
    device                      read
    devices                     read
    group                       read
    groups                      read
    remoteNetwork               read
    remoteNetworks              read
    resource                    read
    resources                   read
    securityPolicies            read
    securityPolicy              read
    serialNumbers               read
    serviceAccount              read
    serviceAccountKey           read
    serviceAccounts             read
    user                        read
    users                       read

    connectorCreate             write
    connectorDelete             write
    connectorGenerateTokens     provision
    connectorUpdate             write
    deviceArchive               write
    deviceBlock                 write
    deviceUnarchive             write
    deviceUnblock               write
    deviceUpdate                write
    groupCreate                 write
    groupDelete                 write
    groupUpdate                 write
    remoteNetworkCreate         write
    remoteNetworkDelete         write
    remoteNetworkUpdate         write
    resourceAccessAdd           write
    resourceAccessRemove        write
    resourceAccessSet           write
    resourceCreate              write
    resourceDelete              write
    resourceUpdate              write
    securityPolicyUpdate        write
    serialNumbersCreate         write
    serialNumbersDelete         write
    serviceAccountCreate        write
    serviceAccountDelete        write
    serviceAccountKeyCreate     provision
    serviceAccountKeyDelete     provision
    serviceAccountKeyRevoke     provision
    serviceAccountKeyUpdate     write
    serviceAccountUpdate        write
    userCreate                  write
    userDelete                  write
    userDetailsUpdate           write
    userResetMfa                write
    userRoleUpdate              write
"""

EXTENSION = """
    accountLimits               read
    apiToken                    read
    apiTokens                   read
    auditEvent                  read
    auditEvents                 read
    auditRetention              read
    controller                  read
    cut                         read
    cuts                        read
    explain                     read
    flowEvents                  read
    relay                       read
    relays                      read
    serviceKey                  read
    serviceKeys                 read
    sessions                    read
    sink                        read
    sinks                       read

    accountLimitsSet            write
    apiTokenCreate              provision
    apiTokenDelete              provision
    apiTokenUpdate              provision
    relayDelete                 write
    serviceKeyGenerate          provision
    serviceKeyRegister          provision
    serviceKeyRotate            provision
    serviceKeySetSeats          write
    sessionEnd                  write
    sinkCreate                  provision
    sinkDelete                  provision
    sinkTest                    provision
    sinkUpdate                  provision
"""

#: Every other path but the pages of the console.
PATHS = """
    GET  /                                            everybody
    GET  /.well-known/jwks.json                       everybody
    GET  /healthz                                     everybody
    GET  /readyz                                      everybody
    GET  /live                                        everybody
    GET  /ready                                       everybody
    GET  /metrics                                     no-one
    POST /api/graphql/                                read
    GET  /api/graphql/                                everybody
    POST /api/graphql/dry-run/                        read
    POST /api/klinket/graphql/                        read
    GET  /api/klinket/graphql/                        everybody
    POST /api/klinket/graphql/dry-run/                read
    GET  /api/klinket/v1/cuts                         read
    GET  /api/klinket/v1/cuts/{id}                    read
    GET  /api/klinket/v1/audit/export                 read
    GET  /api/klinket/v1/flows/export                 read
    POST /api/v4/headless/login                       client
    POST /api/v4/headless/logout                      client
    POST /api/v4/headless/revoke                      client
    POST /api/v4/connector/enroll                     connector
    POST /api/v4/connector/validate_tokens            connector
    POST /api/klinket/v1/reflect                      peers
    GET  /console                                     everybody
    GET  /console/{rest}                              everybody
    GET  /console/static/{digest}/{name}              everybody
"""

#: Pages and forms of signing in.
SIGN_IN = """
    GET  /console/sign-in                             everybody
    POST /console/sign-in                             everybody
    POST /console/sign-in/passkey                     everybody
    GET  /console/sign-in/oidc                        everybody
    GET  /console/sign-in/oidc/callback               everybody
    GET  /console/sign-in/link                        everybody
    POST /console/sign-in/link                        everybody
    POST /console/sign-in/link/account                everybody
    POST /console/sign-out                            everybody
    GET  /console/sign-in/factor                      begun
    POST /console/sign-in/factor                      begun
    POST /console/sign-in/factor/passkey              begun
    GET  /console/sign-in/recovery                    begun
    POST /console/sign-in/recovery                    begun
    GET  /console/sign-in/set-up                      set-up
    GET  /console/sign-in/set-up/app                  set-up
    POST /console/sign-in/set-up/app                  set-up
    GET  /console/sign-in/app.svg                     set-up-or-people
    POST /console/sign-in/set-up/passkey              set-up
    GET  /console/prove                               people
    GET  /console/prove/oidc                          people
    POST /console/prove/password                      people
    POST /console/prove/code                          people
    POST /console/prove/passkey                       people
"""

#: Pages and forms; "proof": only to who has proved lately who they are.
PAGES = """
    GET  /console/                                                                  people
    GET  /console/events                                                            people
    GET  /console/network/remote-networks                                           people
    GET  /console/network/remote-networks/new                                       network
    POST /console/network/remote-networks/new                                       network
    GET  /console/network/remote-networks/{id}                                      people
    POST /console/network/remote-networks/{id}                                      network
    POST /console/network/remote-networks/{id}/disable                              network
    POST /console/network/remote-networks/{id}/enable                               network
    POST /console/network/remote-networks/{id}/delete                               network
    GET  /console/network/connectors                                                people
    GET  /console/network/connectors/{id}                                           people
    GET  /console/network/connectors/new                                            network
    POST /console/network/connectors/new                                            network
    POST /console/network/connectors/{id}                                           network
    POST /console/network/connectors/{id}/delete                                    network
    GET  /console/network/connectors/{id}/tokens                                    network proof
    POST /console/network/connectors/{id}/tokens                                    network proof
    GET  /console/network/resources                                                 people
    GET  /console/network/resources/{id}                                            people
    GET  /console/network/resources/new                                             network
    POST /console/network/resources/new                                             network
    GET  /console/network/resources/{id}/edit                                       network
    POST /console/network/resources/{id}/edit                                       network
    POST /console/network/resources/{id}/disable                                    network
    POST /console/network/resources/{id}/enable                                     network
    POST /console/network/resources/{id}/delete                                     network
    GET  /console/network/resources/{id}/access                                     admin
    POST /console/network/resources/{id}/access                                     admin
    POST /console/network/resources/{id}/access/remove                              admin
    GET  /console/team/services                                                     people
    GET  /console/team/services/new                                                 admin
    POST /console/team/services/new                                                 admin
    GET  /console/team/services/{id}                                                people
    POST /console/team/services/{id}/rename                                         admin
    POST /console/team/services/{id}/delete                                         admin
    GET  /console/team/services/keys                                                people
    GET  /console/team/services/{id}/keys/new                                       admin proof
    POST /console/team/services/{id}/keys/new                                       admin proof
    POST /console/team/services/{id}/keys/{key}/rename                              admin
    POST /console/team/services/{id}/keys/{key}/revoke                              admin
    POST /console/team/services/{id}/keys/{key}/delete                              admin
    POST /console/team/services/{id}/limits                                         admin
    GET  /console/team/services/{id}/resources                                      people
    GET  /console/team/services/{id}/resources/new                                  admin
    POST /console/team/services/{id}/resources/new                                  admin
    POST /console/team/services/{id}/resources/{resource}/end                       admin
    POST /console/team/services/{id}/resources/{resource}/remove                    admin
    GET  /console/team/services/{id}/sessions                                       people
    POST /console/team/services/{id}/sessions/{session}/end                         admin
    GET  /console/team/users                                                        people
    GET  /console/team/users/new                                                    admin proof
    POST /console/team/users/new                                                    admin proof
    GET  /console/team/users/{id}                                                   people
    POST /console/team/users/{id}                                                   admin proof
    POST /console/team/users/{id}/delete                                            admin
    POST /console/team/users/{id}/link                                              admin proof
    POST /console/team/users/{id}/groups                                            admin
    POST /console/team/users/{id}/groups/leave                                      admin
    GET  /console/team/groups                                                       people
    GET  /console/team/groups/new                                                   admin
    POST /console/team/groups/new                                                   admin
    GET  /console/team/groups/{id}                                                  people
    POST /console/team/groups/{id}                                                  admin
    POST /console/team/groups/{id}/delete                                           admin
    POST /console/team/groups/{id}/members                                          admin
    POST /console/team/groups/{id}/members/remove                                   admin
    GET  /console/policies                                                          people
    GET  /console/policies/new                                                      admin
    POST /console/policies/new                                                      admin
    GET  /console/policies/{id}                                                     people
    POST /console/policies/{id}                                                     admin
    POST /console/policies/{id}/delete                                              admin
    POST /console/policies/{id}/assign                                              admin
    POST /console/policies/{id}/withdraw                                            admin
    GET  /console/settings/api-tokens                                               admin
    GET  /console/settings/api-tokens/new                                           admin proof
    POST /console/settings/api-tokens/new                                           admin proof
    GET  /console/settings/api-tokens/{id}                                          admin
    POST /console/settings/api-tokens/{id}                                          admin proof
    POST /console/settings/api-tokens/{id}/enable                                   admin proof
    POST /console/settings/api-tokens/{id}/disable                                  admin
    POST /console/settings/api-tokens/{id}/delete                                   admin
    GET  /console/settings/network                                                  people
    GET  /console/settings/relays                                                   people
    GET  /console/settings/relays/new                                               admin proof
    POST /console/settings/relays/new                                               admin proof
    GET  /console/settings/relays/{id}                                              people
    POST /console/settings/relays/{id}/token                                        admin proof
    POST /console/settings/relays/{id}/delete                                       admin
    GET  /console/settings/sinks                                                    admin
    GET  /console/settings/sinks/new                                                admin
    GET  /console/settings/sinks/new/{kind}                                         admin proof
    POST /console/settings/sinks/new/{kind}                                         admin proof
    GET  /console/settings/sinks/{id}                                               admin
    POST /console/settings/sinks/{id}                                               admin proof
    POST /console/settings/sinks/{id}/test                                          admin
    POST /console/settings/sinks/{id}/enable                                        admin proof
    POST /console/settings/sinks/{id}/disable                                       admin
    POST /console/settings/sinks/{id}/delete                                        admin
    GET  /console/settings/trust                                                    people
    GET  /console/settings/trust/authorities/{purpose}                              people
    GET  /console/settings/trust/keys.json                                          people
    POST /console/settings/trust/keys/{purpose}/rotate                              admin
    GET  /console/activity/flows                                                    people
    GET  /console/activity/flows/export                                             people
    GET  /console/activity/flows/{id}                                               people
    GET  /console/activity/names/{kind}                                             people
    GET  /console/activity/cuts                                                     people
    GET  /console/activity/cuts/{id}                                                people
    GET  /console/activity/cuts/{id}/receipt                                        people
    GET  /console/activity/trends                                                   people
    GET  /console/activity/audit                                                    people
    GET  /console/activity/audit/export                                             people
    GET  /console/activity/audit/verify                                             people
    GET  /console/activity/audit/{id}                                               people
    GET  /console/search                                                            people
    GET  /console/account                                                           people
    POST /console/account/password                                                  people
    GET  /console/account/app                                                       people proof
    POST /console/account/app                                                       people proof
    POST /console/account/app/remove                                                people proof
    GET  /console/account/passkeys/new                                              people proof
    POST /console/account/passkeys/new                                              people proof
    POST /console/account/passkeys/{id}/rename                                      people
    POST /console/account/passkeys/{id}/remove                                      people proof
    POST /console/account/recovery-codes                                            people proof
    POST /console/account/sessions/{id}/end                                         people
    POST /console/account/sessions/end-others                                       people
    POST /console/account/identities/{id}/unlink                                    people proof
    GET  /console/settings/console-access                                           admin
    GET  /console/settings/console-access/invite                                    admin proof
    POST /console/settings/console-access/invite                                    admin proof
    GET  /console/settings/console-access/{id}                                      admin
    POST /console/settings/console-access/{id}/link                                 admin proof
    POST /console/settings/console-access/{id}/end-sessions                         admin
    POST /console/settings/console-access/{id}/sessions/{session}/end               admin
"""

#: Opening a channel, and each message on it.
CHANNELS = """
    live  attach                                      peers
    live  heartbeat                                   peers
    live  renew                                       peers
    live  renew-certificate                           peers
    live  punch                                       client
    live  end-session                                 client
    live  cut-receipt                                 connector
    live  flow-events                                 connector
    relay attach                                      relay
    relay relay-report                                relay
"""
CHANNEL_PATHS = {"live": CHANNEL_PATH, "relay": RELAY_CHANNEL_PATH}


@dataclass(frozen=True)
class Door:
    """A line. `kind`: a method, a path of the Admin API, or a channel; `who`: callers that are let in."""

    kind: str
    name: str
    who: frozenset[str]
    proof: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def scopes_of(table: str) -> dict[str, str]:
    """Return the least scope for each field."""
    lines = [line.split() for line in table.splitlines() if line.strip()]
    assert len({field for field, _ in lines}) == len(lines)
    return {line[0]: line[1] for line in lines}


def _doors(table: str) -> list[Door]:
    lines = [line.split() for line in table.splitlines() if line.strip()]
    assert all(more in ([], ["proof"]) for _, _, _, *more in lines)
    doors = [Door(kind, name, WHO[who], proof=bool(more)) for kind, name, who, *more in lines]
    assert len({str(door) for door in doors}) == len(doors)
    return doors


def _fields(path: str, table: str) -> list[Door]:
    return [Door(path, field, WHO[scope]) for field, scope in scopes_of(table).items()]


FIELD_DOORS = {path: _fields(path, table) for path, table in ((GRAPHQL_PATH, CONTRACT), (EXTENSION_PATH, EXTENSION))}
PATH_DOORS, SIGN_IN_DOORS, PAGE_DOORS, CHANNEL_DOORS = (_doors(table) for table in (PATHS, SIGN_IN, PAGES, CHANNELS))


def routes_of(app: Any) -> list[str]:
    """Return "METHOD /path" for each path that an app serves, and each path of a WebSocket alone. Ids stand as "{id}"."""
    found = []
    for route in app.routes:
        path = re.sub(r":\w+}", "}", route.path)
        if isinstance(route, WebSocketRoute):
            found.append(path)
        else:
            found += [f"{method} {path}" for method in route.methods - {"HEAD"}]
    return found
