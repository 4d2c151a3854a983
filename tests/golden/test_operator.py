"""What the operator makes of custom resources: each folder has the input and all the objects that follow from it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from forebay_operator.model.certificates import Certificates, Pair
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.keys import KeySet
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import dataset, runtime

Golden = Callable[[Path, list[dict[str, Any]]], None]
HERE = Path(__file__).parent / "operator"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MADE = Certificates(Pair("authority", "its key"), Pair("certificate", "its key"))
CASES = sorted(path.name for path in HERE.iterdir())


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    return {raw["kind"]: raw for raw in yaml.safe_load_all((folder / "input.yaml").read_text())}


@pytest.mark.parametrize("case", CASES)
def test_objects_and_status(case: str, golden: Golden) -> None:
    """All objects of the Dataset and its Runtime, and the status that each gets."""
    raw = _read(HERE / case)
    data, workers = Dataset.read(raw["Dataset"]), Runtime.read(raw["Runtime"])
    of_dataset = dataset.plan_dataset(
        dataset.Observed(
            dataset=data, runtime=workers, credentials={}, secret_problems=(),
            keys=KeySet(keys=("key",), since=NOW), fresh_key="fresh", fresh_data_key="fresh data key", claim=None,
            volume={"status": {"phase": "Available"}}, pods=(), reports={},
            certificates=MADE if workers.spec.encrypted else None, reading_nodes=3,
        ),
        NOW,
    )  # fmt: skip
    of_runtime = runtime.plan_runtime(
        runtime.Observed(
            runtime=workers, dataset=data, worker_set=None, pods=(), reports={}, access_revision="7",
            image="registry.example/forebay:1", reading_nodes=3,
        ),
        NOW,
    )  # fmt: skip

    statuses = [{"status": of_dataset.status}, {"status": of_runtime.status}]
    golden(HERE / case / "output.yaml", [*of_dataset.apply, *of_runtime.apply, *statuses])
