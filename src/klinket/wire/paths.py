"""Paths of the controller that parts and people speak to; those of logins and live channels stand beside what they carry."""

from __future__ import annotations

#: Ends a session (client), with an assertion of its own kind.
LOGOUT_PATH = "/api/v4/headless/logout"
#: Ends a service key, for whoever holds it (security.md 20).
REVOKE_PATH = "/api/v4/headless/revoke"
#: A connector's key against a certificate.
ENROL_PATH = "/api/v4/connector/enroll"
#: Whether a connector's tokens are still valid.
VALIDATE_TOKENS_PATH = "/api/v4/connector/validate_tokens"
#: The Admin API as existing clients know it, and what klinket has beyond it.
GRAPHQL_PATH = "/api/graphql/"
EXTENSION_PATH = "/api/klinket/graphql/"
#: What follows either path to learn what a change would cut: the change is made and undone.
DRY_RUN = "dry-run/"
#: Cuts with their receipts.
CUTS_PATH = "/api/klinket/v1/cuts"
#: Exports of the audit and of the network events.
AUDIT_EXPORT_PATH = "/api/klinket/v1/audit/export"
FLOWS_EXPORT_PATH = "/api/klinket/v1/flows/export"
#: Tells a peer that punches holes from which address and port its connection comes.
REFLECT_PATH = "/api/klinket/v1/reflect"
#: Every public signing key of the controller.
JWKS_PATH = "/.well-known/jwks.json"
