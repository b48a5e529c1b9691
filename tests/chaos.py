"""Kill the study at random moments, let it go on, and compare with a study that nothing disturbed (``make chaos``)."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from ecgstudy.study.config import PROJECT_ROOT, STAGES

GONE_S = 5
"""Seconds after a kill in which whatever computes has to be gone, where each process has a core."""
PATIENCE_S = 1800
KILLS = 3
"""Of each stage."""
STUDY = ["make", "-o", ".venv/.ready", f"PY={sys.executable}", "study"]
"""``make study`` with the interpreter that runs this."""
LINKS = ("make", "-m ecgstudy study", "-m snakemake", "-m ecgstudy run")
"""The chain from what a user starts down to what starts a kernel."""
COMPUTING = ("-m ecgstudy run", "ipykernel", "popen_loky")
_MARK = "ECGSTUDY_CHAOS"
_CLOCKS = re.compile(
    rb'"seconds": [\d.]+|"memory_gb": [\d.]+|, in [\d,]+ s\.|, (?:cpu|cuda), [\d,]+ s|_per_window": \{[^}]*\}'
    rb"|(?<=[>,])[\d.]+ (?:s|min|GB)(?=[<,])"
)
_CLOCK_LINE = re.compile(rb"\d ms |milliseconds_per_window")
"""What a clock says, and how much memory was held, in metrics, pages and tables."""


class Chaos:
    """A study that is started with a command, killed, and started again; every process of it carries a mark."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str], seed: int = 0) -> None:
        self._command, self._folder = command, folder
        self._environment = {**os.environ, **environment, _MARK: str(folder)}
        self._random = random.Random(seed)

    def alive(self, *kinds: str) -> list[psutil.Process]:
        """List the study's processes, lost ones too; of some kinds, which are parts of command lines, or all."""
        found = []
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
                mine = process.environ().get(_MARK) == str(self._folder) and process.status() != psutil.STATUS_ZOMBIE
            except (psutil.Error, OSError):
                continue
            if mine and (not kinds or any(kind in words for kind in kinds)):
                found.append(process)
        return found

    def disturb(self, moment: Callable[[], bool], link: str = "", how: signal.Signals | None = None) -> str:
        """Start the study, kill a link of its chain at a moment, and see that all is gone; say what was done."""
        study = subprocess.Popen(self._command, cwd=self._folder, env=self._environment)
        if not _wait(lambda: moment() or study.poll() is not None) or study.poll() is not None:
            return f"it ended by itself with code {study.wait()}"
        link = link or self._random.choice(LINKS)
        how = how or self._random.choice([signal.SIGTERM, signal.SIGKILL])
        victims = self.alive(link)
        if not victims:
            victims, link = [psutil.Process(study.pid)], "what was started"
        victims[0].send_signal(how)
        began, crowd = time.monotonic(), max(1, os.getloadavg()[0] / os.cpu_count())
        limit = GONE_S * crowd
        told = f"{how.name} to {link}"
        assert _wait(lambda: not self.alive(*COMPUTING), limit), f"{told} left {self.alive(*COMPUTING)}"
        told += f", all gone after {time.monotonic() - began:.1f} s (of {limit:.0f})"
        assert _wait(lambda: study.poll() is not None and not self.alive(), 60 * crowd), f"{told} left {self.alive()}"
        assert study.returncode != 0
        return told

    def finish(self) -> None:
        """Let the study come to its end."""
        subprocess.run(self._command, cwd=self._folder, env=self._environment, check=True)


class Moment:
    """The moment at which one of some stages has been running for so many seconds; `stage` is its name."""

    def __init__(self, chaos: Chaos, pauses: Mapping[str, float]) -> None:
        self._chaos, self._pauses, self.stage = chaos, pauses, ""
        self._seen: dict[str, float] = {}

    def __call__(self) -> bool:
        """Say whether it has come."""
        for process in self._chaos.alive("-m ecgstudy run"):
            with suppress(psutil.Error):
                for name in self._pauses.keys() & {*process.cmdline()}:
                    begun = self._seen.setdefault(name, time.monotonic())
                    if time.monotonic() - begun > self._pauses[name]:
                        self.stage = name
        return bool(self.stage)


def _wait(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    """Wait until a condition holds; say whether it did in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def content(results: Path) -> dict[str, bytes]:
    """Every visible file of a results folder, but for what a clock says and a run held."""
    files = [file for file in results.rglob("*") if file.is_file() and not file.name.startswith(".")]
    texts = {".csv", ".html", ".ipynb", ".json", ".md"}
    read = {str(file.relative_to(results)): (file.suffix, file.read_bytes()) for file in files}
    return {name: _timeless(held) if kind in texts else held for name, (kind, held) in read.items()}


def _timeless(text: bytes) -> bytes:
    """Leave out what a clock says."""
    return b"\n".join(line for line in _CLOCKS.sub(b"", text).split(b"\n") if not _CLOCK_LINE.search(line))


def main() -> int:
    """Run the demo twice, once with three kills a stage; return 1 where the results differ."""
    with tempfile.TemporaryDirectory(prefix="ecgstudy chaos ") as root:
        homes = {name: Path(root, name) for name in ("undisturbed", "disturbed")}
        places = {
            name: {"ECGSTUDY_RESULTS": str(home / "results"), "ECGSTUDY_CACHE": str(home / "cache")}
            for name, home in homes.items()
        }
        Chaos(STUDY, PROJECT_ROOT, places["undisturbed"]).finish()
        seed = random.randrange(1000)
        print(f"seed {seed}", flush=True)
        chaos, rng = Chaos(STUDY, PROJECT_ROOT, places["disturbed"], seed), random.Random(seed)
        left, seconds = {stage.name: KILLS for stage in STAGES}, {}
        for name in left:
            metrics = homes["undisturbed"] / "results" / "demo" / name / "metrics.json"
            seconds[name] = json.loads(metrics.read_text())["provenance"]["seconds"]
        told = ""
        while "ended by itself" not in told:  # snakemake orders the stages, and what is done is not run again
            moment = Moment(chaos, {name: rng.uniform(0, seconds[name] / 3) for name, kills in left.items() if kills})
            told = chaos.disturb(moment)
            if moment.stage:
                left[moment.stage] -= 1
            print(f"{moment.stage or 'all stages'}: {told}", flush=True)
        print(f"{sum(left.values())} of {KILLS * len(STAGES)} kills came too late")
        chaos.finish()
        calm, wild = (content(home / "results" / "demo") for home in homes.values())
        differing = sorted(name for name in calm.keys() | wild.keys() if calm.get(name) != wild.get(name))
        print(f"{len(calm)} files compared; differing: {', '.join(differing) or 'none'}")
        return int(bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
