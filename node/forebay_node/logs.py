"""Log lines as JSON on standard error, one object a line. Standard library only: every mount pays for it."""

import json
import logging
import time
from typing import Any

from typing_extensions import override


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, what is fixed for this process, and the traceback where there is one."""

    def __init__(self, **fixed: str) -> None:
        """``fixed`` is added to every line."""
        super().__init__()
        self._fixed = fixed

    @override
    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "timestamp": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._fixed,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, **fixed: str) -> None:
    """Send this process's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(**fixed))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
