"""What a deployment wrote down since a moment: log lines of its parts, audit events, flow events."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from examples.deployment import Deployment

#: Seconds within which a line must be there: connectors send their events once a second.
WRITTEN_SECONDS = 10.0


class Evidence:
    """Only what comes after it was made counts: what an earlier test left behind proves nothing."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._offsets = {part.log: part.log.stat().st_size for part in deployment.parts.values() if part.log.exists()}
        self._audited = self._newest("audit_events")
        self._flowed = self._newest("flow_events")

    def log(self, part: str) -> str:
        """Return what a part has logged; the relay's lines are in the controller's log."""
        path = self._deployment.parts[part].log
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            return file.read().decode(errors="replace")

    def audit(self) -> str:
        """Return the audit events, one a line."""
        return self._rows("select action, actor, targets, detail from audit_events where id > ? order by id", self._audited)

    def flows(self) -> str:
        """Return the flow events that connectors reported, one a line."""
        return self._rows("select kind, failure, event from flow_events where id > ? order by id", self._flowed)

    def of(self, source: str) -> str:
        """Return what `audit`, `flows` or the log of a part holds."""
        return {"audit": self.audit, "flows": self.flows}.get(source, lambda: self.log(source))()

    def everything(self) -> str:
        """Return all that klinket wrote; the private services of a test are not its parts."""
        parts = [name for name, part in self._deployment.parts.items() if "klinket" in part.command]
        return "\n".join([*(self.log(name) for name in parts), self.audit(), self.flows()])

    def wait_for(self, source: str, *words: str) -> str:
        """Return the first line with all the words; raises AssertionError with what was there instead."""
        deadline = time.monotonic() + WRITTEN_SECONDS
        while True:
            lines = self.of(source).splitlines()
            for line in lines:
                if all(word in line for word in words):
                    return line
            if time.monotonic() > deadline:
                raise AssertionError(f"no line of {source} holds {words}:\n" + "\n".join(lines[-20:]))
            time.sleep(0.05)

    def _newest(self, table: str) -> int:
        return int(self._rows(f"select coalesce(max(id), 0) from {table} where id > ?", 0))

    def _rows(self, query: str, after: int) -> str:
        with closing(sqlite3.connect(self._deployment.state / "klinket.db", timeout=10)) as database:
            rows = database.execute(query, (after,)).fetchall()
        return "\n".join(" ".join(str(value) for value in row) for row in rows)
