"""The published figures have one shape, and say the truth about their goals."""

from dataclasses import replace
from pathlib import Path

import pytest

from forebay_bench import results
from forebay_bench.__main__ import QUESTIONS
from forebay_bench.results import Result, compared, holds, measured

COMMITTED = sorted(results.FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_are_whole_and_judge_themselves_right(path: Path) -> None:
    """Every row has all fields; ``holds`` and ``ratio`` follow from the figures; the question exists."""
    found = results.load(path)

    assert (found.question, found.question in QUESTIONS) == (path.stem, True)
    assert {"cpu", "cores", "memory_gib", "kernel", "python"} <= found.machine.keys()
    assert found.rows
    for row in found.rows:
        assert row.holds == holds(row.goal, row.value, row.ratio), row.name
        assert (row.reference is None) == (row.ratio is None), row.name
        judged = row.value if row.ratio is None else row.ratio
        assert row.spread.low <= judged <= row.spread.high, row.name


def test_the_page_shows_every_result() -> None:
    """Each committed row is in benchmarks/README.md, the missed ones too."""
    page = results.PAGE.read_text()

    for path in COMMITTED:
        assert results.load(path).table().split("\n\n")[0] in page, f"run make bench-{path.stem}"


def test_ratios_are_taken_run_by_run() -> None:
    """A slow minute that meets both does not change the ratio."""
    row = compared("x", "MB/s", [100, 10, 90], "peer", [50, 5, 50], ">= 1.9x")

    assert (row.ratio, row.holds, row.value) == (2.0, True, 90)
    assert (row.spread.low, row.spread.high) == (1.8, 2.0)
    assert compared("x", "s", [1, 1, 1], "peer", [1, 1, 1], ">= 1.1x").holds is False


def test_goals_may_be_of_the_value() -> None:
    """Without a reference a goal has a unit."""
    assert measured("lookup", "us", [8, 9, 30], "<= 10 us").holds is True
    assert measured("lookup", "us", [11, 9, 30], "<= 10 us").holds is False
    assert measured("lookup", "us", [1]).holds is None
    with pytest.raises(ValueError, match="a goal reads like"):
        measured("lookup", "us", [1], "fast")
    with pytest.raises(ValueError, match="needs a reference"):
        measured("lookup", "us", [1], ">= 1.0x")


def test_results_read_back_and_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    """What is around the tables stays; what was there before is replaced."""
    rows = (compared("a", "MB/s", [3.0, 2.0], "nginx", [1.0, 1.0], ">= 4.0x"), measured("b", "us", [1.0]))
    one = Result(question="data", machine=results.machine(), rows=rows, notes=("flags: none",))
    page = tmp_path / "README.md"
    page.write_text("above\n<!-- results: written by make bench -->before<!-- end of results -->\nbelow\n")

    one.save(tmp_path)
    results.publish(tmp_path, page)

    assert results.load(tmp_path / "data.json") == replace(one)
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "before<" not in text
    assert "| a | 2.5 MB/s | nginx: 1 | 2.5x | 2 to 3 | >= 4.0x | **no** |" in text
