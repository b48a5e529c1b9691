"""What a number was made from: commit, versions, device."""

import subprocess
from importlib.metadata import PackageNotFoundError, version

from ecgstudy.study.paths import PROJECT_ROOT

RECORDED_PACKAGES = (
    "captum",
    "neurokit2",
    "numpy",
    "pandas",
    "pytorch-lightning",
    "scikit-learn",
    "scipy",
    "torch",
    "wfdb",
)


def commit() -> str:
    """Commit of the checkout, with "-dirty" where code or notebooks differ from it; "unknown" without git."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "ecgstudy", "notebooks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    """Output of a git command run in the checkout."""
    done = subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions of the packages whose behaviour the numbers depend on."""
    found = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" where there is one and "cpu" elsewhere; keep "cpu" and "cuda".

    Raises
    ------
    StudyError
        The device is none of the three, or a GPU is asked for and there is none.
    """
    import torch  # costs seconds, and not every stage computes on a device

    from ecgstudy.errors import StudyError

    if device not in ("auto", "cpu", "cuda"):
        raise StudyError(f"There is no device {device!r}; choose auto, cpu or cuda.")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise StudyError("device is 'cuda' but no GPU can be used here; choose auto or cpu.")
    return "cuda" if has_gpu and device != "cpu" else "cpu"
