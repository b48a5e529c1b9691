"""Nothing of one's own records leaves under its own name: stages are run, and every byte of what they leave is read.

Two of them in every run of the tests, all four in ``make fuzz``.
"""

import base64
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import joblib
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from unpacking import found_in, numbers, written
from wfdb_trees import write_record

from ecgstudy.data.own import OWN
from ecgstudy.data.pseudonyms import KEY
from ecgstudy.data.synthetic import SyntheticCohort

PERSONS = (
    "Zwetschgenbauer, Ottokar",
    "Käsewürger Jürgen",
    "Frau Sauerampfer",
    "Hr. Drachenfels *23.08.1961",
    "Pfauenauge",
)
ACTIVITIES = {"rest": "rest", "squats": "Fahrrad neben Hildegundis"}
DAYS = ("2019-07-17", "2020-02-29")
PLANTED = (
    *("Zwetschgenbauer", "Ottokar", "Käsewürger", "Jürgen", "Sauerampfer", "Drachenfels", "Pfauenauge"),
    *("1961-08-23", "23.08.1961", "23/08/1961", "7734512908", "Wolkenstein", "Hildegundis"),
    *("2019-07-17", "2020-02-29", "Quastenflosser", "Knabenschuh", "Zwickelmeter"),
    *("99887766", "Rabenhorst", "Schlehdorn", "471108159", "Mistelzweig", "Tollkirsche"),
)
"""Names, birthdays, days of recording, record numbers and free text, each of a word that stands nowhere else."""
OTHERWISE = ("23-Aug-1961", "17.07.2019", "29.02.2020")
"""Days as nobody wrote them."""
ALL = os.environ.get("ECGSTUDY_FUZZ") == "all"
SMALLER = {
    "study/config.py": "" if ALL else "STAGES = STAGES[:2]",
    "experiment/attackers.py": "DEMO_EPOCHS = NetworkAttacker.seeds = 1",
    "experiment/jobs.py": "DEMO_RESAMPLES = 50",
    "reidentification/plan.py": "allowed = protocols_of\n"
    "def protocols_of(*of):\n    return [one for one in allowed(*of) if one.name in DEMO_PROTOCOLS]",
    "attribution/planted.py": 'SIZES["demo"] = Size(("P", "PR"), 1, 6, 1, {"resnet1d": (1, {})})',
    "attribution/cases.py": "MOST_WINDOWS = dict.fromkeys(MOST_WINDOWS, 4)",
    "data/synthetic.py": "made = SyntheticCohort.__init__\nmade.__defaults__ = (4, 1, 1, *made.__defaults__[3:])",
}
"""What is made smaller, so that all stages take minutes: lines that end modules of a copy of the package."""


