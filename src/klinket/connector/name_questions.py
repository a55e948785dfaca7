"""Answers what clients ask about names of their resources: all record types but addresses, from this side's resolvers.

Only names that the session's grant serves are asked about. Everything is bounded per session: how many at a time, how many a
second, how long, and how much comes back.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from klinket.connector import limits
from klinket.connector.core import ConnectorCore
from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.errors import FlowRefused, InvalidInput, ProtocolError
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ServiceAccountUuid, SessionId
from klinket.domain.shares import FairShares
from klinket.domain.token_buckets import TokenBuckets
from klinket.net import resolv_conf
from klinket.net.clock import entropy
from klinket.net.sockets import receive_exactly
from klinket.net.tasks import TaskSet
from klinket.wire import dns_answer
from klinket.wire.dns import Code, RecordType
from klinket.wire.dns_answer import DnsAnswer
from klinket.wire.link_control import MAX_ANSWER_BYTES, MAX_TEXT_CHARS, AskName, NameAnswer

logger = logging.getLogger(__name__)

#: Data of a name's own, as a record: A, AAAA, A6 and the hints of SVCB and HTTPS would lead past klinket.
_ADDRESSES = frozenset({RecordType.A, RecordType.AAAA, RecordType.A6, RecordType.SVCB, RecordType.HTTPS})
#: OPT, and what asks for more than records of one type: transfers, ANY, and the rest of that range (RFC 6895 §3.1).
_NO_RECORDS = frozenset({RecordType.OPT, *range(128, 256)})

Tell = Callable[[NameAnswer], Awaitable[None]]


def system_resolvers(file: Path = Path("/etc/resolv.conf")) -> list[str]:
    """Return the resolvers that a resolv.conf names, in order; none where it names none or cannot be read."""
    try:
        named = resolv_conf.parse(file.read_text(errors="replace")).named
    except OSError as error:
        logger.warning("names: %s", error)
        return []
    return [address for address in named if parse_ip(address.partition("%")[0]) is not None][: limits.MAX_RESOLVERS]


class NameQuestions:
    """All questions of one connector. `clock`: the controller's time; `resolvers`: gives the addresses to ask, `port` of each."""

    def __init__(
        self,
        core: ConnectorCore,
        clock: Callable[[], float],
        resolvers: Callable[[], Sequence[str]] = system_resolvers,
        port: int = 53,
    ) -> None:
        self._core = core
        self._clock = clock
        self._resolvers = resolvers
        self._port = port
        self._of_session: Counter[SessionId] = Counter()
        self._shares: FairShares[ServiceAccountUuid] = FairShares(limits.MAX_NAME_QUESTIONS)
        self._buckets = TokenBuckets(limits.NAME_QUESTIONS_BURST, limits.NAME_QUESTIONS_PER_SECOND, limits.MAX_BUCKETS)

    def ask(self, question: AskName, principal: Principal, tasks: TaskSet, tell: Tell) -> NameAnswer | None:
        """Answer in the background, as one of `tasks`; returns the refusal of what is above the bounds of the session.

        Whoever gets it sends it before the next question is read: nobody makes this connector collect refusals.
        """
        session, account = principal.session, principal.account
        if self._of_session[session] >= limits.NAME_QUESTIONS_PER_SESSION or not self._shares.take(account):
            return _without(question, Code.SERVER_FAILURE, "too many questions for names at a time")
        if self._buckets.take(session, time.monotonic()):
            self._shares.give_back(account)
            return _without(question, Code.SERVER_FAILURE, "too many questions for names a second")
        self._of_session[session] += 1
        task = tasks.start(self._answer(question, principal, tell), "question")
        task.add_done_callback(lambda _: self._answered(session, account))
        return None

    def _answered(self, session: SessionId, account: ServiceAccountUuid) -> None:
        self._shares.give_back(account)
        self._of_session[session] -= 1
        if not self._of_session[session]:
            del self._of_session[session]

    async def _answer(self, question: AskName, principal: Principal, tell: Tell) -> None:
        try:
            answer = await self._find(question, principal)
        except FlowRefused as error:
            logger.info("records of %s for session %s: %s", question.name, principal.session, error.message)
            answer = _without(question, Code.REFUSED, error.message)
        try:
            await tell(answer)
        except OSError as error:
            logger.debug("names: %s", error)

    async def _find(self, question: AskName, principal: Principal) -> NameAnswer:
        try:
            name = canonical_host(question.name)
        except InvalidInput as error:
            return _without(question, Code.REFUSED, error.message)
        if name != question.name or question.record_type in _NO_RECORDS:
            return _without(question, Code.REFUSED, "not a canonical name, or no type of records")
        subject = dns_answer.subject(name, question.record_type)
        resource = self._core.decide_name(principal, subject, self._clock())
        host = name if subject != name else resource.host_to_dial(name)
        if question.record_type in _ADDRESSES or parse_ip(host) is not None:
            return _without(question, Code.NO_ERROR)
        answer = await self._ask_resolvers(host, question.record_type)
        self._core.decide_name(principal, subject, self._clock())  # access may have ended meanwhile
        if answer is None:
            return _without(question, Code.SERVER_FAILURE, "no resolver of the connector has answered")
        if sum(map(len, answer.records)) > MAX_ANSWER_BYTES:
            return _without(question, Code.SERVER_FAILURE, f"the records are above {MAX_ANSWER_BYTES} bytes")
        return NameAnswer(id=question.id, code=answer.code, seconds=answer.seconds, records=list(answer.records))

    async def _ask_resolvers(self, host: str, record_type: int) -> DnsAnswer | None:
        failed: DnsAnswer | None = None
        try:
            async with asyncio.timeout(limits.NAME_QUESTION_SECONDS):
                for resolver in self._resolvers():
                    try:
                        async with asyncio.timeout(limits.RESOLVER_SECONDS):
                            answer = await self._ask(resolver, host, record_type)
                    except (OSError, ProtocolError) as error:
                        logger.debug("resolver %s: %r", resolver, error)
                        continue
                    if answer.code not in (Code.SERVER_FAILURE, Code.REFUSED):
                        return answer
                    failed = answer
        except TimeoutError:
            pass
        return failed

    async def _ask(self, resolver: str, host: str, record_type: int) -> DnsAnswer:
        query = dns_answer.encode_query(int.from_bytes(entropy(2)), host, record_type)
        loop = asyncio.get_running_loop()
        with await self._connected(resolver, socket.SOCK_DGRAM) as sock:
            await loop.sock_sendall(sock, query)
            while not dns_answer.answers(message := await loop.sock_recv(sock, 65_535), query):
                pass  # somebody else's, or a late one
        answer = dns_answer.decode_answer(message, query)
        if not answer.truncated:
            return answer
        with await self._connected(resolver, socket.SOCK_STREAM) as sock:
            await loop.sock_sendall(sock, len(query).to_bytes(2) + query)
            return dns_answer.decode_answer(await receive_exactly(sock, int.from_bytes(await receive_exactly(sock, 2))), query)

    async def _connected(self, resolver: str, kind: socket.SocketKind) -> socket.socket:
        (family, _, _, _, address), *_ = socket.getaddrinfo(resolver, self._port, type=kind, flags=socket.AI_NUMERICHOST)
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock


def _without(question: AskName, code: int, text: str = "") -> NameAnswer:
    return NameAnswer(id=question.id, code=code, text=text[:MAX_TEXT_CHARS])
