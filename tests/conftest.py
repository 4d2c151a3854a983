"""Fixtures that several folders of tests share: proofs, and the cluster with Forebay in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from testkit.proofs import FULL_VARIABLE, PART_VARIABLE, Proof

# How long an example takes says something of the machine, not of the code.
settings.register_profile("forebay", deadline=None)
settings.load_profile("forebay")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on request."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a proof's test its question as an id, so that `make prove` finds it."""
    if "proof" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("proof")
        assert marker is not None, f"{metafunc.function.__name__} uses the fixture proof without @pytest.mark.proof"
        metafunc.parametrize("proof", [marker], indirect=True, ids=[f"proof:{marker.args[0]}"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """At full size a proof takes as long as it takes, whatever limit guards it in CI."""
    for item in items:
        if FULL_VARIABLE in os.environ and item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Iterator[Proof]:
    """The question of a proof, at the size of CI or, under `make prove`, at full size."""
    marker: pytest.Mark = request.param
    target = os.environ.get(FULL_VARIABLE)
    doc = (request.function.__doc__ or "").strip().splitlines()[0]
    part = os.environ.get(PART_VARIABLE)
    question = Proof(
        question=marker.args[0], rounds=marker.kwargs["full" if target else "quick"], promise=doc.rstrip("."),
        part=Path(part) if part else None,
    )  # fmt: skip
    yield question
    if target:
        question.save(Path(target))
