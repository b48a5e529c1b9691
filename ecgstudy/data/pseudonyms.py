"""The key of the study's pseudonyms: made once, beside the data, and neither lost nor exchanged unnoticed."""

import hashlib
import hmac
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import METRICS, write_text
from ecgstudy.study.config import PROFILES, cache_dir, is_own, results_dir

KEY = "pseudonym.key"
"""File beside the data, 64 hexadecimal digits: whoever has it can find out whose pseudonym is whose."""
SIGN = ".pseudonym-key"
"""File in a profile's results and cache: a fingerprint of the key of their pseudonyms, which tells nothing of it."""


def pseudonym_key(folder: Path) -> bytes:
    """Key of the study's pseudonyms, made once beside the data; see :func:`key_in`.

    :class:`StudyError` where it is missing, or another one than before, beside results or a cache made with it: nobody
    could tell any more whom their pseudonyms mean.
    """
    path, left = folder / KEY, _with_pseudonyms()
    if not os.access(path, os.F_OK) and left:
        raise StudyError(
            f"{path} is missing, and {' and '.join(left)} hold pseudonyms that were made with it: put the key back or, "
            "where it is lost, delete these folders, whose patients nobody can name any more, and begin with a new key."
        )
    key = key_in(path)
    if others := [place for place, sign in left.items() if sign not in ("", _fingerprint(key))]:
        raise StudyError(
            f"{path} is not the key that made the pseudonyms in {' and '.join(others)}: put that key back or, where it "
            "is lost, delete these folders, whose patients nobody can name any more, and begin with this key."
        )
    return key


def sign(profile: str, folder: Path) -> None:
    """Leave the key's fingerprint where a profile's pseudonyms are about to lie, so that another key is noticed."""
    told = _fingerprint(pseudonym_key(folder))
    for place in (results_dir(profile), cache_dir(profile)):
        if _signed(place) != told:
            write_text(place / SIGN, told)


def _with_pseudonyms() -> dict[str, str]:
    """Folders of results and caches that hold pseudonyms, and the fingerprint of their key, "" where there is none."""
    own = filter(is_own, PROFILES)
    places = {
        place(name): made for name in own for place, made in ((results_dir, f"*/{METRICS}"), (cache_dir, "store-*"))
    }
    return {str(place): _signed(place) for place, made in places.items() if any(place.glob(made))}


def _signed(place: Path) -> str:
    """Fingerprint that a folder holds; "" where it holds none."""
    file = place / SIGN
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _fingerprint(key: bytes) -> str:
    """64 bits, hexadecimal, that tell a key from others."""
    return hmac.new(key, b"fingerprint", hashlib.sha256).hexdigest()[:16]


def key_in(path: Path) -> bytes:
    """Key that a file holds, made where there is none; :class:`StudyError` where it can be neither read nor made."""
    try:
        if not path.exists():
            _make_key(path)
        written = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise StudyError(
            f"{path} holds the key of your patients' pseudonyms and can be neither read nor made ({error.strerror}); "
            "make the folder writable, or put the key back."
        ) from error
    if not re.fullmatch("[0-9a-fA-F]{64}", written):
        raise StudyError(f"{path} does not hold 64 hexadecimal digits; put back the key that was there.")
    return bytes.fromhex(written)


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all, unless another process was first."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f"{KEY}.") as fresh:
        fresh.write(key := secrets.token_hex(32))
        fresh.flush()
        os.fsync(fresh.fileno())
        try:
            os.link(fresh.name, path)
        except FileExistsError:
            pass
        except OSError:  # a USB stick knows no links
            with suppress(FileExistsError), open(path, "x", opener=_for_the_owner) as handle:
                handle.write(key)
                handle.flush()
                os.fsync(handle.fileno())


def _for_the_owner(path: str, flags: int) -> int:
    """Open a file that nobody else may read, whatever the umask."""
    return os.open(path, flags, 0o600)
