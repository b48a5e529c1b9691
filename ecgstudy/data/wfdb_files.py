"""Safe reading of WFDB records: every claim of a header is checked before a sample is read.

A header can be wrong or hostile, so nothing it says is believed: a signal file must lie inside the cohort's folder
and have exactly the size that the header implies, which also bounds the memory that reading takes. Grammar and
decoding are wfdb's (its compiled patterns, its reader); only records in one plain 16-bit file, the layout of PTB-XL,
ECG-ID, LUDB and most exports, go straight through numpy: ``wfdb.rdrecord`` spends two milliseconds on a header.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb
from wfdb.io.header import parse_header_content, rx_record, rx_segment, rx_signal

from ecgstudy.data.base import Signal
from ecgstudy.errors import RecordError

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
UNCALIBRATED = "uncalibrated"
"""Unit of a signal whose header gives no gain: its amplitude is not known (header(5), "gain 0")."""
FS_RANGE = (10.0, 100_000.0)
"""Sampling rates, Hz, that an ECG can plausibly have; a rate outside is taken for a damaged header."""
MAX_HEADER_BYTES = 1 << 20
MAX_VALUES = 1 << 28
"""Samples times leads of a multi-segment record: its gaps take memory that no file size bounds."""

_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}
_PACKED = ("212", "310", "311")
_INVALID_16 = -(2**15)
_KNOWN_LEADS = {name.lower(): name for name in (*STANDARD_LEADS, "MLI", "MLII", "MLIII")}


class Channel(NamedTuple):
    """One signal line of a header: lead name, unit, and how its samples are stored."""

    lead: str
    unit: str
    file: str
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int


@dataclass(frozen=True)
class Header:
    """A checked header; `channels` of a multi-segment record are those of its layout or first segment."""

    path: Path
    fs: float  # Hz
    n_samples: int
    n_leads: int
    channels: tuple[Channel, ...]
    comments: tuple[str, ...]
    segments: tuple["Header", ...] = ()  # those of a multi-segment record that hold signals
    parts: tuple[str, ...] = ()  # record names of all its segments, layout and gaps included

    @property
    def leads(self) -> tuple[str, ...]:
        """Lead names, standard ones in their standard spelling."""
        return tuple(channel.lead for channel in self.channels)


def standard_lead(name: str) -> str:
    """Field spelling of a lead name ("avr", "AVR" or "ECG aVR" -> "aVR"); other names stay as they are."""
    name = name.strip()
    return _KNOWN_LEADS.get(re.sub(r"^(ecg|lead)\s+", "", name.lower()), name)


def common_unit(channels: Sequence[Channel]) -> str:
    """Name the unit of `channels`; "mixed (mV, mmHg)" where they do not share one."""
    units = tuple(dict.fromkeys(channel.unit for channel in channels))
    return units[0] if len(units) == 1 else f"mixed ({', '.join(units)})"


def checked_path(path: Path, root: Path) -> Path:
    """Resolve `path`; :class:`RecordError` unless it is a file inside `root`, links followed, that may be read."""
    real = os.path.realpath(path)
    if not real.startswith(os.path.realpath(root) + os.sep):
        raise RecordError(path, "leads outside the cohort's folder", "put the file itself inside that folder")
    file = Path(real)
    # unlike Path.exists, this answers False where a folder may not be searched
    if not os.access(file, os.F_OK):
        raise RecordError(path, "is missing")
    if not file.is_file():
        raise RecordError(path, "is not a regular file")
    if not os.access(file, os.R_OK):
        raise RecordError(path, "may not be read", "give yourself permission to read it")
    return file


def read_header(path: Path, root: Path) -> Header:
    """Read and check one header; :class:`RecordError` where it is damaged or lies, or leads outside `root`."""
    header = _parse_header(path, root)
    if header.n_samples < 1:
        raise RecordError(path, "claims to hold no samples")
    return _with_segments(header, root) if header.parts else header


def _header_text(path: Path, root: Path) -> str:
    """Text of a header exactly as wfdb decodes it, refused where that would lose characters that matter."""
    real = checked_path(path, root)
    if real.stat().st_size > MAX_HEADER_BYTES:
        raise RecordError(path, "is too large for a header")
    raw = real.read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise RecordError(path, "is not UTF-8 text", "save the header as UTF-8, or download it again") from None
    if not text.isascii() and any(
        not line.isascii() and not line.lstrip().startswith("#") for line in text.splitlines()
    ):
        raise RecordError(path, "has characters outside ASCII", "write them in ASCII, such as uV for the microvolt")
    return raw.decode("ascii", errors="ignore")


def _parse_header(path: Path, root: Path) -> Header:
    """Parse one file by wfdb's grammar, but strictly: what wfdb would replace by a default is refused."""
    lines, comments = parse_header_content(_header_text(path, root))
    if not lines:
        raise RecordError(path, "is empty")
    match = rx_record.fullmatch(lines[0])
    if match is None:
        raise RecordError(path, f"starts with a line that is no WFDB record line ({lines[0][:40]!r})")
    try:
        fs, n_samples, n_leads = float(match["fs"]), int(match["sig_len"]), int(match["n_sig"])
    except ValueError:
        raise RecordError(path, "states no sampling rate or no number of samples in its first line") from None
    if match["record_name"] != path.stem:
        raise RecordError(path, f"calls itself {match['record_name']}", "give header and file the same name")
    if not FS_RANGE[0] <= fs <= FS_RANGE[1]:
        raise RecordError(path, f"claims a sampling rate of {fs:g} Hz")
    multi = bool(match["n_seg"])
    parts = _segment_names(path, lines[1:], int(match["n_seg"]), n_samples) if multi else ()
    channels = () if multi else _channels(path, lines[1:], n_leads)
    comments = tuple(line.strip(" \t#") for line in comments)
    return Header(path, fs, n_samples, n_leads, channels, comments, parts=parts)


