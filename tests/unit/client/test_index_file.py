"""The index file against a plain model of it: whatever is listed is found, in order, by every way of asking."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from forebay.index import ROOT_INODE, Entry, Snapshot, SnapshotWriter
from forebay.index.inodes import stable_inode
from forebay.index.layout import BLOCK, SEGMENT
from forebay.index.naming import is_folder, names_of
from forebay.index.packing import Packer, unpack
from forebay.index.writer import Origin, OutOfOrder
from forebay.source import Listing
from forebay_protocol.dataset import MountSpec
from forebay_protocol.errors import InvalidRequest, SourceInvalid

MOUNT = MountSpec(name="m", source="s3://bucket/data", path="/")
BUILT_AT = 1_700_000_000.0

COMPONENTS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "a",
        "a!",
        "a-",
        "a.b",
        "b",
        "a\0",
        ".forebay",
        ".forebay-",
        ".forebay+x",
        ".forebax",
        "ü",
        "\n",
        "~",
    ]
) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
KEYS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join).filter(bool)
VERSIONS = st.sampled_from(["e", "D41D8CD98F00B204E9800998ECF8427E", "d41d8cd98f00b204e9800998ecf8427e-12", "ü"]) | (
    st.binary(min_size=16, max_size=16).map(bytes.hex)
)
LISTINGS = st.dictionaries(
    KEYS, st.tuples(st.integers(0, 2**63 - 1), VERSIONS, st.integers(-(2**40), 2**62)), max_size=60
)


def write(path: Path, listings: Sequence[Listing], pages: int = 7, mount: MountSpec = MOUNT) -> Snapshot:
    """An index of these, added in pages, packed and unpacked again."""
    packed = path.with_suffix(".packed")
    packer = Packer(packed)
    origin = Origin(dataset_uid="uid", generation=7, built_at=BUILT_AT, mounts=(mount,))
    writer = SnapshotWriter(path, origin, packer.write)
    found = iter(listings)
    try:
        while page := list(islice(found, pages)):
            writer.add(mount.name, page)
        writer.finish()
        packer.finish()
    except BaseException:
        writer.abandon()
        packer.abandon()
        raise
    plain = path.read_bytes()
    unpack(packed, path)
    assert path.read_bytes() == plain
    return Snapshot.open(path)


def model(listings: Sequence[Listing]) -> dict[str, Entry]:
    """Every path that such an index shows, by the rules of docs/SEMANTICS.md."""
    shown: dict[str, Entry] = {}
    for listing in listings:
        below = listing.key.removeprefix("data/")
        names = names_of(below)
        folders = len(names) if is_folder(below) else len(names) - 1
        for depth in range(1, folders + 1):
            path = "/" + "/".join(names[:depth])
            inode = stable_inode(path, "")
            shown[path] = Entry(names[depth - 1], True, 0, int(BUILT_AT * 1e9), "", "", "", inode)
        path = "/" + "/".join(names)
        if not is_folder(below) and not (path in shown and shown[path].is_dir):
            inode = stable_inode(path, listing.version)
            shown[path] = Entry(
                names[-1], False, listing.size, listing.mtime_ns, "m", listing.key, listing.version, inode
            )
    return shown


def paged(snapshot: Snapshot, inode: int, limit: int) -> Iterator[Entry]:
    """All children, a page at a time."""
    after = ""
    while page := snapshot.children(inode, after, limit):
        yield from page
        after = page[-1].name


def check(snapshot: Snapshot, shown: dict[str, Entry], order: Sequence[str]) -> None:
    """All ways of asking agree with the model."""
    files = {path: entry for path, entry in shown.items() if not entry.is_dir}
    assert [entry.key for _, entry in snapshot.files()] == [
        key for key in order if key in {e.key for e in files.values()}
    ]
    assert dict(snapshot.files()) == files
    assert snapshot.file_count == len(files)
    assert snapshot.total_bytes == sum(entry.size for entry in files.values())
    children: dict[str, list[Entry]] = {"/": []}
    for path, entry in shown.items():
        children.setdefault(path.rpartition("/")[0] or "/", []).append(entry)
        assert snapshot.find(path) == entry
        assert snapshot.entry(entry.inode) == entry
        if not entry.is_dir:
            assert snapshot.shows(snapshot.object(entry))
    for path, entries in children.items():
        inode = shown[path].inode if path != "/" else ROOT_INODE
        expected = sorted(entries, key=lambda entry: entry.name.encode())
        assert list(paged(snapshot, inode, 3)) == expected
        assert [snapshot.lookup(inode, entry.name) for entry in expected] == expected
        assert snapshot.lookup(inode, "not there") is None


@given(found=LISTINGS, pages=st.integers(1, 9))
@example(found={"a": (1, "e", 1), "a!": (2, "e", 1), "a/b": (3, "e", 1)}, pages=1)
@example(found={f"{name:03}": (1, "e", 1) for name in range(BLOCK + 1)}, pages=50)
@example(found={"a": (1, "D41D8CD98F00B204E9800998ECF8427E", 1)}, pages=1)
@example(found={"a": (1, "e", 1), "b/..": (1, "e", 1)}, pages=1)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_listing(tmp_path: Path, found: dict[str, tuple[int, str, int]], pages: int) -> None:
    """Awkward names, objects beside folders, versions of all kinds, extreme sizes and times."""
    total = 0
    listings = []
    for key in sorted(found, key=str.encode):
        size, version, mtime_ns = found[key]
        # No dataset is larger than what a file system can say of it.
        size = min(size, 2**63 - 1 - total)
        total += size
        listings.append(Listing(f"data/{key}", size, version, mtime_ns))

    snapshot = write(tmp_path / "index", listings, pages)
    try:
        check(snapshot, model(listings), [listing.key for listing in listings])
        shadowed = [one for one in listings if not is_folder(one.key) and snapshot.find(_path(one)) is not None]
        assert snapshot.hidden_count >= len(shadowed) - snapshot.file_count
    finally:
        snapshot.close()


def _path(listing: Listing) -> str:
    return "/" + "/".join(names_of(listing.key.removeprefix("data/")))


def test_more_than_a_segment(tmp_path: Path) -> None:
    """Blocks and segments end where they end: the first and the last file of each are found."""
    count = 2 * SEGMENT + BLOCK + 3
    listings = [
        Listing(f"data/{number // 5000:02}/{number:06}", number, f"{number:032x}", number * 1_000_000)
        for number in range(count)
    ]
    snapshot = write(tmp_path / "index", listings, 1000)

    assert [entry.key for _, entry in snapshot.files()] == [listing.key for listing in listings]
    borders = {edge + step for edge in range(0, count, BLOCK) for step in (-1, 0, 1)} | {count - 1}
    for number in sorted(borders & set(range(count))):
        listing = listings[number]
        entry = snapshot.find(f"/{number // 5000:02}/{number:06}")
        assert entry is not None
        assert (entry.key, entry.size, entry.version, entry.mtime_ns) == listing
        assert snapshot.entry(entry.inode) == entry
    folder = snapshot.find("/03")
    assert folder is not None
    assert [entry.size for entry in paged(snapshot, folder.inode, 512)] == list(range(15_000, 20_000))
    assert snapshot.lookup(folder.inode, "015000/015001") is None


def test_what_costs_a_million_times(tmp_path: Path) -> None:
    """Versions that are digests are kept as such, names once; what is sent is smaller still."""
    listings = [
        Listing(f"data/train/{number // 1000:04}/sample-{number:08}.jpg", 10_000 + number * 7919 % 200_000,
                stable_version(number), 1_700_000_000_000_000_000 + number * 7_919_000_000 % 86_400_000_000_000)
        for number in range(20_000)
    ]  # fmt: skip
    write(tmp_path / "index", listings, 1000)

    assert (tmp_path / "index").stat().st_size < 50 * len(listings)
    assert (tmp_path / "index.packed").stat().st_size < 30 * len(listings)


def stable_version(number: int) -> str:
    """An ETag as good as random."""
    return f"{stable_inode(str(number), ''):016x}{stable_inode(str(number), 'x'):016x}"


def test_a_listing_out_of_order_is_refused(tmp_path: Path) -> None:
    """It must be sorted first; whoever writes is told so."""
    listings = [Listing("data/b", 1, "e", 1), Listing("data/a", 1, "e", 1)]

    with pytest.raises(OutOfOrder):
        write(tmp_path / "index", listings, 2)
    with pytest.raises(OutOfOrder):
        write(tmp_path / "index", listings, 1)


@pytest.mark.parametrize(
    "listing",
    [
        Listing("data/a", -1, "e", 1), Listing("data/a", 2**63, "e", 1), Listing("data/a", 1, "", 1),
        Listing("elsewhere", 1, "e", 1), Listing("data/a", 1, "\ud800", 1),
    ],
)  # fmt: skip
def test_objects_that_cannot_be(tmp_path: Path, listing: Listing) -> None:
    """No size, no version, not of this mount: a source's fault, and said so."""
    with pytest.raises(SourceInvalid):
        write(tmp_path / "index", [listing])


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """What is not UTF-8 is not shown, but counted."""
    snapshot = write(tmp_path / "index", [Listing("data/a", 1, "e", 1), Listing("data/\udcff", 1, "e", 1)])

    assert [path for path, _ in snapshot.files()] == ["/a"]
    assert snapshot.hidden_count == 1
    assert snapshot.lookup(ROOT_INODE, "\udcff") is None


def test_two_mounts_at_one_path(tmp_path: Path) -> None:
    """Nobody could say whose file a name is."""
    origin = Origin(dataset_uid="uid", generation=1, built_at=1.0, mounts=(MOUNT, MOUNT))

    with pytest.raises(InvalidRequest, match="same path"):
        SnapshotWriter(tmp_path / "index", origin)


def test_two_files_of_one_inode_are_neither(tmp_path: Path) -> None:
    """A node of the kernel that could be either of two files is none of them."""
    path = tmp_path / "index"
    snapshot = write(path, [Listing(f"data/{name}", 1, "e", 1) for name in "abc"])
    first, _, third = (entry for _, entry in snapshot.files())
    assert snapshot.entry(first.inode) == first
    assert snapshot.entry(first.inode ^ 1) is None

    # No two names with the same hash are known; a file that has a name twice does as well.
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw.replace(b"/a/b/c/", b"/a/a/c/"))
    twice = Snapshot.open(path)
    assert twice.entry(first.inode) is None
    assert twice.entry(third.inode) == third
