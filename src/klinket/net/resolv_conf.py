"""resolv.conf(5): which resolvers this machine asks, and the file a captured command gets instead."""

from __future__ import annotations

from dataclasses import dataclass

#: What the C library asks when the file names none.
DEFAULT_RESOLVER = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """`named`: the addresses of the resolvers it names, in order; `kept`: the lines on search domains and options."""

    named: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def resolvers(self) -> tuple[str, ...]:
        """Return what the C library asks."""
        return self.named or (DEFAULT_RESOLVER,)

    def with_resolver(self, address: str) -> str:
        """Return the text of a file that names this resolver only and keeps search domains and options."""
        return "".join(f"{line}\n" for line in (f"nameserver {address}", *self.kept))


def parse(text: str) -> ResolvConf:
    """Return what a resolv.conf says; lines that are not understood are left out."""
    named: list[str] = []
    kept: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            named.append(words[1])
        elif words[0] in ("search", "domain", "options"):
            kept.append(" ".join(words))
    return ResolvConf(tuple(named), tuple(kept))
