"""nginx with one worker process, serving a folder."""

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forebay_bench import programs
from forebay_bench.generator import Call, Target
from testkit.progress import Progress
from testkit.waiting import eventually
from testkit.worker_processes import free_port

FLAG_SETS = {
    "sendfile": "sendfile on;",
    "sendfile, tcp_nopush, open_file_cache": "sendfile on; tcp_nopush on; open_file_cache max=10000;",
    "sendfile, sendfile_max_chunk 0, open_file_cache": "sendfile on; sendfile_max_chunk 0; open_file_cache max=10000;",
    "sendfile, aio threads, open_file_cache": "sendfile on; aio threads; open_file_cache max=10000;",
}
"""The settings among which the best is chosen before it is compared."""

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
user root;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {flags}
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def serving(root: Path, flags: str, progress: Progress) -> Iterator[tuple[Target, int]]:
    """Run it as one process, as its master mode would give one worker; where it listens, and its process id."""
    program, port = programs.nginx(progress), free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(_CONFIGURATION.format(folder=folder, flags=FLAG_SETS[flags], port=port, root=root))
        process = subprocess.Popen([str(program), "-c", str(file), "-p", folder, "-e", f"{folder}/error"])
        target = Target(address="127.0.0.1", port=port)

        def listens() -> bool:
            assert process.poll() is None, (Path(folder) / "error").read_text()
            with socket.socket() as probe:
                return probe.connect_ex((target.address, target.port)) == 0

        try:
            eventually(listens, timeout=10, interval=0.05, what="nginx listens")
            yield target, process.pid
        finally:
            process.terminate()
            process.wait()


def calls(target: Target, path: str, ranges: list[tuple[int, int]]) -> list[Call]:
    """Range GETs of one file; each is made once to learn how long its response is."""
    return [_learned(target, f"GET /{path} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-{start + length - 1}\r\n\r\n",
                     length, b"206") for start, length in ranges]  # fmt: skip


def whole_files(target: Target, paths: list[str], length: int) -> list[Call]:
    """GETs of whole files of the same length."""
    return [_learned(target, f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n", length, b"200") for path in paths]


def _learned(target: Target, request: str, length: int, status: bytes) -> Call:
    with target.connect() as stream:
        stream.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = stream.recv(4096)
            if not piece:
                raise ConnectionError("nginx closed the connection")
            head += piece
    if head.split(b" ", 2)[1] != status:
        raise RuntimeError(f"nginx answered {head[:100]!r}")
    return Call(request.encode(), head.index(b"\r\n\r\n") + 4 + length)
