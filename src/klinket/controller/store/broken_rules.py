"""What people are told when a rule of the schema is broken."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from klinket.domain.errors import Conflict

#: By words in the database's text.
_RULES = {
    "remote_networks.name": "a remote network with this name exists already",
    "uq_remote_networks_name": "a remote network with this name exists already",
    "connectors.name": "a connector with this name exists already",
    "uq_connectors_name": "a connector with this name exists already",
    "service_accounts.name": "a service account with this name exists already",
    "uq_service_accounts_name": "a service account with this name exists already",
    "resources.alias": "another resource has this alias",
    "uq_resources_alias": "another resource has this alias",
    "groups.name": "a group with this name exists already",
    "uq_groups_name": "a group with this name exists already",
    "users.email": "a user with this email address exists already",
    "uq_users_email": "a user with this email address exists already",
    "security_policies.name": "a security policy with this name exists already",
    "uq_security_policies_name": "a security policy with this name exists already",
    "api_tokens.name": "an API token with this name exists already",
    "uq_api_tokens_name": "an API token with this name exists already",
    "sinks.name": "a sink with this name exists already",
    "uq_sinks_name": "a sink with this name exists already",
    "passkeys.credential_id": "this passkey is registered already",
    "uq_passkeys_credential_id": "this passkey is registered already",
    "FOREIGN KEY": "something that others depend on cannot be deleted, and nothing can depend on what does not exist",
    "foreign key": "something that others depend on cannot be deleted, and nothing can depend on what does not exist",
}


def conflict_of(error: IntegrityError) -> Conflict:
    """Return the error for people; the database's own text stays inside."""
    text = str(error.orig)
    return Conflict(next((told for words, told in _RULES.items() if words in text), "the change breaks a rule of the store"))
