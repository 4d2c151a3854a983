"""Folders of workers on a node: who gets which, and which ones go."""

import json
import os
from pathlib import Path

import pytest

from forebay_node.tier_folders import GRACE, POD_NAME, POD_NAMESPACE, TierFolders, WorkerFolder, is_claimed, requested
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.volume import RUNTIME_UID, RUNTIMES_FILE, TIER_PATH

UID = "0b6c1c8e-7d0f-4a6e-9c55-2f1d8a3b4c5d"
OTHER = "ffffffff-7d0f-4a6e-9c55-2f1d8a3b4c5d"
ROOT = Path("/mnt/ssd")


def context(**changes: str) -> dict[str, str]:
    """A worker pod's volume attributes as the kubelet sends them."""
    return {TIER_PATH: str(ROOT), RUNTIME_UID: UID, POD_NAMESPACE: "ml", POD_NAME: "data-worker-0"} | changes


def test_a_worker_gets_a_folder_of_its_own() -> None:
    """Root, namespace, Runtime, pod: in this order, so that nothing of another namespace can be named."""
    found = requested(context(**{TIER_PATH: "/mnt/./ssd/"}), (Path("/srv"), ROOT))
    assert found.path == ROOT / "ml" / UID / "data-worker-0"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (TIER_PATH, "/etc", "only in: /mnt/ssd"),
        (TIER_PATH, "/mnt/ssd/../../etc", "only in: /mnt/ssd"),
        (TIER_PATH, "/mnt/ssd/ml", "only in: /mnt/ssd"),
        (RUNTIME_UID, "..", "lack"),
        (RUNTIME_UID, UID + "/x", "lack"),
        (POD_NAMESPACE, "", "lack"),
        (POD_NAMESPACE, "..", "lack"),
        (POD_NAME, "a/b", "lack"),
        (POD_NAME, "", "lack"),
    ],
)
def test_what_no_pod_may_ask_for(key: str, value: str, said: str) -> None:
    """Other folders, and names that are none."""
    with pytest.raises(InvalidRequest, match=said):
        requested(context(**{key: value}), (ROOT,))


def test_no_roots_means_no_tiers() -> None:
    """An administrator who gives nothing away is told of, not overruled."""
    with pytest.raises(InvalidRequest, match="no folder at all"):
        requested(context(), ())


def test_claimed_by_replicas() -> None:
    """A Runtime claims the folders of as many workers as it wants."""
    first, second = (WorkerFolder(ROOT, "ml", UID, f"data-worker-{number}") for number in (0, 1))
    assert [is_claimed(one, {UID: 1}) for one in (first, second)] == [True, False]
    assert not is_claimed(first, {OTHER: 1})
    assert not is_claimed(first, {UID: 0})


class Node:
    """A root with folders, the list, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.root, self.lists = folder / "root", folder / "lists"
        self.lists.mkdir()
        self.tiers = TierFolders((self.root,), self.lists, folder / "pods", os.getuid())
        self.time = 0.0

    def fill(self, uid: str, pod: str = "data-worker-0") -> Path:
        """A worker's folder with a file in it."""
        path = self.root / "ml" / uid / pod
        (path / "chunks").mkdir(parents=True)
        (path / "chunks" / "file").write_text("x")
        return path

    def tell(self, replicas: object) -> None:
        """The list as the kubelet brings it."""
        (self.lists / RUNTIMES_FILE).write_text(json.dumps(replicas))

    def collect(self, later: float = 0.0) -> None:
        """Look again, so many seconds later."""
        self.time += later
        self.tiers.collect(lambda: self.time)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """An empty one."""
    return Node(tmp_path)


def test_unclaimed_folders_go_after_the_grace(node: Node) -> None:
    """Only those, and only once they have been unclaimed for a while; empty parents go with them."""
    kept, gone = node.fill(UID), node.fill(OTHER)
    node.tell({UID: 1})
    node.collect()
    node.collect(GRACE / 2)
    assert gone.exists()
    node.collect(GRACE / 2)
    assert kept.exists()
    assert not gone.parent.exists()
    node.tell({})
    node.collect()
    node.collect(GRACE)
    assert list(node.root.iterdir()) == []


def test_a_folder_that_is_claimed_again_stays(node: Node) -> None:
    """The grace begins anew: a list may be older than the folder."""
    folder = node.fill(UID)
    node.tell({})
    node.collect()
    node.tell({UID: 1})
    node.collect(GRACE)
    node.tell({})
    node.collect()
    assert folder.exists()


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"x": "y"}'])
def test_without_a_good_list_nothing_goes(node: Node, content: str | None) -> None:
    """Nobody has told, or what was told makes no sense."""
    folder = node.fill(OTHER)
    if content is not None:
        (node.lists / RUNTIMES_FILE).write_text(content)
    node.collect()
    node.collect(GRACE)
    assert folder.exists()


def test_what_is_not_a_workers_folder_stays(node: Node) -> None:
    """Files of others below a root, and symlinks, are not touched."""
    foreign = node.root / "some" / "where" / "else"
    foreign.mkdir(parents=True)
    elsewhere = node.fill(UID).parent.parent / "target"
    elsewhere.mkdir()
    (node.root / "ml" / OTHER).mkdir()
    (node.root / "ml" / OTHER / "data-worker-0").symlink_to(elsewhere)
    node.tell({UID: 1})
    node.collect()
    node.collect(GRACE)
    assert foreign.exists()
    assert elsewhere.exists()
