"""The list of mutants cannot rot: each applies to the present source and names a test that there is."""

import ast
import re
from collections import Counter

import pytest

from testkit.mutants import Mutant, load, try_all
from testkit.proofs import ROOT

MUTANTS = load()


def test_there_are_enough_and_each_has_a_name() -> None:
    """At least thirty, and for every process."""
    assert len(MUTANTS) >= 30
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    folders = {mutant.file.split("/")[0] for mutant in MUTANTS}
    assert folders >= {"protocol", "client", "cache_worker", "node", "operator"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies(mutant: Mutant) -> None:
    """Its text is there once, the result is still Python, and the test exists."""
    honest = (ROOT / mutant.file).read_text()
    broken = mutant.applied(honest)

    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(honest))
    file, _, name = mutant.test.partition("::")
    assert re.search(rf"^(def |async def |){re.escape(name.split('[')[0])}\b", (ROOT / file).read_text(), re.MULTILINE)


def test_a_text_that_is_not_there_once_is_an_error() -> None:
    """Rather than a mutant that changes nothing or too much."""
    mutant = Mutant(name="m", file="f", old="a", new="b", test="t")

    assert mutant.applied("xax") == "xbx"
    for text in ("x", "aa"):
        with pytest.raises(ValueError, match="not once"):
            mutant.applied(text)


@pytest.mark.timeout(280)
def test_a_few_mutants_are_found() -> None:
    """Those that `make test` tries; `make mutants` tries all. One that changes nothing that counts survives."""
    quick = [mutant for mutant in MUTANTS if mutant.quick]
    harmless = Mutant(
        name="a mutant that breaks nothing", file="protocol/forebay_protocol/auth.py", old="_CLOCK_TOLERANCE = 60",
        new="_CLOCK_TOLERANCE = 61", test="tests/unit/protocol/test_auth.py::test_a_fresh_token_opens_its_own_dataset",
    )  # fmt: skip

    assert try_all([*quick, harmless]) == {**{mutant.name: "" for mutant in quick}, harmless.name: "SURVIVED"}
