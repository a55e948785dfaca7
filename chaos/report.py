"""What a trial found, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    """One fault. `worst_recovery`: seconds until a flow and a write worked again; `flows_lost`: ended by an error meanwhile."""

    fault: str
    times: int = 0
    worst_recovery: float = 0.0
    #: The same, divided by how much slower the machine was just then than an idle one.
    of_idle: float = 0.0
    flows_lost: int = 0
    writes_lost: int = 0


@dataclass
class Report:
    """`breaches`: of the rules; empty when everything held. `words`: how the programs' ends ended."""

    seed: int
    rows: dict[str, Row] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    writes: int = 0
    cuts: int = 0
    cut_flows: int = 0
    slowest_cut: float = 0.0
    notes: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    def row(self, fault: str) -> Row:
        return self.rows.setdefault(fault, Row(fault))

    def as_json(self) -> str:
        rows = [asdict(row) for row in self.rows.values()]
        return json.dumps({**vars(self), "words": dict(self.words), "rows": rows}, indent=2)

    def __str__(self) -> str:
        lines = [f"{'fault':36} {'times':>5} {'worst recovery':>14} {'on idle':>8} {'flows lost':>10} {'writes lost':>11}"]
        for row in sorted(self.rows.values(), key=lambda one: one.fault):
            times = f"{row.times:5} {row.worst_recovery:12.1f} s {row.of_idle:6.1f} s"
            lines.append(f"{row.fault:36} {times} {row.flows_lost:10} {row.writes_lost:11}")
        ends = ", ".join(f"{count} {word}" for word, count in sorted(self.words.items()))
        lines.append(f"flows: {ends}; {self.refused} connections refused")
        lines.append(f"writes: {self.writes} acknowledged, {sum(row.writes_lost for row in self.rows.values())} lost")
        lines.append(
            f"rights: {self.cuts} ended with {self.cut_flows} flows under them; the longest ran on for {self.slowest_cut:.1f} s"
        )
        lines += [f"note: {note}" for note in self.notes]
        lines.append("\n".join(self.breaches) or "every check held")
        return "\n".join([*lines, f"seed {self.seed}"])
