"""Tables. Every rule has a named constraint; names of rules are what Conflict texts are chosen by.

`sqlite_autoincrement`: ids are never given twice, also after a delete; an old id must not come to mean something new.
"""

from __future__ import annotations

from klinket.controller.store.schema.columns import metadata as metadata
from klinket.controller.store.schema.events import audit_anchor as audit_anchor
from klinket.controller.store.schema.events import audit_events as audit_events
from klinket.controller.store.schema.events import audit_head as audit_head
from klinket.controller.store.schema.events import audit_signatures as audit_signatures
from klinket.controller.store.schema.events import cut_receipts as cut_receipts
from klinket.controller.store.schema.events import cuts as cuts
from klinket.controller.store.schema.events import flow_events as flow_events
from klinket.controller.store.schema.events import flow_hours as flow_hours
from klinket.controller.store.schema.events import flow_totals as flow_totals
from klinket.controller.store.schema.events import live_flows as live_flows
from klinket.controller.store.schema.events import sinks as sinks
from klinket.controller.store.schema.inventory import access as access
from klinket.controller.store.schema.inventory import account_limits as account_limits
from klinket.controller.store.schema.inventory import connectors as connectors
from klinket.controller.store.schema.inventory import head as head
from klinket.controller.store.schema.inventory import remote_networks as remote_networks
from klinket.controller.store.schema.inventory import resources as resources
from klinket.controller.store.schema.inventory import security_policies as security_policies
from klinket.controller.store.schema.inventory import service_accounts as service_accounts
from klinket.controller.store.schema.inventory import service_keys as service_keys
from klinket.controller.store.schema.people import console_sessions as console_sessions
from klinket.controller.store.schema.people import devices as devices
from klinket.controller.store.schema.people import group_access as group_access
from klinket.controller.store.schema.people import group_members as group_members
from klinket.controller.store.schema.people import groups as groups
from klinket.controller.store.schema.people import serial_numbers as serial_numbers
from klinket.controller.store.schema.people import users as users
from klinket.controller.store.schema.sign_in import lock_outs as lock_outs
from klinket.controller.store.schema.sign_in import oidc_identities as oidc_identities
from klinket.controller.store.schema.sign_in import passkeys as passkeys
from klinket.controller.store.schema.sign_in import passwords as passwords
from klinket.controller.store.schema.sign_in import recovery_codes as recovery_codes
from klinket.controller.store.schema.sign_in import sign_in_links as sign_in_links
from klinket.controller.store.schema.sign_in import totp_secrets as totp_secrets
from klinket.controller.store.schema.sign_in import used_challenges as used_challenges
from klinket.controller.store.schema.trust import api_tokens as api_tokens
from klinket.controller.store.schema.trust import authorities as authorities
from klinket.controller.store.schema.trust import relays as relays
from klinket.controller.store.schema.trust import sessions as sessions
from klinket.controller.store.schema.trust import signing_keys as signing_keys
from klinket.controller.store.schema.trust import used_assertions as used_assertions
