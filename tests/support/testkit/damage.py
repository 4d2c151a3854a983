"""What happens to files: they turn into garbage, are cut short, or are overwritten in places."""

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, good: bytes, longest_garbage: int = 300) -> bytes:
    """A file's bytes after one of these."""
    raw = bytearray(good)
    kind = draw(st.sampled_from(["garbage", "cut", "overwritten"]))
    if kind == "garbage":
        return draw(st.binary(max_size=longest_garbage))
    if kind == "cut":
        return good[: draw(st.integers(0, len(good)))]
    for _ in range(draw(st.integers(1, 8))):
        patch = draw(st.binary(min_size=1, max_size=16))
        place = draw(st.integers(0, len(raw) - len(patch)))
        raw[place : place + len(patch)] = patch
    return bytes(raw)
