"""Which version of an object a source has now: asked for at every open where a Dataset wants that (``OnOpen``)."""

from forebay.source.base import Listing, Source
from forebay_protocol.errors import InvalidRequest, ObjectChanged, ObjectMissing
from forebay_protocol.keys import ObjectVersion


def newest(source: Source, prefix: str, one: ObjectVersion) -> Listing | None:
    """The object as the source has it now; None when it is gone. ``prefix`` is what all keys of the mount begin with.

    A byte that is asked for on condition of the version tells whether that is still in force, with every kind of
    source. Only where it is not, or the object is empty, the folder is listed as far as the object.
    """
    if not one.key.startswith(prefix):
        raise InvalidRequest("the key lies outside of its mount")
    if one.size:
        try:
            source.read_into(one.key, one.version, one.size, 0, memoryview(bytearray(1)))
        except ObjectMissing:
            return None
        except ObjectChanged:
            pass
        else:
            return Listing(one.key, one.size, one.version, 0)
    below = one.key[len(prefix) :]
    folder = below[: below.rfind("/") + 1]
    return next((found for found in source.list(folder, delimiter=True) if found.key == one.key), None)