def _clinic(folder: Path) -> list[str]:
    """Write records of five persons, two days in two activities each, and who is who; return the records' names."""
    cohort = SyntheticCohort(5, 2, 1, seconds=20.0, fs=250.0, activities=list(ACTIVITIES))
    records = cohort.records()
    rows, names = ["# exported by Rabenhorst\nrecord;subject_id;session;activity;age;sex;Schlehdorn"], []
    for at, record in enumerate(records.itertuples()):
        person = records["subject_id"].unique().tolist().index(record.subject_id)
        surname = ("Zwetschgenbauer", "Kaesewuerger", "Sauerampfer", "Drachenfels", "Pfauenauge")[person]
        name, place = f"{surname}_7734512908_{at}", folder / ("Quastenflosser" if at % 2 else "1961-08-23")
        comments = [
            f"Name: {PERSONS[person]}",
            "Age: 58",
            "born 1961-08-23, MRN 7734512908",
            "seen by Quastenflosser",
            "Dx: 164889003,99887766",
        ]
        samples = np.rint(1000 * cohort.signal(record.record_id).values[:2]).astype(int)
        path = write_record(place, name, samples, fs=250.0, leads=("I", "Tollkirsche"), gain=1000.0, comments=comments)
        first, rest = path.read_text().split("\n", 1)
        path.write_text(f"{first} 10:11:12 23/08/1961\n{rest}")
        names.append(f"{place.name}/{name}")
        rows.append(
            f"{names[-1]};{PERSONS[person]};{DAYS[record.session - 1]};{ACTIVITIES[record.activity]};;F;Quastenflosser"
        )
    rows += ["Knabenschuh/7734512908;Knabenschuh;2019-07-17;rest;;F;", f"{names[-1]};Knabenschuh;;;Sauerampfer;;"]
    (folder / "subjects.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    (folder / "Knabenschuh.hea").write_text("Drachenfels 1 500 400\nTollkirsche.dat 16 200\n")
    (folder / "Mistelzweig.hea").write_text("Mistelzweig 1 500 4000\nMistelzweig.Drachenfels1961 16 200\n")
    return names


def _other_ward(folder: Path) -> None:
    """Write a person of whom nothing but records is known, in an unknown unit, one of them under a wrong checksum."""
    for at, record in enumerate(SyntheticCohort(1, 2, 1, seconds=10.0, fs=250.0).records()["record_id"]):
        samples = np.rint(100 * SyntheticCohort(1, 2, 1, seconds=10.0, fs=250.0).signal(record).values[:1]).astype(int)
        path = write_record(folder, f"Mistelzweig_{at}", samples, fs=250.0, leads=("I",), unit="Zwickelmeter")
    path.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes()[::-1])
    rows = [f"Mistelzweig_{at},Mistelzweig,47110815{9 - at},Hildegundis,Quastenflosser" for at in range(2)]
    (folder / "subjects.csv").write_text("\n".join(["record,subject_id,session,activity,electrode", *rows]) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Run the whole study on records whose every text is planted, in a copy of the project that does less of it."""
    project_root, project = Path(__file__).resolve().parent.parent, tmp_path_factory.mktemp("privacy")
    shutil.copytree(project_root / "ecgstudy", project / "ecgstudy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(project_root / "notebooks", project / "notebooks")
    shutil.copy2(project_root / "Snakefile", project)
    for module, line in SMALLER.items():
        with (project / "ecgstudy" / module).open("a") as code:
            code.write(f"\n{line}\n")
    data = project / "data" / OWN
    names = _clinic(data / "Haus Wolkenstein")
    _other_ward(data / "Station Rabenhorst")
    (project / "tmp").mkdir()
    own = dict.fromkeys(("ECGSTUDY_NOTEBOOKS", "ECGSTUDY_RESULTS", "ECGSTUDY_CACHE", "ECGSTUDY_DATA"), "")
    own |= {"PYTHONPATH": str(project), "TMPDIR": str(project / "tmp"), "XDG_CACHE_HOME": str(project / "tmp")}
    own |= {"MPLCONFIGDIR": mpl.get_cachedir(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "ecgstudy", "study", "mine-quick"]
    done = subprocess.run(command, cwd=project, env=os.environ | own, capture_output=True, check=False)
    (project / "stdout").write_bytes(done.stdout)
    (project / "stderr").write_bytes(done.stderr)
    assert done.returncode == 0, done.stderr.decode()
    return SimpleNamespace(project=project, data=data, names=names, results=project / "results" / "mine-quick")


def _needles(study: SimpleNamespace) -> list[bytes]:
    """Whatever would tell on somebody: what is planted, days and case numbers in arrays, bare digests, and the key."""
    told = {form for text in (*PLANTED, *OTHERWISE) for form in written(text)} | numbers(471108159)
    for day in DAYS:
        told |= {form for unit in ("ns", "us", "ms", "s") for form in numbers(pd.Timestamp(day).as_unit(unit).value)}
    for name in (*PERSONS, *study.names, *(name.rpartition("/")[2] for name in study.names)):
        told |= {hashlib.new(kind, name.encode()).hexdigest().encode() for kind in ("md5", "sha1", "sha256")}
    key = (study.data / KEY).read_text().strip()
    return sorted({*told, key.encode(), bytes.fromhex(key)})


def test_no_stage_leaves_a_name_a_day_a_number_or_free_text_anywhere(study: SimpleNamespace) -> None:
    # the study's code knows the activities, the tests no other word
    assert found_in(study.project, _needles(study), but=[study.data]) == {}


def test_every_stage_had_something_to_tell(study: SimpleNamespace) -> None:
    assert [text for text in PLANTED if not found_in(study.data, sorted(written(text)))] == []
    pages = {page.stem: page.read_text() for page in study.results.glob("0*.html")}
    others = ("03_dual_task", "04_attribution", "05_deidentification", "06_layouts", "07_summary")
    stages = ["01_ingestion", "02_reidentification", *(others if ALL else ())]
    assert sorted(pages) == stages
    # networks that saw their people once may know nobody, so that nothing of theirs can be explained
    assert [stage for stage in stages[:3] if "Not applicable, because" in pages[stage]] == []
    assert "needs two classes" not in pages["02_reidentification"]
    assert [path.name for path in study.results.rglob("*.csv.gz")] != []
    excluded = pd.read_csv(study.results / "01_ingestion" / "tables" / "excluded_records.csv")
    assert excluded["cohort"].value_counts().to_dict() == {"own-1": 4, "own-2": 1}
    assert not ALL or "activity 1" in pages["03_dual_task"]


@pytest.mark.parametrize("secret", ["Ottokar", "Jürgen"])
def test_the_search_looks_into_everything(tmp_path: Path, secret: str) -> None:
    text, table = f"of {secret}".encode(), pd.DataFrame({"who": [secret] * 9})
    picture = io.BytesIO()
    figure = plt.figure(figsize=(1, 1))
    figure.savefig(picture, metadata={"Author": secret})
    figure.suptitle(secret)
    figure.savefig(tmp_path / "title.svg")
    plt.close(figure)
    (tmp_path / "metadata.png").write_bytes(picture.getvalue())
    (tmp_path / "page.html").write_bytes(b'<img src="' + base64.b64encode(picture.getvalue()) + b'">')
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "twice.gz").write_bytes(gzip.compress(gzip.compress(text)))
    (tmp_path / "page.ipynb").write_text(table.to_json())
    (tmp_path / secret).mkdir()
    table.to_parquet(tmp_path / "table.parquet")
    np.save(tmp_path / "array.npy", np.array([secret]))
    np.savez_compressed(tmp_path / "arrays.npz", who=np.array([secret], dtype=object))
    joblib.dump({"who": table}, tmp_path / "value.joblib", compress=3)
    (tmp_path / "clean.txt").write_text("of nobody")
    found = found_in(tmp_path, sorted(written(secret)))
    assert {path.name for path in tmp_path.iterdir()} - set(found) == {"clean.txt"}
