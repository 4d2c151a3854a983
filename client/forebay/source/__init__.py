"""Object stores behind one Protocol: one module per backend."""

from forebay.source.base import Digest, Digesting, InvalidCredentials, Listing, Source, Streaming
from forebay.source.grant import Grant
from forebay.source.location import Location, parse_source
from forebay.source.meter import Meter
from forebay.source.opening import open_source

__all__ = [
    "Digest", "Digesting", "Grant", "InvalidCredentials", "Listing", "Location", "Meter", "Source", "Streaming",
    "open_source", "parse_source",
]  # fmt: skip
