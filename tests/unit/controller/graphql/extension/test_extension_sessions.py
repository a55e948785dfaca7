"""Sessions over the extension: who is logged in, and ending one."""

from __future__ import annotations

from typing import Any

from klinket.domain.cut import ScopeKind
from tests.unit.controller.running import Running

FIELDS = "id hostname address clientVersion isAttached endedAt endReason serviceAccountId serviceKeyId createdAt"
SESSIONS = (
    "query ($a: ID, $live: Boolean) "
    f"{{ sessions(serviceAccountId: $a, live: $live) {{ totalCount edges {{ node {{ {FIELDS} }} }} }} }}"
)
END = "mutation ($s: ID!) { sessionEnd(id: $s) { ok error entity { id endedAt endReason } } }"


async def listed(controller: Running, **variables: Any) -> list[dict[str, Any]]:
    answer = await controller.query(SESSIONS, extension=True, **variables)
    nodes = [edge["node"] for edge in answer["sessions"]["edges"]]
    assert answer["sessions"]["totalCount"] == len(nodes)
    return nodes


async def test_a_login_is_listed_with_where_it_came_from(controller: Running) -> None:
    network = await controller.add_network()
    account = await controller.add_account(resources=[await controller.add_resource(network)])
    key, key_file = await controller.add_key(account)
    session = await controller.log_in(key_file)
    (node,) = await listed(controller, a=account)
    assert node["id"] == session.id
    assert (node["serviceAccountId"], node["serviceKeyId"]) == (account, key)
    assert (node["hostname"], node["clientVersion"], node["isAttached"]) == ("runner-1", "0.1.0", False)
    assert node["endedAt"] is None
    assert await listed(controller, a="U2VydmljZUFjY291bnQ6OTk=") == []


async def test_an_ended_session_is_cut_and_its_key_logs_in_again(controller: Running) -> None:
    network = await controller.add_network()
    await controller.add_connector(network)
    account = await controller.add_account(resources=[await controller.add_resource(network)])
    _, key_file = await controller.add_key(account)
    session = await controller.log_in(key_file)
    (ended,) = (await controller.query(END, extension=True, s=session.id)).values()
    assert ended["ok"] is True
    assert ended["entity"]["endReason"] == "ended by an admin"
    cuts = await controller.read(lambda tx: tx.cuts.newest(1))
    assert cuts[0].scope.startswith(ScopeKind.SESSION.value)
    assert len(await controller.read(lambda tx: tx.cut_receipts.find(cut_id=cuts[0].id))) == 1
    assert await listed(controller, live=True) == []
    again = await controller.log_in(key_file)
    assert [node["id"] for node in await listed(controller, live=True)] == [again.id]


async def test_a_session_that_is_not_there_is_told_as_such(controller: Running) -> None:
    (missed,) = (await controller.query(END, extension=True, s="nobody")).values()
    assert missed == {"ok": False, "error": "Session with id 'nobody' does not exist", "entity": None}


async def test_the_controller_tells_who_it_is(controller: Running) -> None:
    answer = await controller.query("{ controller { network version epoch revision time } }", extension=True)
    assert answer["controller"]["network"] == controller.config.host_and_port
