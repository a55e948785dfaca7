"""Settings > Network: what the controller is set to, and which of its options says so."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app.ports import Transaction
from klinket.controller.config import ControllerConfig
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.controller.console.words import duration_in_words
from klinket.wire.version import CONNECTOR_VERSION, PRODUCT_VERSION


@dataclass(frozen=True, slots=True)
class Setting:
    """What something is set to. `option`: of `klinket controller`, that says so; "" where none does."""

    label: str
    value: str
    option: str = ""


def _rate(a_minute: int) -> str:
    return f"{a_minute} a minute for each API token" if a_minute else "no limit"


def _sign_in(config: ControllerConfig) -> list[Setting]:
    oidc = config.oidc
    if oidc is None:
        return [Setting("Identity provider", "none: password and second factor, or passkey", "--oidc-issuer")]
    roles = ", ".join(f"{value} → {role}" for value, role in oidc.rules.roles.items()) or "none"
    return [
        Setting("Identity provider", oidc.issuer, "--oidc-issuer"),
        Setting("Known there as", oidc.client_id, "--oidc-client-id"),
        Setting("Domains that count", ", ".join(sorted(oidc.rules.domains)), "--oidc-domain"),
        Setting("Claim that gives roles", oidc.role_claim, "--oidc-role-claim"),
        Setting("Roles by that claim", roles, "--oidc-role"),
        Setting("Users it makes", oidc.rules.new_role or "none", "--oidc-create-users"),
    ]


def settings_of(config: ControllerConfig) -> dict[str, list[Setting]]:
    """Return what the controller's options say, by subject; no secrets, no paths of its machine."""
    own = "of the network's own authority" if config.certificate is None else "from a file"
    database = "SQLite" if config.postgres is None else str(config.postgres)
    ranges = ", ".join(str(one) for one in config.allowed_outbound) or "public addresses only"
    flows = config.account_defaults
    new_flows = f"{flows.new_flows_per_second:.0f} a second at each connector, {flows.new_flows_burst:,} at once"
    local = ["a file" if config.event_file else "", "standard output" if config.events_to_stdout else ""]
    return {
        "Network": [
            Setting("Name", config.network, "--network"),
            Setting("Public URL", config.public_url, "--public-url"),
            Setting("Listens on", str(config.listen), "--listen"),
            Setting("TLS certificate", own, "--certificate, --key"),
            Setting("Relay beside it", str(config.relay) if config.relay else "none", "--with-relay"),
            Setting("Database", database, "--database"),
        ],
        "Access": [
            Setting("Life of a grant", duration_in_words(config.grant_seconds * 1000), "--grant-seconds"),
            Setting("New flows of a service", new_flows, "--new-flows-per-second"),
            Setting("Live flows of a service", f"{flows.max_flows:,} at each connector"),
        ],
        "Console sign-in": _sign_in(config),
        "Admin API": [
            Setting("Requests", _rate(config.api_reads_per_minute), "--api-reads-per-minute"),
            Setting("Mutations", _rate(config.api_writes_per_minute), "--api-writes-per-minute"),
        ],
        "Events": [
            Setting("Flow events are kept", f"{config.flow_days} days", "--flow-days"),
            Setting("Flow events at most", f"{config.flow_events:,}", "--flow-events"),
            Setting("Audit, cuts and receipts are kept", f"{config.audit_days} days", "--audit-days"),
            Setting("Also written to", ", ".join(one for one in local if one) or "nowhere", "--event-file, --events-to-stdout"),
            Setting("Sinks may be in", ranges, "--allow-outbound"),
        ],
    }  # fmt: skip


async def _show(page: Page) -> Response:
    def read(tx: Transaction) -> dict[str, Any]:
        versions = Counter(row.version or "not seen yet" for row in tx.connectors.find())
        epoch, revision = tx.head()
        return {"connectors": versions.most_common(20), "epoch": epoch, "revision": revision}

    values = await page.read(read)
    versions = [
        Setting("klinket", PRODUCT_VERSION),
        Setting("Feature level of its connectors", CONNECTOR_VERSION),
        Setting("Python", platform.python_version()),
        Setting("State", f"revision {values['revision']} of epoch {values['epoch']}"),
    ]
    subjects = {**settings_of(page.console.config), "Versions": versions}
    return page.render("settings/network.html", subjects=subjects, connectors=values["connectors"])


ROUTES: tuple[ConsoleRoute, ...] = (shown("/settings/network", _show),)
