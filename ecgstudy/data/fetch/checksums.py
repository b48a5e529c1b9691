"""The publisher's SHA256SUMS.txt: read with suspicion, because its paths become paths on this machine."""

import re
from fnmatch import fnmatchcase

from ecgstudy.data.fetch.sources import MIRROR_VARIABLE, Source
from ecgstudy.errors import StudyError

INDEX = "SHA256SUMS.txt"
_INDEX_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]?(\S.*)")


def parse_index(text: bytes, origin: str) -> dict[str, str]:
    """Read a publisher's list of checksums.

    Parameters
    ----------
    text : bytes
        Content of SHA256SUMS.txt: one ``<sha256> <path>`` a line.
    origin : str
        Its address, for messages.

    Returns
    -------
    dict of str to str
        Path (relative, with ``/``) to lower-case SHA-256.

    Raises
    ------
    StudyError
        It is something else (an error page), lists nothing, or names a path that leads out of its folder.
    """
    checksums: dict[str, str] = {}
    # a byte that is not UTF-8 becomes a character that no path or checksum may hold, and is refused below
    for number, line in enumerate(text.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _INDEX_LINE.fullmatch(line)
        if match is None:
            raise StudyError(
                f"{origin} is not a list of SHA-256 checksums (line {number}); check the address, "
                f"which {MIRROR_VARIABLE} sets, and whether a proxy answers in its place."
            )
        path = match[2]
        if not _stays_inside(path):
            raise StudyError(
                f"{origin} names a file outside the cohort's folder ({path!r}); "
                "nothing was downloaded, do not trust this server."
            )
        if checksums.setdefault(path, match[1].lower()) != match[1].lower():
            raise StudyError(f"{origin} gives two checksums for {path}; download from another mirror.")
    return checksums


def _stays_inside(path: str) -> bool:
    """Whether a published path is plain and relative on every system (no drive, no backslash, no "..")."""
    plain = path.isprintable() and not set(path) & set("\\:\N{REPLACEMENT CHARACTER}")
    return plain and all(part not in ("", ".", "..") for part in path.split("/"))


def wanted(source: Source, checksums: dict[str, str], full: bool) -> dict[str, str]:
    """Keep the files that the study reads; refuse a list that cannot be whole."""

    def chosen(patterns: tuple[str, ...]) -> dict[str, str]:
        return {p: sha256 for p, sha256 in checksums.items() if any(fnmatchcase(p, pattern) for pattern in patterns)}

    needed = chosen(source.needed)
    if len(needed) < source.min_files:
        raise StudyError(
            f"{INDEX} of {source.project} {source.version} lists {len(needed)} of at least {source.min_files} "
            f"needed files, so it is not whole; check the address, which {MIRROR_VARIABLE} sets."
        )
    return needed | chosen(source.optional) if full else needed
