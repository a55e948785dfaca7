"""What has become of datagrams, as metrics tell it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class DatagramCounts:
    """Counts since something began. `sent`, `received`: sealed datagrams of flows; all others but `challenges` were dropped."""

    sent: int = 0
    received: int = 0
    #: Times an address that was not proven was asked.
    challenges: int = 0
    #: Named no path that is there.
    no_path: int = 0
    #: Seen before, or too old to know.
    replayed: int = 0
    #: Did not verify.
    forged: int = 0
    #: Refused for another reason: of an unknown kind, of a key that is over or not there yet.
    refused: int = 0
    #: Verified, and of a flow that is over.
    no_flow: int = 0
    #: The kernel had no room for it towards the peer.
    no_room: int = 0
    #: As frames: the oldest gave way while the pipe took no more.
    pipe_full: int = 0
    #: The network refused it towards the resource.
    not_sent: int = 0

    def add(self, other: DatagramCounts) -> None:
        """Count what the other has counted."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def dropped(self) -> dict[str, int]:
        """Return the counts of those that were dropped, by the words of metrics."""
        kept = ("sent", "received", "challenges")
        return {one.name.replace("_", "-"): getattr(self, one.name) for one in fields(self) if one.name not in kept}
