"""Every byte of a folder of outputs, unpacked: what a reader with patience can find in it."""

import base64
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{64,}={0,2}")
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-32-le")
"""Of text, of old files, of databases, and of numpy's arrays."""


def written(text: str) -> set[bytes]:
    """How a text may stand in a file, in small letters: in each encoding, and with a JSON's or URL's escapes."""
    small = text.lower()
    forms = {small.encode(encoding) for encoding in _ENCODINGS}
    return forms | {json.dumps(small)[1:-1].encode(), quote(small).lower().encode()}


def numbers(value: int) -> set[bytes]:
    """How a whole number may stand in an array of numbers of eight bytes."""
    return {struct.pack(form, value) for form in ("<q", ">q", "<d", ">d")}


def unpacked(content: bytes) -> Iterator[bytes]:
    """Give the content itself, and what is in it where it is compressed, an archive, a table, an image or Base64."""
    yield content
    inner = []
    with suppress(OSError, EOFError, zlib.error):
        inner.append(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else zlib.decompress(content))
    if content[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(content))
        yield f"{table.schema}\n{table.schema.metadata}\n{table.to_pydict()}".encode()
    elif content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inner += [part.filename.encode() + b"\n" + archive.read(part) for part in archive.infolist()]
            inner += [archive.read(part) for part in archive.infolist()]
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        inner += _png_texts(content)
    else:
        runs = [match[0] for match in _BASE64.finditer(content) if len(match[0]) % 4 == 0]
        inner += [base64.b64decode(run.translate(bytes.maketrans(b"-_", b"+/"))) for run in runs]
    for part in inner:
        yield from unpacked(part)


def _png_texts(content: bytes) -> Iterator[bytes]:
    """Whatever an image holds beside its picture."""
    at = 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] != b"IDAT":
            chunk = content[at + 8 : at + 8 + size]
            yield chunk
            with suppress(zlib.error):
                yield zlib.decompress(chunk.partition(b"\0")[2][1:])
        at += 12 + size


def found_in(folder: Path, needles: Sequence[bytes], but: Sequence[Path] = ()) -> dict[str, set[bytes]]:
    """Needles that a file's or folder's name or any of its bytes hold, by path; those in `but` are not looked at."""
    pattern = re.compile(b"|".join(map(re.escape, needles)))
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(path.is_relative_to(left_out) for left_out in but):
            continue
        name = path.relative_to(folder).as_posix()
        parts = [
            *unpacked(name.encode(errors="surrogateescape")),
            *(unpacked(path.read_bytes()) if path.is_file() else ()),
        ]
        if hits := {hit for part in parts for text in (part, part.lower()) for hit in pattern.findall(text)}:
            found[name] = hits
    return found
