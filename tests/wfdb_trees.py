"""Small cohorts in their official layout, written by wfdb itself, for tests that need no real data.

Samples are seeded integers, so that the physical value of each is known: sample / gain.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import wfdb

from ecgstudy.data.base import STANDARD_LEADS


def digital(n_leads: int, n_samples: int, seed: int = 0) -> np.ndarray:
    """Integers from -1000 to 1000, shape (n_leads, n_samples)."""
    return np.random.default_rng(seed).integers(-1000, 1001, (n_leads, n_samples))


def write_record(
    folder: Path,
    name: str,
    samples: np.ndarray,
    fs: float = 500,
    leads: Sequence[str] = ("I",),
    unit: str = "mV",
    gain: float = 200.0,
    baseline: int = 0,
    fmt: str = "16",
    comments: Sequence[str] = (),
) -> Path:
    """Write one record with wfdb; returns its header's path."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(samples)
    wfdb.wrsamp(
        name,
        fs=fs,
        units=[unit] * n,
        sig_name=list(leads),
        d_signal=np.ascontiguousarray(samples.T),
        fmt=[fmt] * n,
        adc_gain=[gain] * n,
        baseline=[baseline] * n,
        comments=list(comments),
        write_dir=str(folder),
    )
    return folder / f"{name}.hea"


def ecgid_tree(root: Path) -> Path:
    """Write three records of Person_01 on two dates ten days apart, one of Person_02."""
    records = {
        "Person_01/rec_1": ("07.12.2004", 25, "male"),
        "Person_01/rec_2": ("07.12.2004", 25, "male"),
        "Person_01/rec_10": ("17.12.2004", 25, "male"),
        "Person_02/rec_1": ("01.02.2005", 31, "female"),
    }
    for seed, (record, (date, age, sex)) in enumerate(records.items()):
        folder, name = record.split("/")
        comments = [f"Age: {age}", f"Sex: {sex}", f"ECG date: {date}"]
        leads = ("ECG I", "ECG I filtered")
        write_record(root / folder, name, digital(2, 1000, seed), leads=leads, comments=comments)
    (root / "RECORDS").write_text("\n".join(records) + "\n")
    return root


LUDB_TABLE = """\
ID,Sex,Age,Rhythms,Electric axis of the heart,Conduction abnormalities,Extrasystolies,Hypertrophies,Cardiac pacing,\
Ischemia,Non-specific repolarization abnormalities,Other states
1,"F\n","51\n",Sinus rhythm,Electric axis of the heart: normal,,,\
"Left atrial hypertrophy\nLeft ventricular hypertrophy",,,,
2,"M\n",">89\n","Atrial fibrillation\nAberrant conduction",Electric axis of the heart: vertical,,,,,,,
"""


def ludb_tree(root: Path) -> Path:
    """Write two records of 12 leads; lead I of record 1 carries one complete and two incomplete waves."""
    leads = [lead.lower() for lead in STANDARD_LEADS]
    for record in ("1", "2"):
        write_record(root / "data", record, digital(12, 1000, int(record)), leads=leads, gain=1000.0)
        for lead in leads:
            marks = "(N)N)t" if (record, lead) == ("1", "i") else "(p)"
            samples = np.arange(1, len(marks) + 1) * 100
            # wfdb refuses to write a suffix with a digit, such as v1.
            wfdb.wrann(record, "marks", samples, symbol=list(marks), write_dir=str(root / "data"))
            (root / "data" / f"{record}.marks").rename(root / "data" / f"{record}.{lead}")
    (root / "ludb.csv").write_text(LUDB_TABLE)
    (root / "RECORDS").write_text("data/1\ndata/2\n")
    return root


