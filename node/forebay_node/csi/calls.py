"""gRPC methods out of plain ones: a request in, an answer or an error's code out.

The services are registered by tables of such methods, so that only messages are generated code.
"""

import logging
from collections.abc import Callable
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from forebay_node.volumes import VolumeBusy, VolumeNotFound, VolumeNotStaged
from forebay_protocol.errors import ForebayError, InvalidRequest, Unauthorized, WorkerUnavailable

In = TypeVar("In", bound=Message)
Out = TypeVar("Out", bound=Message)

_CODES: tuple[tuple[type[ForebayError], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (VolumeBusy, grpc.StatusCode.ABORTED),
    (VolumeNotStaged, grpc.StatusCode.FAILED_PRECONDITION),
    (VolumeNotFound, grpc.StatusCode.NOT_FOUND),
    (Unauthorized, grpc.StatusCode.UNAUTHENTICATED),
    (WorkerUnavailable, grpc.StatusCode.UNAVAILABLE),
)

_log = logging.getLogger(__name__)


def status_code(error: ForebayError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def unary(request_type: type[In], method: Callable[[In], Out]) -> "grpc.RpcMethodHandler[In, Out]":
    """Wrap a method that raises ForebayError or OSError into a gRPC handler."""

    def behaviour(request: In, context: grpc.ServicerContext) -> Out:
        try:
            return method(request)
        except ForebayError as error:
            _refuse(context, status_code(error), error.message, request)
        except OSError as error:
            _refuse(context, grpc.StatusCode.INTERNAL, f"{error.strerror}: {error.filename}", request)

    return grpc.unary_unary_rpc_method_handler(
        behaviour, request_deserializer=request_type.FromString, response_serializer=lambda out: out.SerializeToString()
    )


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, request: Message) -> NoReturn:
    # Only the request's kind: its fields hold secrets.
    _log.warning("%s: %s: %s", type(request).__name__, code.name, message)
    context.abort(code, message)
    raise AssertionError("abort returns never")
