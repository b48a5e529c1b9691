# The study as a graph: one rule a notebook. `make study` calls this; so does a cluster (README).
import filecmp
import shlex
import signal
import sys
from pathlib import Path

from ecgstudy.data.cohorts import data_fingerprint
from ecgstudy.errors import StudyError
from ecgstudy.study.cache import KEY_LENGTH, METRICS, cache_key
from ecgstudy.study.config import STAGES, check_profile, notebooks_dir, results_dir
from ecgstudy.study.parallel import end_with_parent

end_with_parent()
try:
    PROFILE = check_profile(config.get("profile", "demo"))
    DATA = cache_key(**data_fingerprint(PROFILE))[:KEY_LENGTH]
except StudyError as mistake:
    sys.exit(f"ecgstudy: {mistake}")
RESULTS = results_dir(PROFILE)
# snakemake sees a changed helper only where it is a declared input
KINDS = {".py", ".j2", ".csv", ".css", ".js"}
PACKAGE = sorted(str(file) for file in Path("ecgstudy").rglob("*") if file.suffix in KINDS)
# what ends with snakemake itself, however that ends, needs to be its child
ECGSTUDY = f"exec env ECGSTUDY_PARENT=$PPID {shlex.quote(sys.executable)} -m ecgstudy"


def receipt(stage):
    """Copy of the metrics that this checkout made of the data as they are: results that git brought have none."""
    copy, metrics = RESULTS / stage / f".made-here-{DATA}", RESULTS / stage / METRICS
    if copy.exists() and not (metrics.exists() and filecmp.cmp(copy, metrics, shallow=False)):
        copy.unlink()
    return copy


RECEIPTS = {stage.name: receipt(stage.name) for stage in STAGES}


rule all:
    input:
        RECEIPTS.values(),
        RESULTS / "index.html",


for stage in STAGES:

    rule:
        name:
            stage.name[3:]
        input:
            [RECEIPTS[name] for name in stage.needs],
            notebook=notebooks_dir() / f"{stage.name}.ipynb",
            package=PACKAGE,
        params:
            stage=stage.name,
        output:
            RECEIPTS[stage.name],
        threads: 2
        shell:
            "{ECGSTUDY} run {params.stage} -p profile {PROFILE} --receipt {output:q}"


rule report:
    input:
        RECEIPTS.values(),
        package=PACKAGE,
    output:
        RESULTS / "index.html",
    shell:
        "{ECGSTUDY} report {PROFILE}"


onstart:
    # snakemake would let a running stage come to its end first, which may take hours
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
