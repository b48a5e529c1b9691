# The study as a graph: one rule per notebook. `make study` calls this; so does a cluster (README).
import sys
from pathlib import Path

from ecgstudy.data.cohorts import data_fingerprint
from ecgstudy.study.config import results_dir
from ecgstudy.study.config import check_profile

PROFILE = check_profile(config.get("profile", "demo"))
RESULTS = results_dir(PROFILE)
# snakemake sees a changed helper only where it is a declared input
PACKAGE = sorted(str(file) for file in Path("ecgstudy").rglob("*") if file.suffix in {".py", ".j2"})


def stage(name, file):
    """Path of a file that a stage makes."""
    return RESULTS / name / file


rule all:
    input:
        RESULTS / "index.html",


rule ingestion:
    input:
        notebook="notebooks/01_ingestion.ipynb",
        package=PACKAGE,
    params:
        data=data_fingerprint(PROFILE),
    output:
        metrics=stage("01_ingestion", "metrics.json"),
        page=stage("01_ingestion", "01_ingestion.html"),
    log:
        notebook=stage("01_ingestion", "01_ingestion.ipynb"),
    threads: 2
    shell:
        "{sys.executable} -m ecgstudy run 01_ingestion -p profile {PROFILE}"


rule reidentification:
    input:
        rules.ingestion.output.metrics,
        notebook="notebooks/02_reidentification.ipynb",
        package=PACKAGE,
    params:
        data=data_fingerprint(PROFILE),
    output:
        metrics=stage("02_reidentification", "metrics.json"),
        page=stage("02_reidentification", "02_reidentification.html"),
    log:
        notebook=stage("02_reidentification", "02_reidentification.ipynb"),
    threads: 2
    shell:
        "{sys.executable} -m ecgstudy run 02_reidentification -p profile {PROFILE}"


rule dual_task:
    input:
        rules.ingestion.output.metrics,
        notebook="notebooks/03_dual_task.ipynb",
        package=PACKAGE,
    params:
        data=data_fingerprint(PROFILE),
    output:
        metrics=stage("03_dual_task", "metrics.json"),
        page=stage("03_dual_task", "03_dual_task.html"),
    log:
        notebook=stage("03_dual_task", "03_dual_task.ipynb"),
    threads: 2
    shell:
        "{sys.executable} -m ecgstudy run 03_dual_task -p profile {PROFILE}"


rule attribution:
    input:
        rules.reidentification.output.metrics,
        notebook="notebooks/04_attribution.ipynb",
        package=PACKAGE,
    params:
        data=data_fingerprint(PROFILE),
    output:
        metrics=stage("04_attribution", "metrics.json"),
        page=stage("04_attribution", "04_attribution.html"),
    log:
        notebook=stage("04_attribution", "04_attribution.ipynb"),
    threads: 2
    shell:
        "{sys.executable} -m ecgstudy run 04_attribution -p profile {PROFILE}"


rule report:
    input:
        rules.ingestion.output.metrics,
        rules.reidentification.output.metrics,
        rules.dual_task.output.metrics,
        rules.attribution.output.metrics,
        package=PACKAGE,
    output:
        RESULTS / "index.html",
    shell:
        "{sys.executable} -m ecgstudy report {PROFILE}"
