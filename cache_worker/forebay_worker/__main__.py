"""``python -m forebay_worker``: run one cache worker until SIGTERM or SIGINT."""

import ctypes
import logging
import os
import signal
import sys
import threading

import structlog
from structlog.typing import Processor

from forebay_worker.app import ESSENTIAL_THREADS, Worker
from forebay_worker.settings import parse

_M_MMAP_THRESHOLD = -3
_LARGE = 128 * 1024


def _log_json_to_stderr() -> None:
    """Our own lines, and warnings of the libraries, in one format."""
    steps: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[*steps, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _on_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """A bug ended a thread. Without one of its own threads a worker only looks alive: end it, it starts warm."""
    name = arguments.thread.name if arguments.thread is not None else ""
    error = (arguments.exc_type, arguments.exc_value or arguments.exc_type(), arguments.exc_traceback)
    structlog.get_logger().critical("a thread failed", thread=name, exc_info=error)
    if name in ESSENTIAL_THREADS:
        sys.stderr.flush()
        os._exit(70)


def _give_large_buffers_back() -> None:
    """Let the C library return a chunk's buffer to the system when it is freed, rather than keep it per thread."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)


def main() -> None:
    """Start, wait for a signal, stop."""
    settings = parse(sys.argv[1:])
    _log_json_to_stderr()
    _give_large_buffers_back()
    # Sorting an index of a million objects needs more room than a pod's /tmp has.
    os.environ["SQLITE_TMPDIR"] = str(settings.state_dir)
    threading.excepthook = _on_thread_error
    # Blocked before any thread starts, so that sigwait is the only one to take them.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    worker = Worker(settings)
    worker.start()
    signal.sigwait(signals)
    worker.stop()
    sys.stderr.flush()
    # A request to the store may hang for its whole timeout; the interpreter would wait for its thread.
    os._exit(0)


if __name__ == "__main__":
    main()
