"""Run short commands: argument lists only, output captured, failures with what the command said."""

import subprocess
from collections.abc import Mapping, Sequence


class CommandFailed(RuntimeError):
    """A command ended with an error."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 120,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command and return what it wrote."""
    done = subprocess.run(
        argv,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=None if environment is None else dict(environment),
        check=False,
    )
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandFailed(f"{' '.join(argv[:6])} … ended with {done.returncode}: {said}")
    return done
