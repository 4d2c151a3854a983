"""Object stores behind one Protocol: one module per backend."""

from forebay.source.base import InvalidCredentials, Listing, Source, open_source
from forebay.source.location import Location, parse_source

__all__ = ["InvalidCredentials", "Listing", "Location", "Source", "open_source", "parse_source"]
