"""Every metric of a worker, with unit and help. docs/METRICS.md shows the same table."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """One worker's metrics in a registry of their own."""

    def __init__(self) -> None:
        """Define them all."""
        self.registry = registry = CollectorRegistry()
        prefix = "forebay_worker"
        self.hit_bytes = Counter(
            f"{prefix}_hit_bytes", "Bytes served from a tier.", ["tier"], registry=registry
        )  # fmt: skip
        self.miss_bytes = Counter(
            f"{prefix}_miss_bytes", "Bytes served that had to be fetched first.", ["source"], registry=registry
        )
        self._served: dict[tuple[str, bool], Counter] = {}
        self.peer_served_bytes = Counter(
            f"{prefix}_peer_served_bytes", "Bytes served to other workers.", registry=registry
        )  # fmt: skip
        self.instead_bytes = Counter(
            f"{prefix}_instead_bytes", "Bytes served in place of an owner that was late or failed.", registry=registry
        )
        self.origin_bytes = Counter(
            f"{prefix}_origin_bytes",
            "Bytes fetched from the store: also those of failed, hedged and given up requests.",
            registry=registry,
        )
        self.origin_requests = Counter(
            f"{prefix}_origin_requests", "Requests to the store for objects' bytes, each attempt counted.",
            registry=registry,
        )  # fmt: skip
        self.origin_retries = Counter(
            f"{prefix}_origin_retries", "Requests to the store that followed a failed one.", registry=registry
        )
        self.hedged_requests = Counter(
            f"{prefix}_hedged_requests", "Second requests to the store, sent because the first took long.",
            registry=registry,
        )  # fmt: skip
        self.whole_objects = Counter(
            f"{prefix}_whole_objects", "Objects compared with the store's digest once they were whole, by the result.",
            ["result"], registry=registry,
        )  # fmt: skip
        self.peer_bytes = Counter(f"{prefix}_peer_bytes", "Bytes fetched from other workers.", registry=registry)
        self.fills = Counter(
            f"{prefix}_fills", "Chunks fetched, by where from and what became of them.", ["source", "result"],
            registry=registry,
        )  # fmt: skip
        self.fill_seconds = Histogram(
            f"{prefix}_fill_seconds", "Time from the decision to fetch a chunk until it could be served.", ["source"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.filling_bytes = Gauge(
            f"{prefix}_filling_bytes", "Bytes of chunks in memory on their way in.", registry=registry
        )  # fmt: skip
        self.evictions = Counter(f"{prefix}_evictions", "Chunks removed to make room.", registry=registry)
        self.corrupt_chunks = Counter(
            f"{prefix}_corrupt_chunks", "Chunks whose bytes were gone or did not match.", registry=registry
        )
        self.request_errors = Counter(
            f"{prefix}_request_errors", "Data requests answered with an error.", ["reason"], registry=registry
        )
        self.connections = Gauge(f"{prefix}_connections", "Open data connections.", registry=registry)
        self.tier_used_bytes = Gauge(
            f"{prefix}_tier_used_bytes",
            "Bytes that chunks take in a tier, in whole blocks.",
            ["tier"],
            registry=registry,
        )
        self.tier_capacity_bytes = Gauge(
            f"{prefix}_tier_capacity_bytes", "Bytes that a tier may hold now.", ["tier"], registry=registry
        )
        self.tier_write_failures = Counter(
            f"{prefix}_tier_write_failures", "Chunks that a tier's disk refused; they were read through.", ["tier"],
            registry=registry,
        )  # fmt: skip
        self.tier_failures = Counter(
            f"{prefix}_tier_failures", "Folders of a tier taken out because their disk failed.", ["tier"],
            registry=registry,
        )  # fmt: skip
        self.moved_bytes = Counter(
            f"{prefix}_moved_bytes", "Bytes copied from another tier.", ["tier"], registry=registry
        )  # fmt: skip
        self.cached_bytes = Gauge(
            f"{prefix}_cached_bytes", "Verified bytes of this worker's share of the current generation.",
            registry=registry,
        )  # fmt: skip
        self.index_generation = Gauge(
            f"{prefix}_index_generation", "Newest index generation (0: none).", registry=registry
        )  # fmt: skip
        self.index_age_seconds = Gauge(
            f"{prefix}_index_age_seconds", "Time since the listing was last seen to be right.", registry=registry
        )
        self.index_failures = Counter(
            f"{prefix}_index_failures", "Attempts to list the sources that failed.", ["reason"], registry=registry
        )
        self.ring_epoch = Gauge(f"{prefix}_ring_epoch", "Epoch of the ring in force (0: none).", registry=registry)
        self.scrubbed_bytes = Counter(
            f"{prefix}_scrubbed_bytes", "Bytes that the scrub has read and compared.", registry=registry
        )

    def tier_bytes(self, medium: str, used: int, capacity: int) -> None:
        """Show a tier's fill level."""
        self.tier_used_bytes.labels(medium).set(used)
        self.tier_capacity_bytes.labels(medium).set(capacity)

    def served(self, place: str, length: int, *, hit: bool) -> None:
        """Count bytes served to a reader, from a tier or after fetching them from some source."""
        counter = self._served.get((place, hit))
        if counter is None:
            # Finding a label's counter costs more than counting.
            counter = self._served[place, hit] = (self.hit_bytes if hit else self.miss_bytes).labels(place)
        counter.inc(length)
