"""Golden tests: YAML in, YAML out; ``pytest tests/golden --update-golden`` writes what is there now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typing_extensions import override

Golden = Callable[[Path, list[dict[str, Any]]], None]


class _Plain(yaml.SafeDumper):
    """Repeats what is used twice: a golden file is read by people."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        """No anchors."""
        return True


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare objects with a file, or write the file when asked to."""

    def compare(path: Path, found: list[dict[str, Any]]) -> None:
        text = yaml.dump_all(found, Dumper=_Plain, sort_keys=True, width=120)
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert list(yaml.safe_load_all(path.read_text())) == list(yaml.safe_load_all(text)), (
            f"{path.name} differs: look at it, then run pytest tests/golden --update-golden and read the diff"
        )

    return compare
