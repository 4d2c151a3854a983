"""The shape of the repository, which no linter checks."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("operator", "cache_worker", "client", "node", "protocol")
LONGEST_MODULE = 500


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_every_source_root_holds_exactly_one_package() -> None:
    """`operator/` is our `src/`: one package in it and no module beside that."""
    for root in SOURCE_ROOTS:
        packages = [path.parent.name for path in (ROOT / root).glob("*/__init__.py")]

        assert len(packages) == 1, f"{root}/ holds {packages}"
        assert not list((ROOT / root).glob("*.py"))
        assert (ROOT / root / packages[0] / "py.typed").exists()


def test_tests_are_not_packages() -> None:
    """An `__init__.py` under tests/unit/operator would shadow the standard library's operator module."""
    assert [path for path in _tracked("tests/**/__init__.py") if "support" not in path.parts] == []


def test_no_module_is_too_long() -> None:
    """A module of more than 500 lines holds more than one idea."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _tracked("*.py")
        if "_pb2" not in path.name and (lines := len(path.read_text().splitlines())) > LONGEST_MODULE
    }

    assert long == {}


def test_no_drawers() -> None:
    """A module is named by its idea."""
    drawers = re.compile(r"^(utils?|helpers?|common|misc|managers?)(\.py)?$")
    parts = {part for path in _tracked("*.py") for part in path.relative_to(ROOT).parts}

    assert {part for part in parts if drawers.match(part)} == set()


def test_nothing_names_a_package_index_or_a_machine() -> None:
    """Locks and scripts must work wherever the reader's mirrors are."""
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "proxy.golang" + ".org", "deb.debian" + ".org")
    named = [
        str(path.relative_to(ROOT))
        for path in _tracked("*.txt", "*.toml", "*.py", "*.md", "Makefile", "scripts/*", "*.yaml", "*Dockerfile")
        if any(host in path.read_text() for host in hosts)
    ]

    assert named == []
