"""Limits in people's words, by the names of domain.account_limits.AccountLimits."""

from __future__ import annotations

WORDS = {
    "login_burst": "Logins at once",
    "logins_per_second": "Logins a second",
    "max_sessions": "Sessions at a time",
    "new_flows_burst": "New flows at once",
    "new_flows_per_second": "New flows a second",
    "max_flows": "Flows at a time",
    "bytes_per_second": "Bytes a second, each direction",
}
