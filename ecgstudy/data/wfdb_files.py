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

from ecgstudy.data.base import STANDARD_LEADS, Signal
from ecgstudy.errors import AGAIN, RecordError

UNCALIBRATED = "uncalibrated"
"""Unit of a signal whose header gives no gain: its amplitude is not known (header(5), "gain 0")."""
FS_RANGE = (10.0, 100_000.0)
"""Sampling rates, Hz, that an ECG can plausibly have; a rate outside is taken for a damaged header."""
MAX_HEADER_BYTES = 1 << 20
MAX_LINE, MAX_BLANKS = 1000, 50
"""Characters of a header's line, and blanks in a row: more of them keep wfdb's expressions busy for minutes."""
MAX_VALUES = 1 << 27
"""Samples times leads of a record: half a gigabyte, or two days of three leads at 250 Hz."""
TOO_LARGE = f"claims more than {MAX_VALUES:,} samples"
MOST_AT_ONCE = 1 << 24
"""Samples that are decoded at a time, for the sake of memory."""
MAX_SEGMENTS = 2000
MAX_GAP_SHARE = 0.9
"""Part of a multi-segment record that may be gaps, which take memory that no file size bounds."""

_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}
_REAL = r"\d*+\.?\d*+"
_RATE = rf"{_REAL}(?:/-?{_REAL}(?:\(-?{_REAL}\))?)?|-{_REAL}"
_RECORD_FIELDS = re.compile(rf"[-\w]++(?:/\d*+)? \d++(?: (?:{_RATE})(?: \d++)?)?")
"""What the first four fields of a header may be: wfdb's own expression tries every way to share out their digits."""
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
    checksum: int | None = None  # 16-bit sum of all samples


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


def _refuse(wrong: bool, file: Path, reason: str, remedy: str = AGAIN, detail: str = "") -> None:
    """Raise :class:`RecordError` about a file where something is `wrong`; what a header says is `detail`."""
    if wrong:
        raise RecordError(file, reason, remedy, detail)


def checked_path(path: Path, root: Path) -> Path:
    """Resolve `path`; :class:`RecordError` unless it is a file inside `root`, links followed, that may be read."""
    file = Path(os.path.realpath(path))
    inside = str(file).startswith(os.path.realpath(root) + os.sep)
    _refuse(not inside, path, "leads outside the cohort's folder", "put the file itself inside that folder")
    # unlike Path.exists, this answers False where a folder may not be searched
    if not os.access(file, os.F_OK):
        spelt = (path.with_suffix(path.suffix.swapcase()).name, path.name.lower(), path.name.upper())
        nearly = any(os.access(path.with_name(name), os.F_OK) for name in spelt)
        alike = "give the file's name the same capitals where it is mentioned"
        _refuse(nearly, path, "is missing, but there is a file whose name differs in capitals only", alike)
        _refuse(True, path, "is missing")
    _refuse(not file.is_file(), path, "is not a regular file")
    _refuse(not os.access(file, os.R_OK), path, "may not be read", "give yourself permission to read it")
    return file


def read_header(path: Path, root: Path) -> Header:
    """Read and check one header; :class:`RecordError` where it is damaged or lies, or leads outside `root`."""
    header = _parse_header(path, root)
    _refuse(header.n_samples < 1, path, "claims to hold no samples")
    return _with_segments(header, root) if header.parts else header


def _header_text(path: Path, root: Path) -> str:
    """Text of a header exactly as wfdb decodes it, refused where that would lose characters that matter."""
    real = checked_path(path, root)
    _refuse(real.stat().st_size > MAX_HEADER_BYTES, path, "is too large for a header")
    text = real.read_bytes().decode("utf-8-sig", errors="replace")
    lost = any(not line.isascii() and not line.lstrip().startswith("#") for line in text.splitlines())
    _refuse(lost, path, "has characters outside ASCII", "write them in ASCII, such as uV for the microvolt")
    return text.encode("ascii", errors="ignore").decode()


