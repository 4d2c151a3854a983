"""What a worker is told and what it finds on its disks: a value or the declared error."""

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay_protocol.errors import ForebayError
from forebay_protocol.keys import ObjectVersion
from forebay_worker.access import read_access
from forebay_worker.files import read_document
from forebay_worker.settings import parse_tier
from forebay_worker.store.catalogue import FILE, Catalogue
from testkit.damage import damaged

NUMBERS = st.sampled_from(["1", "0", "-1", "1e9", "nan", "inf", "9" * 5000, "", "0.5", "٣", "0x10"]) | st.text()
NAMES = st.sampled_from(["medium", "path", "quota", "high", "low"]) | st.text(max_size=5)


@given(
    text=st.text()
    | st.lists(st.tuples(NAMES, NUMBERS), max_size=7).map(lambda pairs: ",".join("=".join(pair) for pair in pairs))
    | st.tuples(NUMBERS, NUMBERS, NUMBERS).map(
        lambda three: f"medium=SSD,path=/t,quota={three[0]},high={three[1]},low={three[2]}"
    )
)
@settings(max_examples=300, deadline=None)
def test_tier_arguments(text: str) -> None:
    """Limits that hold together, or ValueError."""
    try:
        tier = parse_tier(text)
    except ValueError:
        return
    assert tier.quota > 0
    assert 0 < tier.low < tier.high <= 1


@given(
    texts=st.fixed_dictionaries(
        {}, optional={name: st.binary(max_size=80) for name in ("dataset.json", "credentials.json", "keys")}
    )
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_access_folders(tmp_path: Path, texts: dict[str, bytes]) -> None:
    """Files that are missing or anything at all: InvalidRequest, which quotes nothing of them."""
    for name in ("dataset.json", "credentials.json", "keys"):
        (tmp_path / name).unlink(missing_ok=True)
        if name in texts:
            (tmp_path / name).write_bytes(texts[name])

    with pytest.raises(ForebayError):
        read_access(tmp_path)


@given(raw=st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_state_files(tmp_path: Path, raw: bytes) -> None:
    """A state file that is no JSON is as good as none."""
    (tmp_path / "state.json").write_bytes(raw)

    read_document(tmp_path / "state.json")


def test_a_state_file_that_never_ends(tmp_path: Path) -> None:
    """Brackets in brackets are no reason to fail either."""
    (tmp_path / "state.json").write_bytes(b"[" * 100_000)

    assert read_document(tmp_path / "state.json") is None


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real catalogue of 200 chunks."""
    folder = tmp_path_factory.mktemp("tier")
    catalogue = Catalogue(folder, "uid")
    for number in range(200):
        one = ObjectVersion("uid", "m", f"key {number}", "v", 100)
        catalogue.add(one, 0, 100, b"sums")
    catalogue.close()
    return (folder / FILE).read_bytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_catalogues(tmp_path: Path, good: bytes, data: st.DataObject) -> None:
    """Garbage, cut or overwritten: opened anew or read as far as it goes; nothing but SQLite's own errors."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    (folder / FILE).write_bytes(data.draw(damaged(good, longest_garbage=200)))

    try:
        catalogue = Catalogue(folder, "uid")
        try:
            for one, number, length, sums in catalogue.chunks():
                assert one.dataset == "uid"
                assert number * length >= 0
                assert isinstance(sums, bytes)
        finally:
            catalogue.close()
    except sqlite3.Error:
        return
