"""What the operator makes of a claim of a StorageClass: each folder has the claim and all the objects that follow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from forebay_operator.model.dataset import Dataset
from forebay_operator.reconcile import provisioning

Golden = Callable[[Path, list[dict[str, Any]]], None]
HERE = Path(__file__).parent / "provisioning"


@pytest.mark.parametrize("case", sorted(path.name for path in HERE.iterdir()))
def test_objects_of_a_claim(case: str, golden: Golden) -> None:
    """All objects that the claim makes the operator write."""
    raw = {one["kind"]: one for one in yaml.safe_load_all((HERE / case / "input.yaml").read_text())}
    dataset, claim = Dataset.read(raw["Dataset"]), raw["PersistentVolumeClaim"]

    plan = provisioning.plan_claim(
        provisioning.Observed(
            claim=claim, storage_class=raw["StorageClass"], datasets={dataset.metadata.name: dataset}, siblings=(claim,)
        )
    )

    golden(HERE / case / "output.yaml", list(plan.apply))
