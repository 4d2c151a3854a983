"""The builder's own pip settings, for the time of a build: a file for pip, never a layer or an argument."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = {
    "index-url",
    "extra-index-url",
    "trusted-host",
    "timeout",
    "default-timeout",
    "retries",
    "proxy",
    "no-index",
    "client-cert",
}
"""Settings that make sense inside a build; paths of this machine do not."""
CA_IN_BUILD = "/run/secrets/ca.pem"


def parse(listing: str) -> dict[str, str]:
    """Read `pip config list`: later lines win, as they do for pip (files, then the environment)."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        key = name.rpartition(".")[2]
        if separator and key in _KEPT:
            found[key] = value.strip().strip("'\"")
    return found


def pip_conf(settings: Mapping[str, str], *, with_ca: bool) -> str:
    """The text of the file."""
    lines = ["[global]", *(f"{key} = {value}" for key, value in settings.items())]
    if with_ca:
        lines.append(f"cert = {CA_IN_BUILD}")
    return "\n".join(lines) + "\n"


def ca_bundle(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The certificates that this machine trusts, when it says that they differ from the usual ones."""
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        file = environ.get(name)
        if file and Path(file).is_file():
            return Path(file)
    return None


def secrets(folder: Path) -> list[str]:
    """Write the secrets' files and return the build's arguments for them; none where pip has no settings of its own."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    settings, bundle = parse(listed.stdout), ca_bundle()
    if not settings and bundle is None:
        return []
    file = folder / "pip.conf"
    file.touch(mode=0o600)
    file.write_text(pip_conf(settings, with_ca=bundle is not None))
    arguments = ["--secret", f"id=pip.conf,src={file}"]
    return arguments if bundle is None else [*arguments, "--secret", f"id=ca.pem,src={bundle}"]