def _channels(path: Path, lines: Sequence[str], n_leads: int) -> tuple[Channel, ...]:
    """Parse the signal lines; their number must be the one that the first line claims."""
    if len(lines) != n_leads or n_leads == 0:
        raise RecordError(path, f"claims {n_leads} leads but describes {len(lines)}")
    channels = tuple(_channel(path, line, number) for number, line in enumerate(lines, start=1))
    if len({channel.lead for channel in channels}) < n_leads:
        raise RecordError(path, "gives two leads the same name", "give each lead a name of its own in the header")
    return channels


def _channel(path: Path, line: str, number: int) -> Channel:
    """Parse one signal line; a missing gain or a gain of 0 makes the unit unknown, not mV."""
    name = line.split()[0]
    if "/" in name or "\\" in name or not name.strip("."):
        raise RecordError(path, f"names a signal file outside its own folder ({name[:60]})", "do not trust this record")
    match = rx_signal.match(line)
    if match is None:
        raise RecordError(path, f"has a line that is no WFDB signal line ({line[:40]!r})")
    try:
        gain = float(match["adc_gain"] or 0)
        baseline = int(match["baseline"] or match["adc_zero"] or 0)
        frame = int(match["samps_per_frame"] or 1)
        skew, offset = int(match["skew"] or 0), int(match["byte_offset"] or 0)
    except ValueError:
        raise RecordError(path, f"has a malformed number in a signal line ({line[:40]!r})") from None
    if frame < 1 or not math.isfinite(gain):
        raise RecordError(path, f"has an impossible number in a signal line ({line[:40]!r})")
    unit = (match["units"] or "mV") if gain else UNCALIBRATED
    lead = standard_lead(match["sig_name"]) or f"channel {number}"
    return Channel(lead, unit, name, match["fmt"], frame, skew, offset, gain or 200.0, baseline)


def _segment_names(path: Path, lines: Sequence[str], n_segments: int, n_samples: int) -> tuple[str, ...]:
    """Check the segment lines of a multi-segment header against its first line; names without their lengths."""
    matches = [rx_segment.fullmatch(line) for line in lines]
    if None in matches or len(lines) != n_segments:
        raise RecordError(path, f"claims {n_segments} segments but does not describe them")
    total = sum(int(match["seg_len"]) for match in matches)
    if total != n_samples:
        raise RecordError(path, f"claims {n_samples} samples but its segments add up to {total}")
    return tuple(match["seg_name"] for match in matches)


def _with_segments(header: Header, root: Path) -> Header:
    """Read the segments of a multi-segment header and check that they fit together."""
    path = header.path
    segments = [_parse_header(path.with_name(f"{name}.hea"), root) for name in header.parts if name != "~"]
    holding = tuple(segment for segment in segments if segment.n_samples)
    if not holding or any(segment.parts for segment in segments):
        raise RecordError(path, "has no segment with signals, or segments within segments")
    channels = segments[0].channels
    units = {channel.lead: channel.unit for channel in channels}
    for segment in holding:
        if segment.fs != header.fs:
            raise RecordError(segment.path, f"is sampled at {segment.fs:g} Hz, its record at {header.fs:g} Hz")
        if any(units.get(channel.lead) != channel.unit for channel in segment.channels):
            raise RecordError(segment.path, f"has a lead or a unit that {path.name} does not announce")
    if header.n_leads != len(channels):
        raise RecordError(path, f"claims {header.n_leads} leads but its segments hold {len(channels)}")
    if header.n_samples * header.n_leads > MAX_VALUES:
        raise RecordError(path, f"claims {header.n_samples} samples of {header.n_leads} leads", "split the record")
    return replace(header, channels=channels, segments=holding)


