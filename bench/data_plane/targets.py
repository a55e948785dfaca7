"""What klinket wants of its data plane, as ratios to others in the same run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.data_plane.results import Results

RELAY, DIRECT = "klinket, via relay", "klinket, direct"
CAPTURED, CAPTURED_DIRECT = "klinket run, via relay", "klinket run, direct"
_BULK, _CPU, _CONNECT = "bulk to the server, 1 stream, Gbit/s", "process CPU, s/GB", "connect+echo p50, ms"
_MANY, _FAR = "32 connects at once, a second", "40 ms and 1 % loss: connect+echo p50, ms"
_UDP = "UDP 1,200 B echoes a second, {} under way"


@dataclass(frozen=True, slots=True)
class Target:
    """`way`'s figure is to be at least (`at_most`: at most) `ratio` times `other`'s."""

    figure: str
    way: str
    other: str
    ratio: float
    at_most: bool = False

    def reached(self, found: float) -> bool:
        """Return whether a ratio is good enough."""
        return found <= self.ratio if self.at_most else found >= self.ratio


TARGETS = (
    Target(_BULK, RELAY, "wireguard-go", 8.0),
    Target(_BULK, RELAY, "nebula", 3.5),
    Target(_BULK, RELAY, "ssh -L", 1.2),
    Target(_BULK, RELAY, "stunnel", 0.85),
    Target(_BULK, DIRECT, "plain TCP", 0.42),
    Target(_BULK, DIRECT, "stunnel", 1.2),
    Target(_CPU, RELAY, "wireguard-go", 0.15, at_most=True),
    Target(_CPU, DIRECT, "stunnel", 1.0, at_most=True),
    Target(_CONNECT, DIRECT, "wireguard-go", 1.0, at_most=True),
    Target(_CONNECT, RELAY, "wireguard-go", 1.1, at_most=True),
    Target(_FAR, DIRECT, "plain TCP", 1.1, at_most=True),
    Target(_MANY, DIRECT, "plain TCP", 0.6),
    Target(_MANY, RELAY, "plain TCP", 0.6),
    *(Target(_UDP.format(window), CAPTURED_DIRECT, "wireguard-go", 1.5) for window in (1, 32)),
    Target(_BULK, CAPTURED, RELAY, 0.85),
    Target(_BULK, CAPTURED_DIRECT, DIRECT, 0.85),
)


def found(results: Results) -> list[tuple[Target, float]]:
    """Return the targets that were measured, with the ratios of the medians."""
    measured = []
    for target in TARGETS:
        value, base = results.median(target.figure, target.way), results.median(target.figure, target.other)
        if value is not None and base:
            measured.append((target, value / base))
    return measured
