"""Settings > Sinks: where audit and network events are delivered. Secrets go in and never come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import sinks
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import SinkRow
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import InvalidInput, KlinketError, NotFound
from klinket.domain.role import Permission
from klinket.domain.sink import SinkKind, Stream

LIST = "/settings/sinks"
FORM, ONE = "settings/sink_form.html", "settings/sink.html"
KINDS = {
    SinkKind.WEBHOOK.value: ("Webhook", "HTTPS requests with the events as JSON, signed with HMAC-SHA-256."),
    SinkKind.SYSLOG.value: ("Syslog", "RFC 5424 messages over TLS: for a SIEM or a log server."),
    SinkKind.SMTP.value: ("E-mail", "For people; mostly for warnings, such as of keys about to expire."),
}
#: Those of the command line.
LOCAL_KINDS = {SinkKind.FILE.value: "File of the controller", SinkKind.STDOUT.value: "Standard output of the controller"}
STREAMS = {
    Stream.AUDIT.value: ("Audit", "who changed what"),
    Stream.NETWORK.value: ("Network", "flows: who reached what, and what was refused"),
    Stream.WARNINGS.value: ("Warnings", "audit events that warn, such as of keys about to expire"),
}
#: Settings of each kind, as the form names them.
SETTINGS = {
    SinkKind.WEBHOOK.value: ("url", "authority"),
    SinkKind.SYSLOG.value: ("address", "authority"),
    SinkKind.SMTP.value: ("address", "sender", "recipients", "user", "authority"),
}
_WORDS: dict[str, Any] = {"kinds": KINDS, "local_kinds": LOCAL_KINDS, "streams": STREAMS}


@dataclass(frozen=True, slots=True)
class _Listed:
    """`waiting`: events the sink has still to get, in words; "" for none."""

    row: SinkRow
    where: str
    kind: str
    waiting: str

    @property
    def state(self) -> tuple[str, str]:
        """Return kind of pill, and word."""
        if not self.row.is_enabled:
            return "idle", "Disabled"
        if self.row.attempts:
            return "bad", "Failing"
        if self.row.last_error:
            return "warn", "Needs attention"
        return ("ok", "Delivering") if self.row.last_delivered_ms else ("idle", "Nothing sent yet")


def _listed(tx: Transaction, row: SinkRow) -> _Listed:
    count = 0
    if {Stream.AUDIT.value, Stream.WARNINGS.value} & set(row.streams):
        count += sinks.waiting(tx, row)
    if Stream.NETWORK.value in row.streams:
        newest = tx.flow_events.newest(1)
        count += max(0, newest[0].id - row.flow_position) if newest else 0
    kind = KINDS[row.kind][0] if row.kind in KINDS else LOCAL_KINDS.get(row.kind, row.kind)
    return _Listed(row, sinks.where(row).partition("?")[0], kind, f"{count:,}" if count else "")


async def _list(page: Page) -> Response:
    def read(tx: Transaction) -> tuple[Part[SinkRow], list[_Listed]]:
        part = part_of(page, tx.sinks.matching("", ("name",), order="name"))
        return part, [_listed(tx, row) for row in part.rows]

    part, listed = await page.read(read)
    return page.render("settings/sinks.html", part=part, listed=listed, **_WORDS)


# ---- forms


def _kind_of(page: Page) -> SinkKind:
    word = str(page.request.path_params["kind"])
    if word not in KINDS:
        raise NotFound("Kind of sink", word)
    return SinkKind(word)


def _settings(page: Page, kind: SinkKind) -> dict[str, Any]:
    given: dict[str, Any] = {name: page.form.text(name) for name in SETTINGS[kind.value]}
    if "recipients" in given:
        given["recipients"] = given["recipients"].replace(",", " ").split()
    return given


def _secret(page: Page) -> str | None:
    return page.form.raw("secret") or None


async def _choose(page: Page) -> Response:
    return page.render("settings/sink_kinds.html", **_WORDS)


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    kind = _kind_of(page)
    values = {"kind": kind.value, "row": None, "shown": {}, **_WORDS}
    return page.render(FORM, **values) if error is None else page.refuse(FORM, error, **values)


async def _create(page: Page) -> Response:
    kind, services = _kind_of(page), page.console.services
    given = _secret(page)
    made_up = sinks.made_up(kind, services.entropy) if given is None else None
    secret = given or made_up

    def change(tx: Transaction) -> SinkRow:
        return sinks.create(
            tx,
            page.actor,
            name=page.form.text("name"),
            kind=kind,
            settings=_settings(page, kind),
            streams=page.form.texts("streams"),
            sealed_secret=None if secret is None else sinks.sealed(kind, secret, services.seal),
        )

    try:
        row = await page.write(change)
    except KlinketError as error:
        return await _new(page, error)
    if made_up is not None:
        return page.render("settings/sink_secret.html", row=row, secret=made_up)
    return page.redirect(f"{LIST}/{row.id}", f"Sink {row.name} created. It gets what happens from now on.")


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()
    listed = await page.read(lambda tx: _listed(tx, sinks.get(tx, id, id)))
    row = listed.row
    shown_settings = {name: "\n".join(value) if isinstance(value, list) else value or "" for name, value in row.settings.items()}
    values = {"listed": listed, "row": row, "kind": row.kind, "shown": shown_settings, **_WORDS}
    return page.render(ONE, **values) if error is None else page.refuse(ONE, error, **values)


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> SinkRow:
        row = sinks.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        if row.kind not in KINDS:
            raise InvalidInput("kind", f"sink {row.name!r} is set up by an option of `klinket controller`")
        kind = SinkKind(row.kind)
        changes: dict[str, Any] = {
            "name": form.text("name"), "settings": _settings(page, kind), "streams": form.texts("streams"),
        }  # fmt: skip
        if (secret := _secret(page)) is not None:
            changes["sealed_secret"] = sinks.sealed(kind, secret, page.console.services.seal)
        return sinks.update(tx, page.actor, row, changes)

    try:
        row = await page.write(change)
    except KlinketError as error:
        return await _one(page, error)
    if row.last_error == sinks.GIVE_IT_AGAIN:
        return page.redirect(
            f"{LIST}/{id}", Notice("Saved. It goes elsewhere now, so its secret was dropped: give it again.", "warning")
        )
    return page.redirect(f"{LIST}/{id}", "Saved.")


# ---- actions


async def _test(page: Page) -> Response:
    id = page.number()
    try:
        row = await page.write(lambda tx: sinks.test(tx, page.actor, sinks.get(tx, id, id)))
    except KlinketError as error:
        return await _one(page, error)
    return page.redirect(f"{LIST}/{id}", f"A test warning is on its way to {row.name}; below you see how it went.")


async def _enable(page: Page) -> Response:
    return await _switch(page, is_enabled=True)


async def _disable(page: Page) -> Response:
    return await _switch(page, is_enabled=False)


async def _switch(page: Page, *, is_enabled: bool) -> Response:
    id = page.number()
    try:
        row = await page.write(lambda tx: sinks.update(tx, page.actor, sinks.get(tx, id, id), {"is_enabled": is_enabled}))
    except KlinketError as error:
        return await _one(page, error)
    if is_enabled:
        return page.redirect(f"{LIST}/{id}", f"{row.name} gets everything that it missed.")
    notice = f"{row.name} gets nothing until it is enabled again; events wait for it."
    return page.redirect(f"{LIST}/{id}", Notice(notice, undo=Undo(f"{LIST}/{id}/enable")))


async def _delete(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> SinkRow:
        row = sinks.get(tx, id, id)
        sinks.delete(tx, page.actor, row)
        return row

    return await page.carry_out(change, _one, lambda row: page.redirect(LIST, f"Sink {row.name} deleted."))


_ADMIN = Permission.ADMIN
ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list, _ADMIN),
    shown(LIST + "/new", _choose, _ADMIN),
    shown(LIST + "/new/{kind}", _new, _ADMIN, secret=True),
    changed(LIST + "/new/{kind}", _create, _ADMIN, secret=True),
    shown(LIST + "/{id:int}", _one, _ADMIN),
    changed(LIST + "/{id:int}", _update, _ADMIN, secret=True),
    changed(LIST + "/{id:int}/test", _test, _ADMIN),
    changed(LIST + "/{id:int}/enable", _enable, _ADMIN, secret=True),
    changed(LIST + "/{id:int}/disable", _disable, _ADMIN),
    changed(LIST + "/{id:int}/delete", _delete, _ADMIN),
)
