"""How large everything is: every container of real objects and of their modules, and what keeps growing."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from statistics import median
from typing import Any

#: Values that hold nothing.
_PLAIN = (str, bytes, int, float, bool, type(None), type)
#: Quarters of a life that are compared; and by how much the last may be above the second: noise of a load that is constant.
PARTS = 4
SLACK, SLACK_SHARE = 8.0, 0.2


def measure(roots: Mapping[str, object]) -> Counter[str]:
    """Return the lengths of all containers that klinket's own objects lead to, by path; those of one path are added."""
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    waiting = deque(roots.items())
    while waiting:
        path, value = waiting.popleft()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            sizes[path] += len(value)
            waiting.extend((f"{path}[*]", one) for one in value.values())
        elif isinstance(value, list | set | frozenset | deque | bytearray):
            sizes[path] += len(value)
            if not isinstance(value, bytearray):
                waiting.extend((f"{path}[*]", one) for one in value)
        elif isinstance(value, tuple):
            waiting.extend((f"{path}[*]", one) for one in value)
        elif type(value).__module__.startswith(("klinket.", "asyncio.queues")):
            waiting.extend((f"{path}.{name}", one) for name, one in _attributes(value))
    return sizes


def _attributes(value: object) -> Iterable[tuple[str, Any]]:
    named = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                named[name] = getattr(value, name)
    return named.items()


@cache
def _kept_by_modules() -> dict[str, Callable[[], int]]:
    """Return how to tell the length of each container and cache of klinket's modules."""
    found: dict[str, Callable[[], int]] = {}
    for module in [one for name, one in sys.modules.items() if name.startswith("klinket.")]:
        for name, value in vars(module).items():
            if isinstance(value, dict | list | set | deque) and not name.startswith("__"):
                found[f"{module.__name__}.{name}"] = partial(_length_in, module, name)
            elif hasattr(value, "cache_info") and value.__module__ == module.__name__:
                found[f"{module.__name__}.{name}()"] = partial(_cached, value)
    return found


def _length_in(module: object, name: str) -> int:
    return len(getattr(module, name))  # looked up again: a module may put another in its place


def _cached(cached: Any) -> int:
    return int(cached.cache_info().currsize)


def measure_modules() -> Counter[str]:
    """Return the lengths of what modules of klinket keep, caches among them."""
    return Counter({name: size() for name, size in _kept_by_modules().items()})


def growing(samples: Sequence[Mapping[str, int]]) -> dict[str, list[float]]:
    """Return what grows from each quarter to the next, with the medians of the quarters; bounds are reached in the first."""
    if len(samples) < 2 * PARTS:
        return {}
    found = {}
    for path in {path for sample in samples for path in sample}:
        series = [sample.get(path, 0) for sample in samples]
        size = len(series) // PARTS
        parts = [float(median(series[part * size : (part + 1) * size])) for part in range(PARTS)]
        later = parts[1:]
        if later == sorted(set(later)) and later[-1] > later[0] * (1 + SLACK_SHARE) + SLACK:
            found[path] = parts
    return found
