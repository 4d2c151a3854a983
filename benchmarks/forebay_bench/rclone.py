"""``rclone copy`` of a bucket into a folder."""

import os
import shutil
import subprocess
from pathlib import Path

from forebay_bench import programs
from forebay_bench.runs import seconds
from testkit.progress import Progress
from testkit.store import Store

LARGE_FLAGS = {
    "defaults": (),
    "--transfers 16": ("--transfers", "16"),
    "--transfers 4 --multi-thread-streams 8": (
        "--transfers", "4", "--multi-thread-streams", "8", "--multi-thread-cutoff", "32M",
    ),
    "--transfers 16 --ignore-checksum --buffer-size 4M": (
        "--transfers", "16", "--ignore-checksum", "--buffer-size", "4M",
    ),
}  # fmt: skip
SMALL_FLAGS = {
    "--transfers 16": ("--transfers", "16"),
    "--transfers 16 --checkers 16 --no-traverse": ("--transfers", "16", "--checkers", "16", "--no-traverse"),
    "--transfers 16 --ignore-checksum --no-check-dest": (
        "--transfers", "16", "--ignore-checksum", "--no-check-dest",
    ),
}  # fmt: skip
"""The settings among which the best is chosen before it is compared; for small objects with our concurrency."""


def copy(store: Store, bucket: str, target: Path, flags: tuple[str, ...], progress: Progress) -> float:
    """Seconds for copying a bucket into an empty folder, which is removed afterwards."""
    environment = {
        **os.environ,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Minio",
        "RCLONE_CONFIG_STORE_ENDPOINT": store.endpoint,
        "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": store.access_key,
        "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": store.secret_key,
    }
    argv = [str(programs.rclone(progress)), "copy", f"store:{bucket}", str(target), *flags]
    try:
        return seconds(lambda: subprocess.run(argv, env=environment, check=True, timeout=300, capture_output=True))
    finally:
        shutil.rmtree(target, ignore_errors=True)
