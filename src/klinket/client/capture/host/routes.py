"""Links, addresses, routes and routing rules, as text for `ip -batch -`.

Two routing tables. DELIVERY makes packets with klinket's mark local. FALLBACK has a route for every captured address that no
other table has one for: without it, a connect() on a machine without such a route fails before any rule of `rules` is met.
"""

from __future__ import annotations

from klinket.client.capture import synthetic
from klinket.client.capture.host import rules
from klinket.client.capture.host.addresses import SOURCE, SOURCE6, STUBS

#: The link that FALLBACK leads to. Nobody reads it: what got past the rules ends there. It is gone with the process.
LINK = "klinket0"
#: Bytes of a packet to what stands for names: as on loopback, where it goes in truth.
MTU = 65_520
DELIVERY = 27_500
FALLBACK = 27_501
#: Preferences of the routing rules: delivery and names before all tables but `local`, the rest after all.
_DELIVERY_PREFERENCE = 27
_NAMES_PREFERENCE = 28
_STUBS_PREFERENCE = 29
_NO_FALLBACK_PREFERENCE = 32_799
_FALLBACK_PREFERENCE = 32_800


def _names(version: int) -> dict[int, str]:
    """Return what stands for names, and the stubs, by the preference of its routing rule."""
    if version == 4:
        return {_NAMES_PREFERENCE: str(synthetic.RANGE), _STUBS_PREFERENCE: f"{STUBS[0].rpartition('.')[0]}.248/29"}
    return {_NAMES_PREFERENCE: str(synthetic.PREFIX6)}


def preferences(version: int) -> tuple[int, ...]:
    """Return the preferences of klinket's routing rules."""
    return _DELIVERY_PREFERENCE, *_names(version), _NO_FALLBACK_PREFERENCE, _FALLBACK_PREFERENCE


def claim(version: int) -> str:
    """Return the batch that sets link, tables and rules of IPv4 (4) or IPv6 (6) up; the link exists."""
    mark = f"{rules.DELIVER:#x}/{rules.DELIVER_MASK:#x}"
    source = SOURCE if version == 4 else SOURCE6
    text = f"link set {LINK} up mtu {MTU}\n"
    text += f"addr replace {SOURCE}/32 dev {LINK}\n" if version == 4 else f"addr replace {SOURCE6}/128 dev {LINK} nodad\n"
    text += f"route add local default dev lo table {DELIVERY}\n"
    text += f"rule add pref {_DELIVERY_PREFERENCE} fwmark {mark} lookup {DELIVERY}\n"
    for preference, name in _names(version).items():
        text += f"route add {name} dev {LINK} table {FALLBACK} src {source}\n"
        text += f"rule add pref {preference} to {name} lookup {FALLBACK}\n"
    # klinket's own sockets get the error they would get without a capture.
    text += f"rule add pref {_NO_FALLBACK_PREFERENCE} fwmark {rules.OWN:#x} unreachable\n"
    return text + f"rule add pref {_FALLBACK_PREFERENCE} lookup {FALLBACK}\n"


def undo(version: int) -> str:
    """Return the batch that takes rules and tables away, for `-force`: what is not there is passed over.

    The same rule may be there more than once, of a start that was broken off.
    """
    deletions = "".join(f"rule del pref {preference}\n" * 2 for preference in preferences(version))
    return deletions + "".join(f"route flush table {table}\n" for table in (DELIVERY, FALLBACK))