def mitdb_tree(root: Path) -> Path:
    """Write records 102 (paced, other leads), 201 and 202 (one person), in the packed format 212."""
    comments = {"102": "84 F 1525 167 x1", "201": "68 M 1960 2851 x1", "202": "-1 M 1960 2851 x1"}
    for record, comment in comments.items():
        leads, beat = (("V5", "V2"), "/") if record == "102" else (("MLII", "V1"), "N")
        samples = digital(2, 2000, int(record))
        write_record(root, record, samples, fs=360, leads=leads, fmt="212", baseline=24, comments=[comment])
        marks, notes = ["+", beat, "V", "~", "+"], ["(N", "", "", "", "(AFIB"]
        places = np.array([18, 77, 370, 662, 946])
        wfdb.wrann(record, "atr", places, symbol=marks, aux_note=notes, write_dir=str(root))
    (root / "RECORDS").write_text("102\n201\n202\n")
    return root


def motion_tree(root: Path) -> Path:
    """Write two records of two persons at two measured rates, the second with a gap."""
    rows = (
        ("s01_e01_rest", "01", "AgAgCl", "rest", 497.449, "[]"),
        ("s10_e03_squats", "10", "textile", "squats", 495.982, "[(320, 9.222)]"),
    )
    for seed, (name, subject, electrode, activity, fs, gaps) in enumerate(rows):
        facts = f"subject {subject} electrode {electrode} activity {activity} nominal_fs 500 measured_fs {fs}"
        comments = [facts, f"gaps_after_sample_s {gaps}", "start 2024-03-26"]
        samples = digital(1, 3000, seed)
        write_record(root, name, samples, fs=fs, leads=("ECG",), unit="adc", gain=1.0, comments=comments)
        labels = "start,end,activity,artifact,electrode\n0,1000,0,1,1\n1000,2000,0,2,1\n2000,3000,0,4,1\n"
        (root / f"{name}.labels.csv").write_text(labels)
    return root


NSRDB_RECORDS = {"16265": "32 M", "19088": "41 F"}


def nsrdb_tree(root: Path) -> Path:
    """Write two records in the packed format 212 that state no gain; of five annotations three are beats."""
    for record, comment in NSRDB_RECORDS.items():
        leads, samples = ("ECG1", "ECG2"), digital(2, 2000, int(record))
        path = write_record(root, record, samples, fs=128, leads=leads, fmt="212", comments=[comment])
        first, *lines = path.read_text().replace("200.0(0)/mV", "0").splitlines()
        path.write_text("\n".join([f"{first}  8:04:00", *lines]) + "\n")
        places = np.array([33, 77, 370, 662, 1900])
        wfdb.wrann(record, "atr", places, symbol=["N", "~", "N", "|", "S"], write_dir=str(root))
    (root / "RECORDS").write_text("\n".join(NSRDB_RECORDS) + "\n")
    return root


PTB_RECORDS = {
    "patient001/s0010_re": ("81", "female", "01/10/1990", "Myocardial infarction"),
    "patient001/s0014lre": ("81", "female", "01/10/1990", "Myocardial infarction"),
    "patient001/s0016lre": ("81", "female", "17/10/1990", "Myocardial infarction"),
    "patient105/s0303lre": ("n/a", "male", "n/a", "n/a"),
}
"""Age, sex, date and reason for admission of each record, as its comments state them."""


def ptb_tree(root: Path) -> Path:
    """Write four records of two persons: twelve leads in a .dat and Frank's in an .xyz file, headers with CRLF."""
    names = [*(lead.lower() for lead in STANDARD_LEADS), "vx", "vy", "vz"]
    for seed, (record, (age, sex, date, reason)) in enumerate(PTB_RECORDS.items()):
        path, samples = root / record, digital(15, 2000, seed).astype("<i2")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{path.name} 15 1000 {samples.shape[1]}"]
        for suffix, rows in ((".dat", range(12)), (".xyz", range(12, 15))):
            samples[rows].T.tofile(path.with_suffix(suffix))
            sums = samples[rows].sum(axis=1, dtype=np.int64).astype("<i2")
            lines += [
                f"{path.name}{suffix} 16 2000 16 0 {samples[row, 0]} {total} 0 {names[row]}"
                for row, total in zip(rows, sums, strict=True)
            ]
        facts = {"age": age, "sex": sex, "ECG date": date, "Diagnose": "", "Reason for admission": reason}
        facts |= {"Smoker": "no", "Infarction date (acute)": "29-Sep-90", "Catheterization date": "16-Oct-90"}
        lines += [f"# {name}: {fact}" for name, fact in facts.items()]
        path.with_suffix(".hea").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    (root / "RECORDS").write_text("\n".join(PTB_RECORDS) + "\n")
    return root


