"""Run every benchmark, one after the other, each in a process of its own (``make bench``)."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Print each benchmark's name and output; return 1 when one failed."""
    failed = 0
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"== {script.stem}", flush=True)
        failed |= subprocess.run([sys.executable, str(script)], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
