"""A dataset's listing as an immutable snapshot, and how object keys become paths."""

from forebay.index.glob import PathFilter
from forebay.index.inodes import ROOT_INODE
from forebay.index.snapshot import Entry, Snapshot
from forebay.index.writer import SnapshotWriter

__all__ = ["ROOT_INODE", "Entry", "PathFilter", "Snapshot", "SnapshotWriter"]
