"""Rows of the store as use cases see them, by the tables they are of. Times end in `_ms`: milliseconds since the epoch."""

from __future__ import annotations

from klinket.controller.app.rows.events import AuditAnchorRow as AuditAnchorRow
from klinket.controller.app.rows.events import AuditHeadRow as AuditHeadRow
from klinket.controller.app.rows.events import AuditRow as AuditRow
from klinket.controller.app.rows.events import AuditSignatureRow as AuditSignatureRow
from klinket.controller.app.rows.events import CutReceiptRow as CutReceiptRow
from klinket.controller.app.rows.events import CutRow as CutRow
from klinket.controller.app.rows.events import FlowEventRow as FlowEventRow
from klinket.controller.app.rows.events import FlowHourRow as FlowHourRow
from klinket.controller.app.rows.events import FlowTotalRow as FlowTotalRow
from klinket.controller.app.rows.events import LiveFlowRow as LiveFlowRow
from klinket.controller.app.rows.events import SinkRow as SinkRow
from klinket.controller.app.rows.inventory import AccessRow as AccessRow
from klinket.controller.app.rows.inventory import AccountLimitsRow as AccountLimitsRow
from klinket.controller.app.rows.inventory import ConnectorRow as ConnectorRow
from klinket.controller.app.rows.inventory import RemoteNetworkRow as RemoteNetworkRow
from klinket.controller.app.rows.inventory import ResourceRow as ResourceRow
from klinket.controller.app.rows.inventory import SecurityPolicyRow as SecurityPolicyRow
from klinket.controller.app.rows.inventory import ServiceAccountRow as ServiceAccountRow
from klinket.controller.app.rows.inventory import ServiceKeyRow as ServiceKeyRow
from klinket.controller.app.rows.people import ConsoleSessionRow as ConsoleSessionRow
from klinket.controller.app.rows.people import DeviceRow as DeviceRow
from klinket.controller.app.rows.people import GroupAccessRow as GroupAccessRow
from klinket.controller.app.rows.people import GroupMemberRow as GroupMemberRow
from klinket.controller.app.rows.people import GroupRow as GroupRow
from klinket.controller.app.rows.people import SerialNumberRow as SerialNumberRow
from klinket.controller.app.rows.people import UserRow as UserRow
from klinket.controller.app.rows.sign_in import LockOutRow as LockOutRow
from klinket.controller.app.rows.sign_in import OidcIdentityRow as OidcIdentityRow
from klinket.controller.app.rows.sign_in import PasskeyRow as PasskeyRow
from klinket.controller.app.rows.sign_in import PasswordRow as PasswordRow
from klinket.controller.app.rows.sign_in import RecoveryCodeRow as RecoveryCodeRow
from klinket.controller.app.rows.sign_in import SignInLinkRow as SignInLinkRow
from klinket.controller.app.rows.sign_in import TotpSecretRow as TotpSecretRow
from klinket.controller.app.rows.sign_in import UsedChallengeRow as UsedChallengeRow
from klinket.controller.app.rows.trust import ApiTokenRow as ApiTokenRow
from klinket.controller.app.rows.trust import AuthorityRow as AuthorityRow
from klinket.controller.app.rows.trust import RelayRow as RelayRow
from klinket.controller.app.rows.trust import SessionRow as SessionRow
from klinket.controller.app.rows.trust import SigningKeyRow as SigningKeyRow
from klinket.controller.app.rows.trust import UsedAssertionRow as UsedAssertionRow
