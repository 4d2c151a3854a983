"""Print hit ratios: a row for each trace, a column for each policy."""

import sys

from cachesim.policies import POLICIES, Policy
from cachesim.traces import TRACES, Trace

CAPACITY = 1000


def hit_ratio(policy: type[Policy], trace: Trace, warm: int = 0) -> float:
    """Share of hits among the reads after the first ``warm``."""
    cache = policy(CAPACITY)
    hits = [cache.read(chunk) for chunk in trace]
    return sum(hits[warm:]) / (len(hits) - warm)


if __name__ == "__main__":
    names = list(POLICIES)
    print("| trace |", " | ".join(names), "|")
    print("|---" * (len(names) + 1) + "|")
    for name, make in TRACES.items():
        trace = make(CAPACITY)
        warm = len(dict.fromkeys(trace)) if "epochs of" in name or "cyclic" in name else 0
        cells = [f"{hit_ratio(POLICIES[policy], trace, warm):.3f}" for policy in names]
        print(f"| {name} | {' | '.join(cells)} |")
        sys.stdout.flush()
