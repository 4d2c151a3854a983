"""What a web server says of its files: a folder's index page, in HTML or JSON, or a manifest.

An index page is what nginx's ``autoindex``, Apache's ``mod_autoindex`` or ``python -m http.server`` send. A manifest
has one file per line: its path, or a JSON object ``{"path", "size", "etag"}`` that spares a request for each file.
"""

import html.parser
import json
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from typing_extensions import override

from forebay_protocol.errors import SourceInvalid


class Found(NamedTuple):
    """One name of a page or a manifest; ``hint`` changes whenever the file does, and is empty where nobody can tell."""

    name: str
    is_folder: bool
    hint: str = ""
    size: int | None = None
    etag: str = ""


class _Links(html.parser.HTMLParser):
    """Collects where links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def parse_page(text: bytes, content_type: str, path: str) -> list[Found]:
    """The files and folders directly below ``path``, the percent-encoded path of the page, which ends with a slash."""
    if "json" in content_type:
        return _from_json(text)
    if "html" not in content_type:
        raise SourceInvalid(
            f"{path} is a {content_type or 'nameless'} page and no index of a folder; let the server list its folders "
            "(autoindex), or name a manifest"
        )
    links = _Links()
    links.feed(text.decode("utf-8", "replace"))
    found = {name: name for target in links.targets if (name := _child(target, path))}
    return [Found(unquote(name.rstrip("/")), name.endswith("/")) for name in found]


def _child(target: str, path: str) -> str:
    """The encoded name below ``path`` that a link leads to; empty when it leads elsewhere or sorts the page."""
    parts = urlsplit(urljoin(path, target))
    if urlsplit(target).netloc or parts.query or parts.fragment or not parts.path.startswith(path):
        return ""
    below = parts.path[len(path) :]
    return below if _is_plain(unquote(below.rstrip("/"))) and below.count("/") <= below.endswith("/") else ""


def _from_json(text: bytes) -> list[Found]:
    try:
        entries: Any = json.loads(text)
        found = [
            Found(str(entry["name"]), entry["type"] == "directory", f"{entry.get('mtime', '')} {entry.get('size', '')}")
            for entry in entries if entry["type"] in ("file", "directory")
        ]  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceInvalid("the folder's JSON index is not of the form that nginx's autoindex has") from error
    return [one for one in found if _is_plain(one.name)]


def parse_manifest(text: bytes) -> list[Found]:
    """The files of a manifest."""
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise SourceInvalid("the manifest is no text in UTF-8") from error
    return [_manifest_line(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _manifest_line(number: int, line: str) -> Found:
    try:
        raw: Any = json.loads(line) if line.startswith("{") else {"path": line}
        size = None if raw.get("size") is None else int(raw["size"])
        one = Found(str(raw["path"]), is_folder=False, size=size, etag=str(raw.get("etag", "")))
    except (ValueError, TypeError, KeyError) as error:
        raise SourceInvalid(f"line {number} of the manifest is neither a path nor an object with a path") from error
    if not all(map(_is_plain, one.name.split("/"))) or (size is not None and size < 0):
        raise SourceInvalid(f"line {number} of the manifest: paths are relative, without empty, '.' or '..' components")
    return one


def _is_plain(name: str) -> bool:
    told = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    return told and not any("\ud800" <= letter <= "\udfff" for letter in name)
