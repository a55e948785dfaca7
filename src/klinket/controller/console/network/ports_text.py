"""Ports of resources: as people read them, and as a form without script takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from klinket.controller.app.resources import protocols_of
from klinket.controller.console.form import Form
from klinket.domain.errors import InvalidInput
from klinket.domain.ports import ALL_PROTOCOLS, PortPolicy, PortRange, PortRule

ALL, SOME, NONE = "ALL", "SOME", "NONE"
#: What a form lets choose for a protocol.
CHOICES = {ALL: "All ports", SOME: "Only these ports", NONE: "No port"}


def in_words(stored: Mapping[str, Any]) -> str:
    """Return what a resource opens: "everything", "TCP 443, 8000-8999; ICMP", "nothing"."""
    protocols = protocols_of(stored)
    if protocols == ALL_PROTOCOLS:
        return "everything"
    parts = [f"{name} {_rule(rule)}" for name, rule in (("TCP", protocols.tcp), ("UDP", protocols.udp)) if rule.spans()]
    return "; ".join([*parts, *(["ICMP"] if protocols.allow_icmp else [])]) or "nothing"


def _rule(rule: PortRule) -> str:
    return "all ports" if rule.policy is PortPolicy.ALLOW_ALL else ", ".join(str(span) for span in rule.ports)


def chosen(stored: Mapping[str, Any] | None, protocol: str) -> tuple[str, str]:
    """Return (choice, text of the ports) of "tcp" or "udp" for a form."""
    protocols = protocols_of(stored)
    rule = protocols.tcp if protocol == "tcp" else protocols.udp
    if rule.policy is PortPolicy.ALLOW_ALL:
        return ALL, ""
    return (SOME, ", ".join(str(span) for span in rule.ports)) if rule.ports else (NONE, "")


def from_form(form: Form) -> dict[str, Any]:
    """Return protocols in the API's shape from the fields tcp, tcp_ports, udp, udp_ports, icmp; raises InvalidInput."""
    return {"allowIcmp": form.flag("icmp"), "tcp": _protocol(form, "tcp"), "udp": _protocol(form, "udp")}


def _protocol(form: Form, name: str) -> dict[str, Any]:
    choice, field = form.text(name), f"{name}_ports"
    if choice in (ALL, NONE) and form.text(field):
        told = f"{name.upper()} ports are given, and {CHOICES[choice].lower()} chosen"
        raise InvalidInput(field, told, hint=f"choose {CHOICES[SOME]!r}, or leave the ports empty")
    if choice == ALL:
        return {"policy": PortPolicy.ALLOW_ALL.value, "ports": []}
    if choice == NONE:
        return {"policy": PortPolicy.RESTRICTED.value, "ports": []}
    if choice != SOME:
        raise InvalidInput(name, f"{name}: choose all ports, only some, or none")
    texts = [text for text in re.split(r"[,;\s]+", form.text(field)) if text]
    if not texts:
        raise InvalidInput(field, f"which {name.upper()} ports?", hint="443 or 8000-8999, several with commas")
    try:
        spans = [PortRange.parse(text) for text in texts]
    except InvalidInput as error:
        raise InvalidInput(field, error.message, hint=error.hint) from error
    return {"policy": PortPolicy.RESTRICTED.value, "ports": [{"start": span.first, "end": span.last} for span in spans]}
