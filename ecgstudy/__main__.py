"""The command line: ``python -m ecgstudy cohorts | doctor | who | deidentify | audit | render | digitise | ...``."""

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from ecgstudy.errors import StudyError
from ecgstudy.study.parallel import PARENT, end_with_parent

STUDY_SEED = 0
"""Seed that the notebooks start from."""
_STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C; a cluster's stop, or that the parent has ended; a closed terminal."""
_SECONDS_TO_TIDY_UP = 2.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (0 done, 1 a mistake, 3 a threshold is missed, 130 stopped)."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names need not be text
            stream.reconfigure(errors="backslashreplace")
    if arguments is None:  # the process is ours
        for number in _STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, _stop)
        end_with_parent()
    try:
        return options.command(options) or 0
    except StudyError as mistake:
        print(_plain(f"ecgstudy: {mistake}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped()


def _stopped() -> int:
    """Say how to go on; return the exit code."""
    print("ecgstudy: stopped; run the same command again to go on.", file=sys.stderr, flush=True)
    return 130


def _stop(*_: object) -> None:
    """Stop as by Ctrl-C, so that everything is tidied up, which nothing but another Ctrl-C disturbs, or end in time."""
    logging.disable()  # what asyncio says of tasks that are not done
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    last = threading.Timer(_SECONDS_TO_TIDY_UP, lambda: os._exit(_stopped()))
    last.daemon = True
    last.start()
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(prog="ecgstudy", description="The ECG privacy study, stage by stage.")
    commands = parser.add_subparsers(required=True, metavar="command")

    cohorts = commands.add_parser("cohorts", help="list each cohort: found or not, records, persons, licence")
    cohorts.set_defaults(command=_cohorts)

    doctor = commands.add_parser("doctor", help="look at a folder of records of your own; nothing is written")
    doctor.add_argument("folder", help="folder of WFDB records, with or without subjects.csv")
    doctor.set_defaults(command=_doctor)

    who = commands.add_parser("who", help="say whose pseudonym is whose, here and nowhere else")
    who.add_argument("pseudonym", nargs="+", help="as it stands in the tables of the profile mine")
    who.set_defaults(command=_who)

    deidentify = commands.add_parser("deidentify", help="release a folder of records under a protection")
    deidentify.add_argument("source", metavar="IN", help="folder of WFDB records, with or without subjects.csv")
    deidentify.add_argument("target", metavar="OUT", help="new folder for the protected records")
    deidentify.add_argument("--method", required=True, help="as k_same; an unknown one lists all")
    deidentify.add_argument("--strength", help="as 5; the first of the method unless it is given")
    deidentify.add_argument("--key", help="file of the key of the pseudonyms; pseudonym.key beside IN unless given")
    deidentify.add_argument("--seed", type=int, default=0, help="another one draws anew what is drawn")
    deidentify.add_argument("--keep-diagnoses", action="store_true", help="state the diagnoses in OUT/subjects.csv")
    deidentify.set_defaults(command=_deidentify)

    audit = commands.add_parser("audit", help="attack a release of your records, or the records as they are")
    audit.add_argument("raw", metavar="RAW", help="folder of WFDB records, with or without subjects.csv")
    audit.add_argument("protected", metavar="PROTECTED", nargs="?", help="folder of the same records as released")
    audit.add_argument("--subjects", metavar="FILE", help="table of who is who, unless it is RAW/subjects.csv")
    audit.add_argument("--key", metavar="FILE", help="key of the release's pseudonyms, unless it lies beside RAW")
    audit.add_argument("--out", metavar="FILE", help="page to write, also over an older one; ecgstudy-audit.html")
    audit.add_argument("--seed", type=int, default=0, help="seed of the attackers' training")
    audit.add_argument("--effort", choices=("quick", "full"), default="quick", help="full trains in earnest (hours)")
    for limit, what in (
        ("rank1", "share of probes named right"),
        ("eer-gap", "EER below that of the heart rate alone"),
        ("sex-auroc", "AUROC of sex"),
        ("age-auroc", "AUROC of an age of 60 or more"),
    ):
        audit.add_argument(f"--max-{limit}", type=float, metavar="X", help=f"{what}; exit code 3 where it is more")
    audit.set_defaults(command=_audit)

    render = commands.add_parser("render", help="draw WFDB records on ECG paper, a picture each, without names")
    render.add_argument("records", metavar="RECORD", nargs="+", help="WFDB record, or folder of them")
    render.add_argument("target", metavar="OUT", help="folder for the pictures (PNG)")
    render.add_argument("--layout", default="3x4+II", help="as 3x4+II, 6x2 or random; an unknown one lists them")
    render.add_argument("--dpi", type=int, default=200, help="pixels an inch")
    render.add_argument("--scan", default="clean", help="defects of a scan: clean, mild, moderate or severe")
    render.add_argument("--vary", action="store_true", help="another grid, ink, pulse and so on for each record")
    render.add_argument("--header", metavar="LINE", action="append", default=[], help="line to print above the traces")
    render.add_argument("--seed", type=int, default=0, help="another one draws anew what is drawn")
    render.set_defaults(command=_render)

    digitise = commands.add_parser("digitise", help="read pictures of printed ECGs into WFDB records")
    digitise.add_argument("pictures", metavar="IMAGE", nargs="+", help="scan or photo of a page (PNG, JPEG, TIFF)")
    digitise.add_argument("target", metavar="OUT", help="folder for a record and an overlay (PNG) of each")
    digitise.add_argument("--dpi", type=float, help="dots an inch, for pages without a grid or a calibration pulse")
    digitise.set_defaults(command=_digitise)

    read = commands.add_parser("read", help="diagnose pictures of printed ECGs, by models that learn from PTB-XL")
    read.add_argument("pictures", metavar="IMAGE", nargs="+", help="scan or photo of a page (PNG, JPEG, TIFF)")
    read.add_argument("--dpi", type=float, help="dots an inch, for pages without a grid or a calibration pulse")
    read.add_argument("--profile", choices=("real", "demo"), default="real", help="demo learns from simulated hearts")
    read.set_defaults(command=_read)

    score = commands.add_parser("score", help="set your own system's scores of the study's trials beside ours")
    score.add_argument("file", metavar="FILE", help="pairs file of results/PROFILE/02_.../trials with a column score")
    score.add_argument("--profile", default="real", help="whose trials: demo, real, mine or mine-quick")
    score.set_defaults(command=_score)

    fetch = commands.add_parser("fetch", help="download a public cohort and verify every file")
    fetch.add_argument("cohort", help="ecgid, ludb, mitdb, nsrdb, ptb or ptbxl")
    fetch.add_argument("--full", action="store_true", help="ptbxl: bring the 500 Hz records too")
    fetch.set_defaults(command=_fetch)

    run = commands.add_parser("run", help="run one notebook by papermill")
    run.add_argument("stage", help="notebook name, as 01_ingestion")
    run.add_argument("-p", nargs=2, metavar=("NAME", "VALUE"), action="append", default=[], help="set a parameter")
    run.add_argument("--receipt", metavar="FILE", help="copy metrics.json there when all is done")
    run.set_defaults(command=_run)

    study = commands.add_parser("study", help="run all stages that are not done, and make the report")
    study.add_argument("profile", help="demo, real, mine or mine-quick")
    study.add_argument("--cores", type=int, default=2, help="processor cores to use")
    study.set_defaults(command=_study)

    work = commands.add_parser("work", help="do jobs of the stages that no other process is doing")
    work.add_argument("profile", help="demo, real, mine or mine-quick")
    work.add_argument("--device", default="auto", help="auto, cpu or cuda")
    work.set_defaults(command=_work)

    report = commands.add_parser("report", help="make the front page from the finished stages")
    report.add_argument("profile", help="demo, real, mine or mine-quick")
    report.set_defaults(command=_report)
    return parser


def _plain(line: str) -> str:
    """Line for a terminal: what a file's name tells the terminal to do is shown instead."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)


def _cohorts(_: argparse.Namespace) -> None:
    """Print one line a cohort that is found, and how to get each that is not."""
    from ecgstudy.data.cohorts import cohort_table
    from ecgstudy.study.config import data_root

    print(f"Data folder: {data_root()}\n")
    for row in cohort_table().to_dict("records"):
        if row["problem"]:
            print(_plain(f"{row['name']:<12} found      but cannot be read: {row['problem']}"))
            continue
        if not row["found"]:
            print(f"{row['name']:<12} not found  {row['how_to_get']}")
            continue
        unread = f", {row['failures']:,} unreadable" if row["failures"] else ""
        counts = f"{row['records']:>7,} records {row['persons']:>7,} persons{unread}"
        print(_plain(f"{row['name']:<12} found      {counts}  {row['licence']}  {row['folder'] or 'built in'}"))


def _doctor(options: argparse.Namespace) -> None:
    """Say what a folder holds, under the names that stand in it."""
    from ecgstudy.ingestion.doctor import examine

    for line in examine(Path(options.folder)):
        print(_plain(line))


def _who(options: argparse.Namespace) -> None:
    """Print the names behind pseudonyms."""
    from ecgstudy.data.own import OWN, OwnCohort, own_folders
    from ecgstudy.data.pseudonyms import KEY
    from ecgstudy.study.config import data_root

    key = data_root() / OWN / KEY
    if not os.access(key, os.F_OK):
        raise StudyError(f"There is no {key}: nothing was run on records of your own, or the key must be put back.")
    for pseudonym in options.pseudonym:
        names = [OwnCohort(name, root).whois(pseudonym.rpartition("/")[2]) for name, root in own_folders().items()]
        print(_plain(f"{pseudonym}: {next(filter(None, names), 'nobody in the folders of your own')}"))


def _deidentify(options: argparse.Namespace) -> None:
    """Protect a folder of records, and say what became of them."""
    from ecgstudy.deidentification.tool import deidentify, order_of

    asked = {name: value for name, value in vars(options).items() if name != "command"}
    for line in deidentify(order_of(**asked)):
        print(_plain(line))


def _audit(options: argparse.Namespace) -> int:
    """Attack a release and say what came of it; the exit code says whether a threshold is missed."""
    from ecgstudy.deidentification.audit import audit, order_of

    asked = {name: value for name, value in vars(options).items() if name != "command"}
    order = order_of(**asked)
    judgement, code = audit(order)
    print(_plain(judgement))
    print(_plain(f"Audit: {order.page}"))
    return code


def _render(options: argparse.Namespace) -> None:
    """Draw records on paper."""
    from ecgstudy.layouts.tool import Look, render

    look = Look(options.layout, options.dpi, options.scan, options.vary, tuple(options.header), options.seed)
    for line in render(options.records, options.target, look):
        print(_plain(line))


def _digitise(options: argparse.Namespace) -> None:
    """Read pictures of printed ECGs."""
    from ecgstudy.layouts.tool import digitise_files

    for line in digitise_files(options.pictures, options.target, options.dpi):
        print(_plain(line))


def _read(options: argparse.Namespace) -> None:
    """Diagnose pictures of printed ECGs."""
    from ecgstudy.layouts.diagnosis import read_files

    for line in read_files(options.pictures, options.dpi, options.profile, STUDY_SEED):
        print(_plain(line), flush=True)


def _score(options: argparse.Namespace) -> None:
    """Evaluate somebody else's scores of our trials."""
    from ecgstudy.reidentification.outsider import judge

    for line in judge(Path(options.file), options.profile):
        print(_plain(line))


def _fetch(options: argparse.Namespace) -> None:
    """Download a cohort into the data folder."""
    from ecgstudy.data.fetch import fetch

    fetch(options.cohort, options.full)


def _run(options: argparse.Namespace) -> None:
    """Run one notebook and say where its results are."""
    from ecgstudy.study.cache import METRICS
    from ecgstudy.study.notebooks import declared_parameters, notebook_path, parse_assignments, run_notebook

    values = parse_assignments(options.p, declared_parameters(notebook_path(options.stage)))
    folder = run_notebook(options.stage, values)
    if options.receipt:
        shutil.copyfile(folder / METRICS, options.receipt)
    print(f"{options.stage} is complete: {folder / f'{options.stage}.ipynb'}")


def _study(options: argparse.Namespace) -> None:
    """Let snakemake run what is not done; a lock that dies with this process stands in for its own, which stays."""
    from ecgstudy.data.cohorts import cohorts_of
    from ecgstudy.study.cache import alone
    from ecgstudy.study.config import PROJECT_ROOT, results_dir

    cohorts_of(options.profile)  # or a sentence says what is missing
    command = [sys.executable, "-m", "snakemake", "--cores", str(options.cores), "--nolock", "--rerun-incomplete"]
    command += ["--quiet", "progress", "rules", "host", "--config", f"profile={options.profile}"]
    folder = results_dir(options.profile)
    with alone(folder, f"the study of the profile {options.profile}"):
        if subprocess.call(command, cwd=PROJECT_ROOT, env=os.environ | {PARENT: str(os.getpid())}):
            raise StudyError("The study stopped, as told above; run the same command again to go on.")
    print(f"Report: {folder / 'index.html'}")


def _work(options: argparse.Namespace) -> None:
    """Do the jobs of the stages that no other process is doing."""
    from ecgstudy.deidentification import attributes as deidentification
    from ecgstudy.dual_task import plan as dual_task
    from ecgstudy.experiment.jobs import share
    from ecgstudy.layouts import images as layouts
    from ecgstudy.reidentification import plan as reidentification

    for stage in (reidentification, dual_task, deidentification, layouts):
        left = sum(share(*work) for work in stage.shared(options.profile, STUDY_SEED, options.device))
        done = "all jobs are done" if not left else f"{left} jobs are still done by other processes"
        print(f"{stage.__package__.partition('.')[2]}: {done}")


def _report(options: argparse.Namespace) -> None:
    """Make the front page and print its path."""
    from ecgstudy.study.report import build_report

    print(build_report(options.profile))


if __name__ == "__main__":
    raise SystemExit(main())
