"""`make mutants`: put one seeded bug after the other into a copy of the tree; the test named beside it must turn red.

The bugs are data, in `tests/mutants/*.toml`: a file, a text that occurs in it once, what to put in its place, and the
test. Arguments choose mutants by name.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from testkit.proofs import ROOT

LIST = ROOT / "tests" / "mutants"
_PARALLEL = 2
_SECONDS = 120
"""For one test; a bug that makes it hang is found, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug. ``test`` is a test id of pytest; ``quick``: it is tried by `make test` as well."""

    name: str
    file: str
    old: str
    new: str
    test: str
    quick: bool = False

    def applied(self, text: str) -> str:
        """The file's text with the bug; ValueError when the place is not there exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: its text occurs {found} times in {self.file}, not once; adapt the mutant")
        return text.replace(self.old, self.new)


def load(folder: Path = LIST) -> list[Mutant]:
    """All mutants, in the order of the files."""
    return [
        Mutant(**row) for path in sorted(folder.glob("*.toml")) for row in tomllib.loads(path.read_text())["mutant"]
    ]  # fmt: skip


class Tree:
    """A copy of the working tree in which tests can be run."""

    def __init__(self, folder: Path) -> None:
        """Copy what git knows or would take."""
        self._root = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in listed.split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def run(self, tests: Iterable[str]) -> tuple[int, str]:
        """Run tests on the copy: pytest's exit code, and what it said."""
        # No byte code: a file that changes twice within a second at the same length would be taken from there.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": "hypothesis"}
        environment.pop("PYTHONPATH", None)
        argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--timeout={_SECONDS}", *tests]
        done = subprocess.run(argv, cwd=self._root, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def try_out(self, mutant: Mutant) -> str:
        """Empty when the mutant's test turns red; else what happened instead."""
        path = self._root / mutant.file
        honest = path.read_text()
        path.write_text(mutant.applied(honest))
        try:
            code, said = self.run([mutant.test])
        finally:
            path.write_text(honest)
        if code == 1:
            return ""
        return "SURVIVED" if code == 0 else f"its test did not run (pytest ended with {code}):\n{said}"


def try_all(mutants: list[Mutant]) -> dict[str, str]:
    """What `Tree.try_out` says of each, by name; RuntimeError when the tests are red without any bug."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Tree] = SimpleQueue()
        for number in range(_PARALLEL):
            trees.put(Tree(Path(folder) / str(number)))
        honest = trees.get()
        code, said = honest.run(sorted({mutant.test for mutant in mutants}))
        trees.put(honest)
        if code:
            raise RuntimeError(f"the tests are red without any mutant:\n{said}")

        def one(mutant: Mutant) -> tuple[str, str]:
            tree = trees.get()
            try:
                verdict = tree.try_out(mutant)
            finally:
                trees.put(tree)
            print(f"{mutant.name}: {verdict or 'found by ' + mutant.test}", flush=True)
            return mutant.name, verdict

        with ThreadPoolExecutor(_PARALLEL) as pool:
            return dict(pool.map(one, mutants))


def main(argv: list[str]) -> int:
    """Try the named mutants, or all; exit 1 when one is not found."""
    mutants = [mutant for mutant in load() if not argv[1:] or mutant.name in argv[1:]]
    missed = {name: verdict for name, verdict in try_all(mutants).items() if verdict}
    print(f"{len(mutants) - len(missed)} of {len(mutants)} mutants are found")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
