"""The ring in force, and what the access folder says."""

import json
from pathlib import Path

import pytest

from forebay_protocol.dataset import Credentials, DatasetDocument, MountSpec, credentials_to_json
from forebay_protocol.errors import InvalidRequest, Overloaded, Unauthorized
from forebay_protocol.keys import ChunkKey
from forebay_protocol.ring import Member, MemberState, Ring
from forebay_worker.access import Access, AccessWatcher, read_access
from forebay_worker.membership import Membership

CHUNK = ChunkKey("ab" * 32, 0)


def member(name: str, state: MemberState = MemberState.ACTIVE) -> Member:
    """A member of that name."""
    return Member(id=name, address="127.0.0.1", data_port=1, control_port=2, state=state)


def ring(epoch: int, *members: Member) -> Ring:
    """A ring of these members."""
    return Ring(epoch=epoch, members=members)


def test_only_a_newer_ring_is_taken(tmp_path: Path) -> None:
    """Listeners hear of it once; the newest epoch is answered either way."""
    membership = Membership("a", tmp_path / "ring.json")
    heard: list[int] = []
    membership.listen(lambda ring: heard.append(ring.epoch))

    answers = [membership.offer(ring(epoch, member("a"))) for epoch in (3, 3, 2, 4)]

    assert (answers, heard) == ([3, 3, 3, 4], [3, 4])


def test_the_ring_survives_a_restart(tmp_path: Path) -> None:
    """A worker knows its place before anybody tells it again; a broken file is no ring."""
    path = tmp_path / "ring.json"
    Membership("a", path).offer(ring(3, member("a"), member("b")))
    assert Membership("a", path).ring.epoch == 3

    path.write_text('{"epoch": ')

    assert Membership("a", path).ring.epoch == 0


def test_who_builds_the_index(tmp_path: Path) -> None:
    """The first active member; nobody in an empty ring."""
    membership = Membership("a", tmp_path / "ring.json")
    assert membership.builder() is None
    membership.offer(ring(1, member("z", MemberState.DRAINING), member("c"), member("a")))

    builder = membership.builder()

    assert builder is not None
    assert builder.id == "c"


def test_those_who_leave_are_asked_for_their_chunks(tmp_path: Path) -> None:
    """Second after the next in rank, and never ourselves."""
    membership = Membership("a", tmp_path / "ring.json")
    membership.offer(ring(1, member("a"), member("b"), member("c"), member("d", MemberState.DRAINING)))

    others = [one.id for one in membership.others(CHUNK)]

    assert others[1] == "d"
    assert sorted(others) == ["b", "c", "d"]


def write_access(folder: Path, uid: str = "uid") -> None:
    """A complete access folder."""
    mount = MountSpec(name="m", source="s3://bucket", path="/")
    document = DatasetDocument(uid=uid, namespace="team", name="data", mounts=(mount,))
    credentials = {"m": Credentials(access_key_id="id", secret_access_key="very-secret")}
    (folder / "dataset.json").write_text(json.dumps(document.to_json()))
    (folder / "credentials.json").write_text(json.dumps(credentials_to_json(credentials)))
    (folder / "keys").write_text("k" * 64)


def test_an_incomplete_folder_is_waited_for(tmp_path: Path) -> None:
    """The problem names the file that is missing; once it is there, listeners hear of it once."""
    watcher, heard = AccessWatcher(tmp_path, 1.0), list[Access]()
    watcher.listen(heard.append)
    watcher.look()
    assert watcher.problem is not None
    assert "dataset.json" in watcher.problem.message
    with pytest.raises(Overloaded):
        watcher.check("v1.1.x")

    write_access(tmp_path)
    watcher.look()
    watcher.look()

    assert watcher.problem is None
    assert [access.dataset.uid for access in heard] == ["uid"]


def test_a_folder_that_breaks_later_leaves_the_last_access(tmp_path: Path) -> None:
    """The worker goes on and says so, without quoting the file."""
    write_access(tmp_path)
    watcher = AccessWatcher(tmp_path, 1.0)
    watcher.look()
    (tmp_path / "credentials.json").write_text('{"m": "very-secret')

    watcher.look()

    assert watcher.problem is not None
    assert "very-secret" not in watcher.problem.message
    assert watcher.current is not None


def test_tokens_open_their_own_dataset_only(tmp_path: Path) -> None:
    """What this worker mints for its peers opens it; a foreign token does not."""
    write_access(tmp_path)
    watcher = AccessWatcher(tmp_path, 1.0)
    watcher.look()
    token = watcher.token()

    watcher.check(token)

    write_access(tmp_path, uid="another")
    watcher.look()
    with pytest.raises(Unauthorized):
        watcher.check(token)


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    """Neither in the access' repr nor in an error about it."""
    write_access(tmp_path)
    assert "very-secret" not in repr(read_access(tmp_path))
    assert "k" * 64 not in repr(read_access(tmp_path))
    (tmp_path / "dataset.json").write_text("[]")

    with pytest.raises(InvalidRequest):
        read_access(tmp_path)
