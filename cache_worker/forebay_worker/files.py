"""Files of the state folder: replaced whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_document(path: Path, document: Any) -> None:
    """Replace a JSON file so that a crash leaves the old or the new one."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_document(path: Path) -> Any:
    """The JSON file's content; None when there is none or it is malformed."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