def _parse_header(path: Path, root: Path) -> Header:
    """Parse one file by wfdb's grammar, but strictly: what wfdb would replace by a default is refused."""
    small = "end the names of header and signal file in small letters, inside the header too"
    _refuse(path.suffix != ".hea", path, "ends in capitals, which WFDB does not read", small)
    lines, comments = parse_header_content(_header_text(path, root))
    _refuse(not lines, path, "is empty")
    long = any(len(line) > MAX_LINE or " " * MAX_BLANKS in line.expandtabs(1) for line in lines)
    _refuse(long, path, f"has a line of more than {MAX_LINE} characters, or {MAX_BLANKS} blanks in a row")
    remedy = "name header and signal file with letters, digits, - and _ only, inside the header too"
    _refuse(re.search(r"[^-\w]", path.stem) is not None, path, "has a name that WFDB does not allow", remedy)
    # The challenges of 2020 write date and time in an order that wfdb's grammar does not know; neither is asked.
    first = " ".join(lines[0].split()[:4])
    match = rx_record.fullmatch(first) if _RECORD_FIELDS.fullmatch(first) else None
    _refuse(match is None, path, "starts with a line that is no WFDB record line", detail=lines[0])
    try:
        fs, n_samples, n_leads = float(match["fs"]), int(match["sig_len"]), int(match["n_sig"])
    except ValueError:
        raise RecordError(path, "states no sampling rate or no number of samples in its first line") from None
    name = match["record_name"]
    _refuse(name != path.stem, path, "calls itself by another name", "give header and file the same name", name)
    _refuse(not FS_RANGE[0] <= fs <= FS_RANGE[1], path, "claims a sampling rate that no ECG has", detail=f"{fs:g} Hz")
    too_large = n_samples * n_leads > MAX_VALUES
    _refuse(too_large, path, TOO_LARGE, "split the record", f"{n_samples} x {n_leads}")
    comments = tuple(line.strip(" \t#") for line in comments)
    if match["n_seg"]:
        parts = _segment_names(path, lines[1:], int(match["n_seg"]), n_samples)
        return Header(path, fs, n_samples, n_leads, (), comments, parts=parts)
    n_lines = len(lines) - 1
    told = "describes no leads, or not as many as it claims"
    _refuse(n_lines != n_leads or n_leads == 0, path, told, detail=f"{n_leads}, {n_lines}")
    channels = tuple(_channel(path, line, number) for number, line in enumerate(lines[1:], start=1))
    header = Header(path, fs, n_samples, n_leads, channels, comments)
    remedy = "give each lead a name of its own in the header"
    _refuse(len(set(header.leads)) < n_leads, path, "gives two leads the same name", remedy)
    return header


def _channel(path: Path, line: str, number: int) -> Channel:
    """Parse one signal line; a missing gain or a gain of 0 makes the unit unknown, not mV."""
    name = line.split()[0]
    outside = "/" in name or "\\" in name or not name.strip(".")
    _refuse(outside, path, "names a signal file outside its own folder", "do not trust this record", name)
    foreign = name.rpartition(".")[0] != path.stem and os.access(path.with_name(name).with_suffix(".hea"), os.F_OK)
    _refuse(foreign, path, "names the signal file of another record", detail=name)
    match = rx_signal.match(line)
    _refuse(match is None, path, "has a line that is no WFDB signal line", detail=line)
    try:
        gain = float(match["adc_gain"] or 0)
        baseline = int(match["baseline"] or match["adc_zero"] or 0)
        frame = int(match["samps_per_frame"] or 1)
        skew, offset = int(match["skew"] or 0), int(match["byte_offset"] or 0)
        checksum = int(match["checksum"]) if match["checksum"] else None
    except ValueError:
        raise RecordError(path, "has a malformed number in a signal line", AGAIN, line) from None
    _refuse(frame < 1 or not math.isfinite(gain), path, "has an impossible number in a signal line", detail=line)
    unit = (match["units"] or "mV") if gain else UNCALIBRATED
    lead = standard_lead(match["sig_name"]) or f"channel {number}"
    return Channel(lead, unit, name, match["fmt"], frame, skew, offset, gain or 200.0, baseline, checksum)


