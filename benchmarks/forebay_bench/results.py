"""What a benchmark found, as a table for people and a file for the repository."""

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "results"
PAGE = FOLDER.parent / "README.md"
_BEGIN, _END = "<!-- results: written by make bench -->", "<!-- end of results -->"

_GOAL = re.compile(r"(>=|<=) ([0-9.]+)(x?)(?: (.+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The peer or limit of the same run, in the row's unit."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Lowest and highest of the runs: of the ratio where there is a reference, else of the value."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: the median of its runs. ``goal`` is empty, and ``holds`` None, where it is only reported."""

    name: str
    value: float
    unit: str
    reference: Reference | None
    ratio: float | None
    goal: str
    holds: bool | None
    spread: Spread


def holds(goal: str, value: float, ratio: float | None) -> bool | None:
    """Whether a goal such as ``>= 1.2x`` (of the ratio) or ``<= 10 us`` (of the value) is met; None without one."""
    if not goal:
        return None
    found = _GOAL.fullmatch(goal)
    if found is None:
        raise ValueError(f"a goal reads like '>= 1.2x' or '<= 10 us', not {goal!r}")
    relation, bound, times, _unit = found.groups()
    judged = ratio if times else value
    if judged is None:
        raise ValueError(f"the goal {goal!r} needs a reference")
    return judged >= float(bound) if relation == ">=" else judged <= float(bound)


def measured(name: str, unit: str, values: Sequence[float], goal: str = "") -> Row:
    """A row without a reference."""
    value = statistics.median(values)
    return Row(
        name=name, value=value, unit=unit, reference=None, ratio=None, goal=goal, holds=holds(goal, value, None),
        spread=Spread(low=min(values), high=max(values)),
    )  # fmt: skip


def compared(
    name: str, unit: str, values: Sequence[float], reference: str, beside: Sequence[float], goal: str = ""
) -> Row:
    """A row beside its reference; run ``i`` of both followed each other, so the ratio is the median of their ratios."""
    ratios = [value / other for value, other in zip(values, beside, strict=True)]
    value, ratio = statistics.median(values), statistics.median(ratios)
    return Row(
        name=name, value=value, unit=unit, reference=Reference(name=reference, value=statistics.median(beside)),
        ratio=ratio, goal=goal, holds=holds(goal, value, ratio), spread=Spread(low=min(ratios), high=max(ratios)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All rows of one question; ``notes`` list the peers' flags, sizes and counters."""

    question: str
    machine: dict[str, str | int]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def save(self, folder: Path = FOLDER) -> None:
        """Write the question's file."""
        folder.mkdir(exist_ok=True)
        (folder / f"{self.question}.json").write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")

    def table(self) -> str:
        """The rows in Markdown."""
        lines = ["| measured | value | reference | ratio | spread | goal | holds |", "|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


def load(path: Path) -> Result:
    """Read a question's file; KeyError, TypeError or ValueError when it has another shape."""
    raw = json.loads(path.read_text())
    rows = tuple(
        Row(**{
            **row,
            "reference": None if row["reference"] is None else Reference(**row["reference"]),
            "spread": Spread(**row["spread"]),
        })
        for row in raw.pop("rows")
    )  # fmt: skip
    return Result(rows=rows, notes=tuple(raw.pop("notes")), **raw)


def publish(folder: Path = FOLDER, page: Path = PAGE) -> None:
    """Put the tables of all results into the page, between its marks."""
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    sections = "\n\n".join(f"### {one.question}\n{_machine_line(one)}\n\n{one.table()}" for one in found)
    text = page.read_text()
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    page.write_text(f"{before}{_BEGIN}\n\n{sections}\n\n{_END}{after}")


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return {
        "cpu": model, "cores": os.cpu_count() or 0, "memory_gib": memory, "kernel": platform.release(),
        "python": platform.python_version(), "load_average": round(os.getloadavg()[0]),
    }  # fmt: skip


def _machine_line(one: Result) -> str:
    kind = one.machine
    return (
        f"{kind['cores']} x {kind['cpu']}, {kind['memory_gib']} GiB, kernel {kind['kernel']}, Python {kind['python']}, "
        f"load average {kind['load_average']} before the run"
    )


def _line(row: Row) -> str:
    reference = "" if row.reference is None else f"{row.reference.name}: {_number(row.reference.value)}"
    ratio = "" if row.ratio is None else f"{_number(row.ratio)}x"
    verdict = {True: "yes", False: "**no**", None: "reported"}[row.holds]
    spread = f"{_number(row.spread.low)} to {_number(row.spread.high)}"
    cells = (row.name, f"{_number(row.value)} {row.unit}", reference, ratio, spread, row.goal, verdict)
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _rounded(value: object) -> object:
    """Four digits are more than any of these figures has."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
