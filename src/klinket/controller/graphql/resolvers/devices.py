"""Device and SerialNumber: queries, fields, mutations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klinket.controller.app import devices
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import DeviceRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name, matches_text
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "Device"
#: Fields that are shown as the client reported them.
_REPORTED = (
    "osVersion", "deviceType", "hardwareModel", "manufacturerName", "hostname", "username", "clientVersion",
    "lastConnectedAt", "lastSuccessfulLoginAt", "lastFailedLoginAt", "internetSecurityConfiguration",
)  # fmt: skip


@query
def _one(context: RequestContext, id: str) -> DeviceRow | None:
    number = number_of(id, TYPE)
    return context.tx.devices.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    rows = by_name(context.tx.devices.all(), filter)
    condition = (filter or {}).get("serialNumber")
    return context.connection([row for row in rows if matches_text(row.serial_number or "", condition)], page)


@query
def _serial_numbers(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    condition = (filter or {}).get("serialNumber")
    rows = [row for row in context.tx.serial_numbers.find() if matches_text(row.serial_number, condition)]
    return context.connection(rows, page)


@mutation(WRITE)
def _trust(context: RequestContext, id: str, isTrusted: bool) -> dict[str, Any]:
    row = devices.get(context.tx, number_of(id, TYPE), id)
    return {"entity": devices.trust(context.tx, context.caller.actor, row, is_trusted=isTrusted)}


def _move(to: str, *of: str) -> Callable[..., dict[str, Any]]:
    @mutation(WRITE)
    def move(context: RequestContext, id: str) -> dict[str, Any]:
        row = devices.get(context.tx, number_of(id, TYPE), id)
        return {"entity": devices.move(context.tx, context.caller.actor, row, to=to, of=of)}

    return move


@mutation(WRITE)
def _add_serial_numbers(context: RequestContext, serialNumbers: list[str]) -> dict[str, Any]:
    return {"entities": devices.add_serial_numbers(context.tx, context.caller.actor, serialNumbers)}


@mutation(WRITE)
def _remove_serial_numbers(context: RequestContext, serialNumbers: list[str]) -> dict[str, Any]:
    devices.remove_serial_numbers(context.tx, context.caller.actor, serialNumbers)
    return {}


def _reported(name: str) -> Callable[[DeviceRow, Any], Any]:
    return lambda row, _: row.facts.get(name)


FIELDS: dict[str, Callable[..., Any]] = {
    "Query.device": _one,
    "Query.devices": _many,
    "Query.serialNumbers": _serial_numbers,
    "Mutation.deviceUpdate": _trust,
    "Mutation.deviceArchive": _move(devices.ARCHIVED, devices.ACTIVE),
    "Mutation.deviceUnarchive": _move(devices.ACTIVE, devices.ARCHIVED),
    "Mutation.deviceBlock": _move(devices.BLOCKED, devices.ACTIVE, devices.ARCHIVED),
    "Mutation.deviceUnblock": _move(devices.ACTIVE, devices.BLOCKED),
    "Mutation.serialNumbersCreate": _add_serial_numbers,
    "Mutation.serialNumbersDelete": _remove_serial_numbers,
    "Device.id": lambda row, _: to_global_id(TYPE, row.id),
    "Device.name": lambda row, _: row.name,
    "Device.user": lambda row, info: info.context.siblings.parent(row, "user_id", info.context.tx.users),
    "Device.isTrusted": lambda row, _: row.is_trusted,
    "Device.activeState": lambda row, _: row.active_state,
    "Device.osName": lambda row, _: row.os_name,
    "Device.serialNumber": lambda row, _: row.serial_number,
    **{f"Device.{name}": _reported(name) for name in _REPORTED},
    "SerialNumber.id": lambda row, _: to_global_id("SerialNumber", row.id),
    "SerialNumber.createdAt": lambda row, _: row.created_at_ms,
    "SerialNumber.serialNumber": lambda row, _: row.serial_number,
    "SerialNumber.matchedDevices": lambda row, info: info.context.tx.devices.find(serial_number=row.serial_number),
}
