"""The node plugin: serve CSI to this node's kubelet until told to end."""

import argparse
import logging
import resource
import signal
import sys
import threading
from pathlib import Path

from forebay_node import logs
from forebay_node.csi.serving import Plugin, probe
from forebay_node.inline import InlineVolumes
from forebay_node.paths import NodePaths
from forebay_node.tier_folders import TierFolders
from forebay_node.volumes import INDEX_PATIENCE, Volumes

_GRACE = 10.0
_COLLECT_SECONDS = 5.0
"""Pause between looks for worker folders that nobody claims, and mounts that no pod has."""

_log = logging.getLogger("forebay_node")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m forebay_node", description=__doc__)
    parser.add_argument("--node-name", default="", help="the CSI node id: the Kubernetes node's name")
    parser.add_argument("--kubelet-dir", type=Path, default=Path("/var/lib/kubelet"), help="the kubelet's --root-dir")
    parser.add_argument("--check", action="store_true", help="only ask whether the driver of this node answers")
    parser.add_argument(
        "--index-patience", type=float, default=INDEX_PATIENCE, help="seconds that staging waits for a first index"
    )
    parser.add_argument(
        "--tier-root", type=Path, action="append", default=[], metavar="FOLDER",
        help="a folder of the node that hostPath tiers may live in; again for more",
    )  # fmt: skip
    parser.add_argument(
        "--runtimes-dir", type=Path, help="folder with the list of Runtimes; tier folders that none claims are removed"
    )
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    if not arguments.check and not arguments.node_name:
        parser.error("--node-name is missing")
    return arguments


def main() -> int:
    """Run until SIGTERM or SIGINT. The mounts' processes are left alone: their pods may still read."""
    arguments = _arguments()
    logs.configure(arguments.log_level)
    # Each mount costs some; container runtimes leave the soft limit at 1024 for the sake of select(2).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    paths = NodePaths(arguments.kubelet_dir.absolute())
    if arguments.check:
        return 0 if probe(paths.socket, timeout=5.0) else 1
    volumes = Volumes(paths, node=arguments.node_name, index_patience=arguments.index_patience)
    volumes.recover()
    tiers = TierFolders(tuple(arguments.tier_root), arguments.runtimes_dir, paths.pods)
    inline = InlineVolumes(paths, volumes)
    plugin = Plugin(arguments.node_name, paths, volumes, inline, tiers)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    plugin.start()
    _log.info("serving %s", paths.socket)
    threading.Thread(target=_collect, args=(tiers, inline, ended), name="collect", daemon=True).start()
    ended.wait()
    plugin.stop(_GRACE)
    return 0


def _collect(tiers: TierFolders, inline: InlineVolumes, ended: threading.Event) -> None:
    while not ended.wait(_COLLECT_SECONDS):
        tiers.collect()
        inline.collect()


if __name__ == "__main__":
    sys.exit(main())
