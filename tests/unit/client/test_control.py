"""Ring and index, asked from a worker's control API."""

import threading
from pathlib import Path

import pytest

from forebay.control import ControlClient
from forebay.ring import RingHolder
from forebay_protocol.errors import WorkerUnavailable
from forebay_protocol.ring import Ring
from testkit.fake_worker import FakeWorker
from testkit.waiting import eventually


def token() -> str:
    """What every client here shows."""
    return "t"


def test_the_index_is_fetched_once(tmp_path: Path) -> None:
    """A newer generation is written; the one we have is not sent again; none is none."""
    with FakeWorker() as worker:
        client = ControlClient("127.0.0.1", worker.member.control_port, token)
        target = tmp_path / "index"

        assert client.fetch_index(0, target) is None
        worker.index = (7, b"snapshot" * 1000)
        assert client.fetch_index(0, target) == 7
        assert target.read_bytes() == b"snapshot" * 1000
        assert client.fetch_index(7, target) is None


def test_a_newer_epoch_is_fetched() -> None:
    """The first ring comes from the seeds; a response's newer epoch makes the holder look again."""
    with FakeWorker() as worker:
        worker.ring = Ring(epoch=1, members=(worker.member,))
        epochs: list[int] = []
        newer = threading.Event()

        def changed(ring: Ring) -> None:
            epochs.append(ring.epoch)
            if ring.epoch == 2:
                newer.set()

        holder = RingHolder(token, lambda: [("127.0.0.1", worker.member.control_port)], on_change=changed)
        assert holder.refresh()
        holder.start()
        eventually(lambda: len(worker.routes) >= 2, timeout=5, what="the thread has looked for itself", interval=0.01)
        worker.ring = Ring(epoch=2, members=(worker.member,))
        holder.saw(2)

        assert newer.wait(5)
        assert epochs == [1, 2]
        assert not holder.offer(Ring(epoch=1))
        holder.close()


def test_nobody_answers() -> None:
    """An unreachable worker is told as such, and is no reason to forget the ring."""
    with FakeWorker() as worker:
        port = worker.member.control_port
    holder = RingHolder(token, lambda: [("127.0.0.1", port)])

    assert not holder.refresh()
    with pytest.raises(WorkerUnavailable):
        ControlClient("127.0.0.1", port, token).ring()
