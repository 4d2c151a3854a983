"""Stores of all kinds behind one face, so that one contract test runs against each."""

import os
import shutil
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from forebay.limits import OPEN
from forebay.source import Grant, Source, open_source
from forebay_protocol.dataset import Credentials, MountSpec
from testkit.buckets import Bucket
from testkit.waiting import eventually
from testkit.worker_processes import free_port

ONE_TENANT = Grant(one_tenant=True)


class Backend(Protocol):
    """A store that a test writes to by the store's own means, and reads by a source."""

    def put(self, objects: dict[str, bytes]) -> None:
        """Store objects, each replaced as a whole."""

    def delete(self, key: str) -> None:
        """Remove one."""

    def open(self, prefix: str = "", *, elsewhere: bool = False) -> Source:
        """A source of a folder of the store, or of one whose container does not exist."""


@dataclass(frozen=True, slots=True)
class S3Backend:
    """A bucket of a real S3 server."""

    bucket: Bucket
    keys: Credentials

    def put(self, objects: dict[str, bytes]) -> None:
        """By the AWS SDK."""
        self.bucket.put(objects)

    def delete(self, key: str) -> None:
        """By the AWS SDK."""
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)

    def open(self, prefix: str = "", *, elsewhere: bool = False) -> Source:
        """With the owner's keys."""
        mount = self.bucket.mount(prefix)
        if elsewhere:
            mount = replace(mount, source=f"s3://no-such-{self.bucket.name}")
        return open_source(mount, self.keys)


@dataclass(slots=True)
class Folder:
    """Files that are replaced by renaming, each time with a later time of modification: servers tell only seconds."""

    root: Path
    _clock: int = field(default_factory=lambda: int(time.time()))

    def put(self, objects: dict[str, bytes]) -> None:
        """Write beside and rename."""
        for key, body in objects.items():
            path, fresh = self.root / key, self.root.with_name(f"{self.root.name}.new")
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(body)
            self._clock += 2
            os.utime(fresh, (self._clock, self._clock))
            fresh.replace(path)

    def delete(self, key: str) -> None:
        """Remove the file."""
        (self.root / key).unlink()


@dataclass(slots=True)
class ClaimBackend:
    """A folder, as workers see a claim."""

    files: Folder

    def put(self, objects: dict[str, bytes]) -> None:
        """As files."""
        self.files.put(objects)

    def delete(self, key: str) -> None:
        """As a file."""
        self.files.delete(key)

    def open(self, prefix: str = "", *, elsewhere: bool = False) -> Source:
        """With the folder's parent as the folder of claims."""
        claim = "no-such-claim" if elsewhere else self.files.root.name
        mount = MountSpec(name="data", source=f"pvc://{claim}/{prefix}", path="/")
        return open_source(mount, None, OPEN, Grant(one_tenant=True, claims=self.files.root.parent))


@dataclass(slots=True)
class WebBackend:
    """A folder behind nginx, listed by its index pages or by a manifest."""

    files: Folder
    url: str
    manifest: str = ""

    def put(self, objects: dict[str, bytes]) -> None:
        """As files, and in the manifest."""
        self.files.put(objects)
        self._write_manifest()

    def delete(self, key: str) -> None:
        """As a file, and from the manifest."""
        self.files.delete(key)
        self._write_manifest()

    def _write_manifest(self) -> None:
        if self.manifest:
            for folder in [self.files.root, *(path for path in self.files.root.rglob("*") if path.is_dir())]:
                names = sorted(
                    str(path.relative_to(folder)) for path in folder.rglob("*")
                    if path.is_file() and path.name != self.manifest
                )  # fmt: skip
                fresh = self.files.root.with_name(f"{self.files.root.name}.manifest")
                fresh.write_text("".join(f"{name}\n" for name in names))
                fresh.replace(folder / self.manifest)

    def open(self, prefix: str = "", *, elsewhere: bool = False) -> Source:
        """Without credentials."""
        folder = f"{self.url}/no-such-folder" if elsewhere else f"{self.url}/{prefix}"
        return open_source(
            MountSpec(name="data", source=folder, path="/", manifest=self.manifest), None, OPEN, ONE_TENANT
        )


@dataclass(slots=True)
class FsspecBackend:
    """The file system in memory that fsspec brings."""

    name: str

    def put(self, objects: dict[str, bytes]) -> None:
        """By fsspec."""
        import fsspec

        for key, body in objects.items():
            fsspec.filesystem("memory").pipe_file(f"/{self.name}/{key}", body)

    def delete(self, key: str) -> None:
        """By fsspec."""
        import fsspec

        fsspec.filesystem("memory").rm_file(f"/{self.name}/{key}")

    def open(self, prefix: str = "", *, elsewhere: bool = False) -> Source:
        """By the general source."""
        name = "no-such-folder" if elsewhere else self.name
        return open_source(
            MountSpec(name="data", source=f"fsspec+memory://{name}/{prefix}", path="/"), None, OPEN, ONE_TENANT
        )


@dataclass(slots=True)
class BlobBackend:
    """The table of the example plug-in; BLOBS_FOLDER names its folder."""

    folder: Path

    def put(self, objects: dict[str, bytes]) -> None:
        """By SQL."""
        with closing(sqlite3.connect(self.folder / "things.db", isolation_level=None)) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS blob (key TEXT PRIMARY KEY, version INTEGER NOT NULL, "
                "changed REAL NOT NULL, data BLOB NOT NULL)"
            )
            database.executemany(
                "INSERT INTO blob VALUES (?, 1, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET version = version + 1, changed = excluded.changed, data = excluded.data",
                [(key, time.time(), body) for key, body in objects.items()],
            )

    def delete(self, key: str) -> None:
        """By SQL."""
        with closing(sqlite3.connect(self.folder / "things.db", isolation_level=None)) as database:
            database.execute("DELETE FROM blob WHERE key = ?", (key,))

    def open(self, prefix: str = "", *, elsewhere: bool = False) -> Source:
        """By the plug-in's entry point."""
        name = "nothing" if elsewhere else "things"
        return open_source(MountSpec(name="data", source=f"blobs://{name}/{prefix}", path="/"), None, OPEN, ONE_TENANT)


_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log; default_type application/octet-stream;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port};
    location /html/ {{ alias {files}/; autoindex on; }}
    location /json/ {{ alias {files}/; autoindex on; autoindex_format json; }}
    location /bare/ {{ alias {files}/; }}
    location /untold/ {{ alias {files}/; etag off; add_header Last-Modified ""; }}
    location /dated/ {{ alias {files}/; etag off; autoindex on; autoindex_format json; }}
  }}
}}
"""


@contextmanager
def nginx(program: Path, folder: Path, files: Path) -> Iterator[str]:
    """An nginx that serves ``files`` below /html/, /json/, /dated/ (no ETags) and /bare/ (no index); its URL."""
    port = free_port()
    files.mkdir(exist_ok=True)
    # Started by root, it reads as nobody.
    folder.chmod(0o755)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, files=files, port=port))
    process = subprocess.Popen([str(program), "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)])
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            with urllib.request.urlopen(f"{url}/html/", timeout=2) as answer:  # noqa: S310 - our own nginx
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(answers, timeout=20, interval=0.05, what="nginx answers")
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(files, ignore_errors=True)