def _segment_names(path: Path, lines: Sequence[str], n_segments: int, n_samples: int) -> tuple[str, ...]:
    """Check the segment lines of a multi-segment header against its first line; names without their lengths."""
    matches = [rx_segment.fullmatch(line) for line in lines]
    described = None not in matches and len(lines) == n_segments
    _refuse(not described, path, "claims another number of segments than it describes")
    _refuse(n_segments > MAX_SEGMENTS, path, f"has more than {MAX_SEGMENTS:,} segments", "split the record")
    total = sum(int(match["seg_len"]) for match in matches)
    told = "claims another length than that of its segments"
    _refuse(total != n_samples, path, told, detail=f"{n_samples}, {total}")
    gaps = sum(int(match["seg_len"]) for match in matches if match["seg_name"] == "~")
    _refuse(
        gaps > MAX_GAP_SHARE * total, path, "consists of gaps, nearly all of it", "keep the parts that hold signals"
    )
    return tuple(match["seg_name"] for match in matches)


def _with_segments(header: Header, root: Path) -> Header:
    """Read the segments of a multi-segment header and check that they fit together."""
    path, n_leads = header.path, header.n_leads
    names = [name for name in header.parts if name != "~"]
    outside = any("/" in name or not name.strip(".") for name in names)
    _refuse(outside, path, "names a segment outside its own folder", "do not trust this record")
    each = {name: _parse_header(path.with_name(f"{name}.hea"), root) for name in dict.fromkeys(names)}
    segments = [each[name] for name in names]
    holding = tuple(segment for segment in segments if segment.n_samples)
    plain = holding and not any(segment.parts for segment in segments)
    _refuse(not plain, path, "has no segment with signals, or segments within segments")
    fixed = header.parts[0] == "~" or segments[0].n_samples > 0
    _refuse(fixed and "~" in header.parts, path, "has a gap and no layout segment", "split the record at the gap")
    channels = segments[0].channels
    announced = {(channel.lead, channel.unit) for channel in channels}
    for segment in holding:
        told = "is sampled at another rate than its record"
        _refuse(segment.fs != header.fs, segment.path, told, detail=f"{segment.fs:g} Hz, {header.fs:g} Hz")
        held = {(channel.lead, channel.unit) for channel in segment.channels}
        _refuse(not held <= announced, segment.path, "has a lead or a unit that its record does not announce")
    told = "claims another number of leads than its segments hold"
    _refuse(n_leads != len(channels), path, told, detail=f"{n_leads}, {len(channels)}")
    return replace(header, channels=channels, segments=holding)


def signal_files(header: Header) -> list[Path]:
    """Files that a record is made of, beside its own header: signal files and segment headers."""
    own = header.segments or (header,)
    files = dict.fromkeys(part.path.with_name(channel.file) for part in own for channel in part.channels)
    return [*files] + [header.path.with_name(f"{name}.hea") for name in header.parts if name != "~"]


def read_signal(header: Header, root: Path, offered: slice = slice(None), summed: bool = False) -> Signal:
    """Read the samples of one record, or of the `offered` channels, in the header's unit; invalid samples are NaN.

    A :class:`RecordError` says which signal file is missing, truncated, oversized, of an unknown format or outside
    `root`, the folder that nothing may be read outside of; or, where they are to be `summed`, without the checksum of
    its header (eleven headers of ECG-ID state a wrong one).
    """
    check_signal_files(header, root)
    read = _read_plain_16 if _is_plain_16(header) else _read_with_wfdb
    values = read(header, offered, summed)
    return Signal(values, header.fs, header.leads[offered], common_unit(header.channels[offered]))


def check_signal_files(header: Header, root: Path) -> None:
    """Refuse a record unless its signal files are inside `root`, of a known format, and as long as the header says."""
    if header.segments:
        for segment in dict.fromkeys(header.segments):
            check_signal_files(segment, root)
        return
    total = header.n_samples * sum(channel.samples_per_frame for channel in header.channels)
    _refuse(total > MAX_VALUES, header.path, TOO_LARGE, "split the record", str(total))
    for name in dict.fromkeys(channel.file for channel in header.channels):
        members = [channel for channel in header.channels if channel.file == name]
        path, fmt, offset = header.path.with_name(name), members[0].fmt, members[0].byte_offset
        alike = all((channel.fmt, channel.byte_offset) == (fmt, offset) for channel in members)
        _refuse(not alike, header.path, "describes a signal file in two ways", detail=name)
        shifted = any(channel.skew > header.n_samples for channel in members)
        _refuse(shifted, header.path, "shifts a lead by more than the record's length", detail=name)
        remedy = "convert it to format 16 (wfdb.wrsamp, or xform of the WFDB tools)"
        _refuse(fmt not in _BITS, path, "is in a WFDB format whose size cannot be checked", remedy, f"format {fmt}")
        n_values = header.n_samples * sum(channel.samples_per_frame for channel in members)
        spare = checked_path(path, root).stat().st_size - offset - math.ceil(n_values * _BITS[fmt] / 8)
        # Writers of packed formats may fill up their last group of bytes.
        fits = 0 <= spare <= (3 if fmt in _PACKED else 0)
        told = f"is {'shorter' if spare < 0 else 'longer'} than its header says"
        _refuse(not fits, path, told, detail=f"{abs(spare)} bytes")


