"""Downloads and builds: checked, atomic, resumable."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from testkit.artifacts import complete_folder
from testkit.binaries import kubernetes_ldflags
from testkit.golang import parse_version
from testkit.progress import Progress, silent
from testkit.release import NotReachable, WrongChecksum, download, published_sha256

CONTENT = b"a program" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site(BaseHTTPRequestHandler):
    """A release site with one program and two checksum files."""

    def do_GET(self) -> None:
        """Answer from a fixed table."""
        pages = {"/program": CONTENT, "/program.sha256": f"{SHA256}  program\n".encode(), "/page.sha256": b"<html>"}
        body = pages.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The site's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_gets_its_name_when_its_checksum_is_right(site: str, tmp_path: Path) -> None:
    """The checksum comes from the published file."""
    download(f"{site}/program", tmp_path / "program", published_sha256(f"{site}/program.sha256"), silent())

    assert (tmp_path / "program").read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["program"]


def test_a_wrong_download_is_removed(site: str, tmp_path: Path) -> None:
    """Nothing with the wrong content stays, under any name."""
    with pytest.raises(WrongChecksum):
        download(f"{site}/program", tmp_path / "program", "0" * 64, silent())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", ["page.sha256", "missing.sha256"])
def test_a_site_without_checksums_counts_as_not_reachable(site: str, page: str) -> None:
    """A portal that answers every address with a page of its own is no release site."""
    with pytest.raises(NotReachable):
        published_sha256(f"{site}/{page}")


def test_nothing_listens() -> None:
    """The probe fails at once where nobody answers."""
    with pytest.raises(NotReachable):
        published_sha256("http://127.0.0.1:9/program.sha256", timeout=1)


def test_an_interrupted_fill_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was complete is kept; the folder appears only when all of it is there."""

    def interrupted(target: Path) -> None:
        (target / "one").write_text("1")
        raise KeyboardInterrupt

    def resumed(target: Path) -> None:
        assert (target / "one").read_text() == "1"
        (target / "two").write_text("2")

    with pytest.raises(KeyboardInterrupt):
        complete_folder(tmp_path / "tools-1", ("one", "two"), interrupted)
    assert not (tmp_path / "tools-1").exists()

    assert complete_folder(tmp_path / "tools-1", ("one", "two"), resumed) == tmp_path / "tools-1"
    assert {file.name for file in (tmp_path / "tools-1").iterdir()} == {"one", "two"}


def test_a_fill_that_lacks_a_file_is_an_error(tmp_path: Path) -> None:
    """A half-empty cache would fail much later, and say less."""
    with pytest.raises(RuntimeError, match="without two"):
        complete_folder(tmp_path / "tools-1", ("one", "two"), lambda target: (target / "one").touch())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.24rc1 linux/arm64", (1, 24)), ("nothing", None)],
)
def test_the_version_of_go_is_read(text: str, expected: tuple[int, int] | None) -> None:
    """Releases and candidates."""
    assert parse_version(text) == expected


def test_a_build_of_our_own_says_its_version() -> None:
    """Clients compare the version that the server tells them."""
    flags = kubernetes_ldflags("1.34.4")

    assert "-X k8s.io/component-base/version.gitVersion=v1.34.4" in flags
    assert "-X k8s.io/client-go/pkg/version.gitMinor=34" in flags


def test_progress_tells_the_elapsed_time() -> None:
    """Each line begins with it."""
    lines: list[str] = []
    with Progress(lines.append).step("waiting"):
        pass

    assert lines[0].endswith("s] waiting …")
    assert "done in" in lines[1]
