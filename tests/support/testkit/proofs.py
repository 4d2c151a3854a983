"""Long proofs: tests that run a few rounds in CI and many under `make prove`.

A test marked ``@pytest.mark.proof("question", quick=…, full=…)`` takes the fixture `proof`; it runs
`proof.rounds` rounds and counts what it saw. `make prove` runs one question after the other at full size and
keeps each result in a file of its own, so that an interrupted run goes on where it stopped; within a question
it goes on at the last `checkpoint`.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "docs" / "reliability"
PAGE = ROOT / "docs" / "RELIABILITY.md"
PARTS = ROOT / ".prove"
"""Counts of questions that are not through yet."""
FULL_VARIABLE = "FOREBAY_PROOF_RESULT"
"""Names the file for the counts; set means full size."""
PART_VARIABLE = "FOREBAY_PROOF_PART"
"""Names the file in which an interrupted run left its counts, and leaves them."""


@dataclass
class Proof:
    """One question at one size; `counts` are what the page shows."""

    question: str
    rounds: int
    promise: str
    counts: Counter[str] = field(default_factory=Counter)
    part: Path | None = None

    def __post_init__(self) -> None:
        """Go on with what an interrupted run counted."""
        if self.part is not None and self.part.exists():
            self.counts.update(json.loads(self.part.read_text()))

    def checkpoint(self) -> None:
        """All counts until now stand, whatever happens next."""
        if self.part is not None:
            fresh = self.part.with_suffix(".new")
            fresh.write_text(json.dumps(self.counts))
            fresh.replace(self.part)

    def save(self, path: Path) -> None:
        """Write the counts where `make prove` finds them."""
        path.write_text(json.dumps({"promise": self.promise, "rounds": self.rounds, "counts": dict(self.counts)}))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one full run of a question showed."""

    question: str
    promise: str
    date: str
    source: str
    rounds: int
    passed: bool
    seconds: int
    counts: dict[str, int]

    def row(self) -> str:
        """The table row of the page."""
        counts = ", ".join(f"{value:,} {name}" for name, value in self.counts.items())
        verdict = "holds" if self.passed else "**broken**"
        cells = (self.question, self.promise, f"{self.rounds:,}", counts, verdict, f"{self.seconds} s", self.date)
        return f"| {' | '.join(cells)} |"


HEADER = """# What the long proofs counted

`make prove` writes this page. Each question is a test that CI runs with few rounds and `make prove` at full size,
against the real parts that it names; a proof that fails is listed as broken.

| question | what must hold | rounds | counted | verdict | took | date |
|---|---|---|---|---|---|---|
"""


def render(results: list[Result]) -> str:
    """The page."""
    return HEADER + "".join(result.row() + "\n" for result in sorted(results, key=lambda one: one.question))


def load_results(folder: Path = RESULTS) -> list[Result]:
    """All results that are kept."""
    return [Result(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def collected_questions(listing: str) -> dict[str, str]:
    """Read `pytest --collect-only -q` with ids like ``path::test[question]``: question to test id."""
    found = re.findall(r"^(\S+::\S+\[proof:([a-z0-9-]+)\].*)$", listing, re.MULTILINE)
    return {question: test for test, question in found}
