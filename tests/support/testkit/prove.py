"""`make prove`: run every long proof at full size, one after the other, and write docs/RELIABILITY.md.

A question whose result stands for the present source is not run again; an argument names the only question to run,
whatever was kept.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from testkit import proofs

SOURCES = ("operator", "cache_worker", "client", "node", "protocol", "crds", "manifests", "tests")


def source_revision() -> str:
    """The identity of the code that is proved: a hash over its tracked folders and what is changed in them."""
    trees = subprocess.run(
        ["git", "ls-files", "-s", "--", *SOURCES], cwd=proofs.ROOT, capture_output=True, check=True
    ).stdout
    changes = subprocess.run(
        ["git", "diff", "HEAD", "--", *SOURCES], cwd=proofs.ROOT, capture_output=True, check=True
    ).stdout
    digest = subprocess.run(
        ["git", "hash-object", "--stdin"], cwd=proofs.ROOT, input=trees + changes, capture_output=True, check=True
    ).stdout
    return digest.decode().strip()[:12]


def run(question: str, test: str, source: str) -> proofs.Result:
    """Run one question at full size, its output on the terminal."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "result.json"
        proofs.PARTS.mkdir(exist_ok=True)
        part = proofs.PARTS / f"{question}-{source}.json"
        start = time.monotonic()
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "--timeout=0", test],
            cwd=proofs.ROOT, check=False,
            env={**os.environ, proofs.FULL_VARIABLE: str(kept), proofs.PART_VARIABLE: str(part)},
        ).returncode  # fmt: skip
        part.unlink(missing_ok=True)
        seen: dict[str, Any] = {"promise": "", "rounds": 0, "counts": {}}
        if kept.exists():
            seen = json.loads(kept.read_text())
    return proofs.Result(
        question=question,
        promise=seen["promise"],
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        source=source,
        rounds=seen["rounds"],
        passed=code == 0,
        seconds=round(time.monotonic() - start),
        counts=seen["counts"],
    )


def main(argv: list[str]) -> int:
    """Run what is missing; exit 1 if any proof is broken."""
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "proof"],
        cwd=proofs.ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    questions = proofs.collected_questions(listing)
    wanted = argv[1:] or list(questions)
    if unknown := set(wanted) - set(questions):
        sys.stderr.write(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(questions)}\n")
        return 2
    source = source_revision()
    proofs.RESULTS.mkdir(exist_ok=True)
    kept = {result.question: result for result in proofs.load_results()}
    for question in wanted:
        old = kept.get(question)
        if not argv[1:] and old is not None and old.passed and old.source == source:
            print(f"{question}: holds since {old.date}, same source")
            continue
        print(f"{question}: running at full size", flush=True)
        kept[question] = run(question, questions[question], source)
        (proofs.RESULTS / f"{question}.json").write_text(json.dumps(asdict(kept[question]), indent=1) + "\n")
        proofs.PAGE.write_text(proofs.render(list(kept.values())))
    return 0 if all(kept[question].passed for question in wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
