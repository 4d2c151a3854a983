"""The metrics' documentation is the metrics."""

from pathlib import Path

from forebay_worker.metrics import Metrics

TABLE = Path(__file__).resolve().parents[3] / "docs" / "METRICS.md"


def rows() -> list[str]:
    """A table row for every metric that a worker defines."""
    return [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} | {family.documentation} |"
        for family in Metrics().registry.collect()
    ]


def test_the_table_lists_exactly_the_metrics() -> None:
    """Name, type and help, in the order of their definition."""
    documented = [line for line in TABLE.read_text().splitlines() if line.startswith("| `forebay_worker_")]

    assert documented == rows()


def test_every_name_tells_its_unit() -> None:
    """Bytes and seconds are in the name; everything else is a count."""
    for family in Metrics().registry.collect():
        unit_in_help = next((unit for unit in ("Bytes", "Time") if family.documentation.startswith(unit)), "")
        wanted = {"Bytes": "_bytes", "Time": "_seconds"}.get(unit_in_help, "")

        assert wanted in family.name