def _is_plain_16(header: Header) -> bool:
    """Whether all leads lie sample by sample in one 16-bit file, so that numpy can read it alone."""
    one_way = {(channel.file, channel.fmt, channel.samples_per_frame, channel.skew) for channel in header.channels}
    return not header.segments and one_way == {(header.channels[0].file, "16", 1, 0)}


def _read_plain_16(header: Header, offered: slice, summed: bool) -> np.ndarray:
    """Decode format 16 as wfdb does: (sample - baseline) / gain in float64, -32768 means invalid."""
    first, chosen = header.channels[0], header.channels[offered]
    raw = np.fromfile(header.path.with_name(first.file), dtype="<i2", offset=first.byte_offset)
    raw = raw.reshape(header.n_samples, len(header.channels)).T[offered]
    if summed:
        _check_sums(header, chosen, raw)
    baseline, gain = np.array([(channel.baseline, channel.gain) for channel in chosen], dtype=np.float64).T[..., None]
    values = np.empty(raw.shape, dtype=np.float32)
    step = max(1, MOST_AT_ONCE // header.n_samples)
    with np.errstate(over="ignore"):  # of a hostile gain; an infinite sample is no number either
        for some in (slice(at, at + step) for at in range(0, len(raw), step)):
            values[some] = (raw[some] - baseline[some]) / gain[some]
    values[(raw == _INVALID_16) | np.isinf(values)] = np.nan
    return values


def _read_with_wfdb(header: Header, offered: slice, summed: bool) -> np.ndarray:
    """Decode any other layout by wfdb itself."""
    wanted, single = list(range(len(header.channels)))[offered], not header.segments
    try:
        record = wfdb.rdrecord(str(header.path.with_suffix("")), channels=wanted, physical=not single)
        if single:
            if summed:
                _check_sums(header, header.channels[offered], record.d_signal.T)
            record.dac(inplace=True)
        values = np.ascontiguousarray(record.p_signal.T, dtype=np.float32)
    except RecordError:
        raise
    # wfdb lets through whatever numpy or Python raise on a file that breaks its assumptions.
    except Exception as error:
        raise RecordError(header.path, f"cannot be decoded by wfdb ({type(error).__name__})") from error
    told = "decodes to another shape than its header announces"
    _refuse(values.shape != (len(wanted), header.n_samples), header.path, told, detail=str(values.shape))
    return values


def _check_sums(header: Header, channels: Sequence[Channel], samples: np.ndarray) -> None:
    """Refuse samples (n_leads, n_samples) whose 16-bit sums are not those that their header states, if any."""
    for channel, total in zip(channels, samples.sum(axis=1, dtype=np.int64), strict=True):
        # wfdb averages the samples of a frame; many writers put 0 where they have summed nothing
        stated = channel.checksum not in (None, 0) and channel.samples_per_frame == 1
        wrong = stated and (int(total) - channel.checksum) % (1 << 16) != 0
        _refuse(wrong, header.path.with_name(channel.file), "does not have the checksum that its header states")


def read_annotation(path: Path, root: Path, n_samples: int) -> wfdb.Annotation:
    """Read an annotation file ("100.atr") inside `root`; one that is damaged or marks no sample is refused."""
    checked_path(path, root)
    try:
        annotation = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    # wfdb lets through whatever numpy or Python raise on a damaged file.
    except Exception as error:
        raise RecordError(path, f"is no WFDB annotation file ({type(error).__name__})") from error
    inside = ((annotation.sample >= 0) & (annotation.sample < n_samples)).all()
    _refuse(not inside, path, "marks a place outside its record")
    return annotation
