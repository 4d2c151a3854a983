"""Every metric of the operator, served beside the liveness endpoint."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
LEADING = Gauge("forebay_operator_leading", "1 while this operator holds the Lease.", registry=REGISTRY)
PASSES = Counter(
    "forebay_operator_passes",
    "Looks at an object, by kind and result (ok, error).",
    ["kind", "result"],
    registry=REGISTRY,
)
PASS_SECONDS = Histogram("forebay_operator_pass_seconds", "Duration of a look, by kind.", ["kind"], registry=REGISTRY)
WRITES = Counter(
    "forebay_operator_writes", "Requests that change the cluster, by HTTP method.", ["method"], registry=REGISTRY
)
