"""Long proofs: found by their ids, kept one by one, shown as one page."""

from pathlib import Path

from testkit.demo import Row
from testkit.proofs import Proof, Result, collected_questions, render

LISTING = """
tests/cluster/test_truth.py::test_status[proof:status-truth]
tests/unit/test_repo_shape.py::test_no_drawers
tests/cluster/test_faults.py::test_kills[proof:operator-killed-mid-flow]

3 tests collected in 0.1s
"""


def _result(**changes: object) -> Result:
    facts: dict[str, object] = {
        "question": "q", "promise": "It holds", "date": "2026-01-02", "source": "abc", "rounds": 1200, "passed": True,
        "seconds": 61, "counts": {"kills": 3600},
    }  # fmt: skip
    return Result(**{**facts, **changes})  # type: ignore[arg-type]


def test_questions_are_found_in_pytests_listing() -> None:
    """By the id that the fixture gives, and nothing else is taken for one."""
    assert collected_questions(LISTING) == {
        "status-truth": "tests/cluster/test_truth.py::test_status[proof:status-truth]",
        "operator-killed-mid-flow": "tests/cluster/test_faults.py::test_kills[proof:operator-killed-mid-flow]",
    }


def test_the_page_has_a_row_for_each_question_and_hides_no_failure() -> None:
    """In alphabetical order, with counts; what is broken says so."""
    page = render([_result(question="z"), _result(question="a", passed=False)])
    rows = [line for line in page.splitlines() if "2026-01-02" in line]

    assert rows[0] == "| a | It holds | 1,200 | 3,600 kills | **broken** | 61 s | 2026-01-02 |"
    assert rows[1].startswith("| z |")
    assert "holds |" in rows[1]


def test_a_proof_keeps_what_it_counted(tmp_path: Path) -> None:
    """The file is what `make prove` reads back."""
    kept = tmp_path / "result.json"
    proof = Proof(question="q", rounds=3, promise="It holds")
    proof.counts["reads"] += 2

    proof.save(kept)

    assert kept.read_text() == '{"promise": "It holds", "rounds": 3, "counts": {"reads": 2}}'


def test_a_rate_is_megabytes_per_second() -> None:
    """Decimal ones, and a time of nothing does not divide by zero."""
    assert Row("x", 2.0, 500_000_000).rate == 250
    assert Row("x", 0.0, 1000).rate == 1


def test_an_interrupted_question_goes_on_at_its_checkpoint(tmp_path: Path) -> None:
    """What was counted after it is counted again; what was counted before stands."""
    part = tmp_path / "part.json"
    first = Proof("q", 10, "It holds", part=part)
    first.counts["rounds"] = 4
    first.checkpoint()
    first.counts["rounds"] = 5

    assert Proof("q", 10, "It holds", part=part).counts == {"rounds": 4}