def signal_files(header: Header) -> list[Path]:
    """Files that a record is made of, beside its own header: signal files and segment headers."""
    own = header.segments or (header,)
    files = [part.path.with_name(channel.file) for part in own for channel in part.channels]
    return files + [header.path.with_name(f"{name}.hea") for name in header.parts if name != "~"]


def read_signal(header: Header, root: Path, channels: Sequence[int] | None = None) -> Signal:
    """Read the samples of one record, or of some of its channels, in the header's unit; invalid samples are NaN.

    A :class:`RecordError` says which signal file is missing, truncated, oversized, of an unknown format or outside
    `root`, the folder that nothing may be read outside of.
    """
    for part in header.segments or (header,):
        _check_signal_files(part, root)
    keep = list(range(len(header.channels)) if channels is None else channels)
    values = _read_plain_16(header, keep) if _is_plain_16(header) else _read_with_wfdb(header, keep)
    chosen = [header.channels[position] for position in keep]
    return Signal(values, header.fs, tuple(channel.lead for channel in chosen), common_unit(chosen))


def _check_signal_files(header: Header, root: Path) -> None:
    """Every signal file of one segment: inside `root`, of a known format, as long as the header says."""
    for name in dict.fromkeys(channel.file for channel in header.channels):
        members = [channel for channel in header.channels if channel.file == name]
        if len({(channel.fmt, channel.byte_offset) for channel in members}) > 1:
            raise RecordError(header.path, f"describes {name} in two ways")
        if any(channel.skew > header.n_samples for channel in members):
            raise RecordError(header.path, f"shifts a lead of {name} by more than the record's length")
        path, fmt = header.path.with_name(name), members[0].fmt
        if fmt not in _BITS:
            remedy = "convert it to format 16 (wfdb.wrsamp, or xform of the WFDB tools)"
            raise RecordError(path, f"is in WFDB format {fmt}, whose size cannot be checked", remedy)
        n_values = header.n_samples * sum(channel.samples_per_frame for channel in members)
        expected = members[0].byte_offset + math.ceil(n_values * _BITS[fmt] / 8)
        spare = checked_path(path, root).stat().st_size - expected
        # Writers of packed formats may fill up their last group of bytes.
        if not 0 <= spare <= (3 if fmt in _PACKED else 0):
            problem = "shorter" if spare < 0 else "longer"
            raise RecordError(path, f"is {abs(spare)} bytes {problem} than its header says")


def _is_plain_16(header: Header) -> bool:
    """Whether all leads lie sample by sample in one 16-bit file, so that numpy can read it alone."""
    one_way = {(channel.file, channel.fmt, channel.samples_per_frame, channel.skew) for channel in header.channels}
    return not header.segments and one_way == {(header.channels[0].file, "16", 1, 0)}


def _read_plain_16(header: Header, keep: Sequence[int]) -> np.ndarray:
    """Decode format 16 as wfdb does: (sample - baseline) / gain in float64, -32768 means invalid."""
    first = header.channels[0]
    raw = np.fromfile(header.path.with_name(first.file), dtype="<i2", offset=first.byte_offset)
    raw = raw.reshape(header.n_samples, len(header.channels)).T[keep]
    chosen = [header.channels[position] for position in keep]
    baseline, gain = np.array([(channel.baseline, channel.gain) for channel in chosen], dtype=np.float64).T[..., None]
    values = ((raw - baseline) / gain).astype(np.float32)
    values[raw == _INVALID_16] = np.nan
    return values


def _read_with_wfdb(header: Header, keep: Sequence[int]) -> np.ndarray:
    """Decode any other layout by wfdb itself."""
    try:
        record = wfdb.rdrecord(str(header.path.with_suffix("")), channels=list(keep))
        values = np.ascontiguousarray(record.p_signal.T, dtype=np.float32)
    # wfdb lets through whatever numpy or Python raise on a file that breaks its assumptions.
    except Exception as error:
        raise RecordError(header.path, f"cannot be decoded by wfdb ({type(error).__name__})") from error
    if values.shape != (len(keep), header.n_samples):
        raise RecordError(header.path, f"decodes to shape {values.shape}, which its header does not announce")
    return values


def read_annotation(path: Path, root: Path, n_samples: int) -> wfdb.Annotation:
    """Read an annotation file ("100.atr") inside `root`; one that is damaged or marks no sample is refused."""
    checked_path(path, root)
    try:
        annotation = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    # wfdb lets through whatever numpy or Python raise on a damaged file.
    except Exception as error:
        raise RecordError(path, f"is no WFDB annotation file ({type(error).__name__})") from error
    if len(annotation.sample) and not 0 <= annotation.sample.min() <= annotation.sample.max() < n_samples:
        raise RecordError(path, "marks a place outside its record")
    return annotation
