"""Serve one mount: on a descriptor inherited from the node plugin, or on a folder, by itself.

For the node plugin: the first line on standard input is a JSON object with the access Secret's texts;
``prepared`` on standard output says that the index is there; a second line says that the mount exists now. Then
standard output tells from time to time that this server lives, and the dataset's keys when they are rotated, for the
server that may follow this one.
"""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from forebay.ring import Seeds, resolve
from forebay.trust import Trust
from forebay_node import logs
from forebay_node.connection import Connection
from forebay_node.fuse.access import Access
from forebay_node.fuse.server import DEFAULT_BUDGET, MountSettings, Server
from forebay_node.fuse.session import LONGEST_ANSWER
from forebay_node.mounts import detach
from forebay_protocol.dataset import AUTHORITY_FILE, CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE
from forebay_protocol.errors import ForebayError
from forebay_protocol.volume import CONTROL_PORT

PREPARED = "prepared"
FAILED = "failed: "
KEYS = "keys: "
ALIVE = "alive"
"""What is said on standard output to the node plugin; after two of them comes more: the reason, or a JSON list."""

ALIVE_INTERVAL = 5.0
"""Seconds between signs of life of a server that serves for the node plugin."""

_log = logging.getLogger("forebay_node.fuse")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m forebay_node.fuse", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--channel", type=int, action="append", help="serve this inherited descriptor of a FUSE connection; repeatable"
    )
    where.add_argument("--mount", type=Path, metavar="DIR", help="mount at this folder; needs root")
    parser.add_argument(
        "--resume", action="store_true", help="go on where another server of this mount ended (with --channel)"
    )
    parser.add_argument("--dataset", type=Path, help="dataset document (with --mount)")
    parser.add_argument("--credentials", type=Path, help="credentials document (with --mount)")
    parser.add_argument("--keys", type=Path, help="key file (with --mount)")
    parser.add_argument("--ca", type=Path, help="certificate of the workers' authority: TLS only (with --mount)")
    parser.add_argument(
        "--worker", action="append", default=[], metavar="HOST[:PORT]",
        help="where workers' control APIs are: a name with all their addresses, or one for each; repeatable",
    )  # fmt: skip
    parser.add_argument("--index-dir", type=Path, help="where the last index is kept; default: nowhere")
    parser.add_argument("--budget", type=int, default=DEFAULT_BUDGET, help="bytes of memory for reading ahead")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for the first index")
    parser.add_argument("--node", default="", help="this node's name in the ring: its worker is asked first")
    parser.add_argument("--answer-within", type=float, default=LONGEST_ANSWER, help="seconds until a read fails")
    parser.add_argument("--source", default="forebay", help="the file system's name in the list of mounts")
    parser.add_argument("--log-level", default="info")
    return parser.parse_args()


def parse_endpoint(text: str) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[v6]:port``; the control port where none is given."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    else:
        host, _, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    return host, int(port) if port else CONTROL_PORT


def _seeds(workers: list[str]) -> Seeds:
    endpoints = [parse_endpoint(worker) for worker in workers]
    return lambda: [found for host, port in endpoints for found in resolve(host, port)]


def _read_access(arguments: argparse.Namespace) -> Access:
    if arguments.channel:
        return Access.parse(json.loads(sys.stdin.readline()))
    paths = {DATASET_FILE: arguments.dataset, CREDENTIALS_FILE: arguments.credentials, KEYS_FILE: arguments.keys}
    paths[AUTHORITY_FILE] = arguments.ca
    return Access.parse({name: path.read_text() for name, path in paths.items() if path is not None})


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say_keys(trust: Trust) -> None:
    # A plugin that is gone needs no keys.
    with suppress(BrokenPipeError):
        _say(KEYS + json.dumps([key.decode() for key in trust.keys]))


def _say_alive() -> None:
    # What holds all threads (or stops the process) holds this one, and the plugin takes notice.
    with suppress(BrokenPipeError):
        while True:
            _say(ALIVE)
            time.sleep(ALIVE_INTERVAL)


def _serve_inherited(server: Server, arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    snapshots = server.prepare()
    _say(PREPARED)
    if not sys.stdin.readline():
        _log.info("the node plugin gave the mount up before it existed")
        return
    threading.Thread(target=_say_alive, name="alive", daemon=True).start()
    server.serve(arguments.channel, snapshots, arguments.source)


def _serve_folder(server: Server, target: Path, source: str) -> None:
    snapshots = server.prepare()
    connection = Connection()
    connection.mount(source, target)

    def unmount(*_: object) -> None:
        detach(target)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, unmount)
    _log.info("mounted")
    server.serve(connection.channels, snapshots, source)


@contextmanager
def _index_folder(given: Path | None) -> Iterator[Path]:
    """The folder for index files: the given one, else one that goes with this process."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="forebay-") as temporary:
        yield Path(temporary)


def main() -> int:
    """Run until unmounted; 1, with a line in the log, when that could not begin."""
    arguments = _arguments()
    logs.configure(arguments.log_level, mount=arguments.source)
    try:
        access = _read_access(arguments)
        with _index_folder(arguments.index_dir) as folder:
            settings = MountSettings(
                access=access, seeds=_seeds(arguments.worker), folder=folder, node=arguments.node,
                budget=arguments.budget, patience=arguments.patience, answer_within=arguments.answer_within,
                resume=arguments.resume,
            )  # fmt: skip
            server = Server(settings)
            if arguments.channel:
                access.trust.watch(_say_keys)
                _serve_inherited(server, arguments)
            else:
                _serve_folder(server, arguments.mount, arguments.source)
    except (ForebayError, OSError, ValueError) as error:
        _log.error("cannot serve the mount: %s", error)
        if arguments.channel:
            _say(FAILED + " ".join(str(error).split()))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Threads may still be fetching what nobody waits for any more; the interpreter would wait for them.
    os._exit(code)
