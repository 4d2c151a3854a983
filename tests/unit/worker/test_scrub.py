"""One pass of the scrub over a real store."""

import time
from pathlib import Path

from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.checksums import block_sums
from forebay_worker.store.scrub import Scrub
from forebay_worker.store.sparse import SparseFiles
from forebay_worker.store.tiered import ChunkStore, Judgement

SIZE = 200_000


def filled(folder: Path, count: int) -> tuple[ChunkStore, list[ObjectVersion]]:
    """A store with so many objects of one chunk."""
    store = ChunkStore((TierSettings(medium="SSD", paths=(folder,), quota=1 << 26),), "uid", Metrics())
    objects = [ObjectVersion("uid", "m", f"{number}", "v", SIZE) for number in range(count)]
    for number, one in enumerate(objects):
        data = memoryview(bytes([number]) * SIZE)
        assert store.put(one, 0, data, block_sums(data), lambda _, __: Judgement(current=True, owned=True))
    return store, objects


def test_a_pass_verifies_everything_within_its_time(tmp_path: Path) -> None:
    """After a restart all chunks count again; a flipped byte is found and the rest stays."""
    store, objects = filled(tmp_path, 10)
    store.close()
    with SparseFiles(tmp_path).path(objects[3].object_id).open("r+b") as file:
        file.write(b"\xff")
    metrics = Metrics()
    store = ChunkStore((TierSettings(medium="SSD", paths=(tmp_path,), quota=1 << 26),), "uid", metrics)
    scrub = Scrub(lambda: store, 1 << 30, metrics)

    scrub.one_pass(store, time.monotonic() + 10)

    assert store.cached_bytes == 9 * SIZE
    assert store.corrupt_chunks == 1
    assert not store.has_verified(ChunkKey(objects[3].object_id, 0))
    assert metrics.registry.get_sample_value("forebay_worker_scrubbed_bytes_total") == 10 * SIZE
    store.close()


def test_the_rate_bounds_a_pass_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """Three chunks at a rate of ten a second take their time; what a pass leaves is read by the next."""
    store, _ = filled(tmp_path, 3)
    metrics = Metrics()
    scrub = Scrub(lambda: store, 10 * SIZE, metrics)
    start = time.monotonic()

    scrub.one_pass(store, start + 0.05)
    first = metrics.registry.get_sample_value("forebay_worker_scrubbed_bytes_total")
    scrub.one_pass(store, start + 10)

    assert first == SIZE
    assert metrics.registry.get_sample_value("forebay_worker_scrubbed_bytes_total") == 3 * SIZE
    assert time.monotonic() - start > 0.25
    store.close()