STATEMENT_ROWS = (
    ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass",
    "NORM,normal ECG,1.0,,,NORM,NORM",
    "IMI,inferior myocardial infarction,1.0,,,MI,IMI",
    "ASMI,anteroseptal myocardial infarction,1.0,,,MI,AMI",
    "NDT,non-diagnostic T abnormalities,1.0,1.0,,STTC,STTC",
    "PVC,ventricular premature complex,,1.0,,,",
    "SR,sinus rhythm,,,1.0,,",
    "AFIB,atrial fibrillation,,,1.0,,",
)


def ptbxl_row(ecg_id: int, patient: int, codes: str, **changes: object) -> dict[str, object]:
    """One row of ``ptbxl_database.csv`` in the columns of the whole set (those that the loader reads, and one more)."""
    stem = f"{ecg_id // 1000 * 1000:05d}/{ecg_id:05d}"
    row = {"ecg_id": ecg_id, "patient_id": float(patient), "age": 55.0, "sex": 0, "height": ""}
    row |= {"recording_date": "1984-11-09 09:17:34", "scp_codes": codes, "strat_fold": ecg_id % 10 + 1}
    return row | {"filename_lr": f"records100/{stem}_lr", "filename_hr": f"records500/{stem}_hr"} | changes


PTBXL_ROWS = (
    ptbxl_row(1, 7, "{'NORM': 100.0, 'SR': 0.0}"),
    ptbxl_row(2, 7, "{'IMI': 80.0, 'ASMI': 15.0, 'AFIB': 0.0}", recording_date="1984-11-29 08:00:00", age=89.0),
    ptbxl_row(1003, 8, "{'PVC': 100.0, 'NDT': 100.0}", age=300.0, sex=1, recording_date="1990-01-01 00:00:00"),
)


def ptbxl_tree(
    root: Path,
    rows: Sequence[dict[str, object]] = PTBXL_ROWS,
    resolution: int = 100,
    unit: str = "mV",
) -> Path:
    """Write the official layout at one resolution: the two tables and a record of random samples for each row."""
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(root / "ptbxl_database.csv", index=False)
    (root / "scp_statements.csv").write_text("\n".join(STATEMENT_ROWS) + "\n")
    column = {100: "filename_lr", 500: "filename_hr"}[resolution]
    leads = [lead.upper() for lead in STANDARD_LEADS]
    for row in rows:
        path = root / str(row[column])
        samples = digital(12, 10 * resolution, int(row["ecg_id"]))
        write_record(path.parent, path.name, samples, fs=resolution, leads=leads, unit=unit, gain=1000.0)
    return root


SUBJECTS = """\
record,subject_id,session,age,sex,diagnosis
ann/a1,Ann,1,40,F,normal
ann/a2,Ann,2,41.5,female,AF
bob,Bob,,,,
"""


def own_tree(root: Path) -> Path:
    """Write three records of two persons into two folders, and the table of who is who."""
    write_record(root / "ann", "a1", digital(2, 300, 1), fs=250, leads=("i", "ii"))
    write_record(root / "ann", "a2", digital(2, 300, 2), fs=250, leads=("i", "ii"))
    write_record(root, "bob", digital(1, 400, 3), leads=("V2",), unit="uV")
    (root / "subjects.csv").write_text(SUBJECTS)
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "ecgid": ecgid_tree,
    "ludb": ludb_tree,
    "mitdb": mitdb_tree,
    "motion": motion_tree,
    "nsrdb": nsrdb_tree,
    "ptb": ptb_tree,
    "ptbxl": ptbxl_tree,
    "wfdb-folder": own_tree,
}
"""Writes a small cohort by its name."""
