"""Which source a mount names: its scheme decides."""

from forebay.limits import OPEN, Gate
from forebay.source.base import Source
from forebay.source.counted import CountedSource
from forebay.source.grant import NOTHING, Grant
from forebay.source.location import parse_source
from forebay.source.meter import Meter
from forebay_protocol.dataset import Credentials, MountSpec
from forebay_protocol.errors import InvalidRequest


def open_source(
    mount: MountSpec,
    credentials: Credentials | None,
    gate: Gate = OPEN,
    grant: Grant = NOTHING,
    meter: Meter | None = None,
) -> Source:
    """The source that a mount names; InvalidRequest when its scheme is not known or its fields make no sense.

    ``gate``: the mount's limits; ``grant``: what the source may use of this process; ``meter``: told what it reads.
    """
    scheme, meter = parse_source(mount.source).scheme, meter or Meter()
    if scheme == "s3":
        from forebay.source.s3 import S3Source

        return S3Source(mount, credentials, gate, grant, meter)
    if not grant.one_tenant:
        raise InvalidRequest(
            f"mount {mount.name}: {scheme}:// is read by the Runtime's workers only, as the tenant whose they are; "
            "let at least one worker run"
        )
    match scheme:
        case "http" | "https":
            from forebay.source.web import WebSource

            return WebSource(mount, gate, meter)
        case "pvc":
            from forebay.source.folder import FolderSource

            return CountedSource(FolderSource(mount, grant), gate, meter)
        case _:
            from forebay.source.plugin import open_plugin

            return CountedSource(open_plugin(mount, credentials), gate, meter)
