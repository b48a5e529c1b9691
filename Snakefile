# The study as a graph: one rule a notebook. `make study` calls this; so does a cluster (README).
import sys
from pathlib import Path

from ecgstudy.data.cohorts import data_fingerprint
from ecgstudy.study.config import STAGES, check_profile, results_dir

PROFILE = check_profile(config.get("profile", "demo"))
RESULTS = results_dir(PROFILE)
# snakemake sees a changed helper only where it is a declared input
PACKAGE = sorted(str(file) for file in Path("ecgstudy").rglob("*") if file.suffix in {".py", ".j2"})


rule all:
    input:
        RESULTS / "index.html",


for stage in STAGES:

    rule:
        name:
            stage.name[3:]
        input:
            [RESULTS / name / "metrics.json" for name in stage.needs],
            notebook=f"notebooks/{stage.name}.ipynb",
            package=PACKAGE,
        params:
            stage=stage.name,
            data=data_fingerprint(PROFILE),
        output:
            RESULTS / stage.name / "metrics.json",
        log:
            # outputs are deleted before a run and where it fails; a page stays until there is a new one
            page=RESULTS / stage.name / f"{stage.name}.html",
            notebook=RESULTS / stage.name / f"{stage.name}.ipynb",
        threads: 2
        shell:
            "{sys.executable} -m ecgstudy run {params.stage} -p profile {PROFILE}"


rule report:
    input:
        [RESULTS / stage.name / "metrics.json" for stage in STAGES],
        package=PACKAGE,
    output:
        RESULTS / "index.html",
    shell:
        "{sys.executable} -m ecgstudy report {PROFILE}"
