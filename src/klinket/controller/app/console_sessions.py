"""Sessions of the console: found by the hash of what the browser holds; they end by age, by idleness, or at once."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConsoleSessionRow, UserRow
from klinket.controller.app.users import ACTIVE
from klinket.domain import token_text
from klinket.domain.errors import AuthenticationFailed, InvalidToken, SignInOver
from klinket.domain.role import permissions_of
from klinket.domain.token_text import token_hash

#: Milliseconds: of a whole session, without a request, and of one whose sign-in is not finished.
MAX_AGE_MS = 12 * 3_600_000
MAX_IDLE_MS = 3_600_000
MAX_UNFINISHED_MS = 15 * 60_000
#: Milliseconds between two notes that a session was seen.
SEEN_NOTED_MS = 30_000
#: Milliseconds for which a proof of who one is opens pages with secrets.
PROOF_MS = 5 * 60_000
#: Sessions of one user, and sign-ins that are not finished; a further one ends the oldest of its kind.
MAX_PER_USER = 20
OVER = "your session has ended"
OVER_HINT = "sign in again"


class Stage(Enum):
    """How far a sign-in has come. Nothing but the next step of the sign-in is open before FULL."""

    SECOND_FACTOR = "second-factor"
    SET_UP = "set-up"
    FULL = "full"


def begin(
    tx: Transaction, user: UserRow, stage: Stage, *, address: str, user_agent: str, entropy: Callable[[int], bytes]
) -> tuple[ConsoleSessionRow, str]:
    """Return a new session and the text its browser gets, which is kept nowhere. Who it is has been proved just now."""
    is_whole = stage is Stage.FULL
    mine = [row for row in tx.console_sessions.find(user_id=user.id) if (row.stage == Stage.FULL.value) == is_whole]
    mine.sort(key=lambda row: row.created_at_ms)
    # Counted apart: who knows the password alone begins many sign-ins and ends no session with them.
    for oldest in mine[: max(0, len(mine) - MAX_PER_USER + 1)]:
        tx.console_sessions.remove(id=oldest.id)
    text = token_text.compose(token_text.CONSOLE_SESSION, entropy(token_text.RANDOM_BYTES))
    row = tx.console_sessions.add(
        token_hash=token_hash(text),
        form_token=entropy(24).hex(),
        user_id=user.id,
        stage=stage.value,
        proved_at_ms=tx.now_ms,
        last_seen_ms=tx.now_ms,
        address=address[:45],
        user_agent=user_agent[:300],
    )
    return row, text


def advance(
    tx: Transaction, row: ConsoleSessionRow, stage: Stage, entropy: Callable[[int], bytes]
) -> tuple[ConsoleSessionRow, str]:
    """Return the session at its next stage under a new text: whoever has seen the former one has nothing of it.

    Raises SignInOver where it has ended, or went on, since `row` was read.
    """
    now = tx.console_sessions.get(row.id)
    if now is None or (now.stage, now.token_hash) != (row.stage, row.token_hash):
        raise SignInOver(OVER, hint=OVER_HINT)
    text = token_text.compose(token_text.CONSOLE_SESSION, entropy(token_text.RANDOM_BYTES))
    changed = tx.console_sessions.change(
        row.id, stage=stage.value, token_hash=token_hash(text), form_token=entropy(24).hex(), proved_at_ms=tx.now_ms
    )
    return changed, text


def by_text(tx: Transaction, text: str) -> tuple[ConsoleSessionRow, UserRow]:
    """Return the live session with this text, and its user; raises AuthenticationFailed, the same for every reason.

    A user who is not active, or whose role has no console, has none.
    """
    over = AuthenticationFailed(OVER, hint=OVER_HINT)
    try:
        token_text.check(text, token_text.CONSOLE_SESSION)
    except InvalidToken:
        raise over from None
    found = tx.console_sessions.find(token_hash=token_hash(text))
    if not found or not is_live(found[0], tx.now_ms):
        raise over
    user = tx.users.get(found[0].user_id)
    if user is None or user.state != ACTIVE or not permissions_of(user.role):
        raise over
    return found[0], user


def is_live(row: ConsoleSessionRow, now_ms: int) -> bool:
    """Return whether the session goes on."""
    age = MAX_AGE_MS if row.stage == Stage.FULL.value else MAX_UNFINISHED_MS
    return row.created_at_ms <= now_ms < row.created_at_ms + age and now_ms < row.last_seen_ms + MAX_IDLE_MS


def is_freshly_proved(row: ConsoleSessionRow, now_ms: int) -> bool:
    """Return whether who it is was proved within PROOF_MS."""
    return row.stage == Stage.FULL.value and row.proved_at_ms <= now_ms < row.proved_at_ms + PROOF_MS


def note_seen(tx: Transaction, id: int, address: str) -> None:
    """Note that a session asks for something now."""
    row = tx.console_sessions.get(id)
    if row is not None and row.last_seen_ms < tx.now_ms:
        tx.console_sessions.change(id, last_seen_ms=tx.now_ms, address=address[:45])


def end(tx: Transaction, **equal: object) -> int:
    """End the sessions that meet the conditions; returns how many."""
    return tx.console_sessions.remove(**equal)


def end_unfinished(tx: Transaction, user_id: int) -> int:
    """End the sign-ins of a user that are not finished; returns how many."""
    return tx.console_sessions.remove(user_id=user_id, stage=[stage.value for stage in Stage if stage is not Stage.FULL])


def forget_old(tx: Transaction) -> int:
    """Forget sessions that are over; returns how many."""
    removed = tx.console_sessions.remove_below("created_at_ms", tx.now_ms - MAX_AGE_MS)
    return removed + tx.console_sessions.remove_below("last_seen_ms", tx.now_ms - MAX_IDLE_MS)
