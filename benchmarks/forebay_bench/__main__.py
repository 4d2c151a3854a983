"""``python -m forebay_bench [question …]``: measure, print the tables, write the results and the page."""

import importlib
import sys
import time

from forebay_bench import results
from forebay_bench.results import Result
from forebay_bench.runs import Question
from testkit.progress import Progress

QUESTIONS = ("ring", "data", "fill", "ttfb", "fanout", "warm", "scale", "training", "index", "never-slower")


def main(argv: list[str]) -> int:
    """Run what is named, or everything; goals that are missed are published, not errors."""
    wanted = argv or list(QUESTIONS)
    if unknown := set(wanted) - set(QUESTIONS):
        sys.stderr.write(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}\n")
        return 2
    progress = Progress()
    for name in wanted:
        machine, begin = results.machine(), time.monotonic()
        question: Question = importlib.import_module(f"forebay_bench.questions.{name.replace('-', '_')}").measure
        rows, notes = question(progress)
        found = Result(question=name, machine=machine, rows=tuple(rows), notes=tuple(notes))
        found.save()
        print(f"\n## {name}\n{found.table()}\n", flush=True)
        progress.say(f"{name} took {time.monotonic() - begin:.0f} s")
    results.publish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
