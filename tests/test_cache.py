"""Files are whole or absent; keys change with what made something and with nothing else; a value is made once."""

import errno
import hashlib
import importlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import joblib
import numpy as np
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.study import cache
from ecgstudy.study.cache import (
    alone,
    cache_key,
    code_key,
    file_digest,
    new_file,
    new_folder,
    remember,
    waveform_digest,
    write_text,
)

MADE_FROM = {"cohort": "ecgid", "seed": 0}


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError), new_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_takes_its_name_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    monkeypatch.setattr(cache.os, "fsync", lambda _: events.append("on the disk"))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda one, other: (events.append(other.name), replace(one, other)))
    write_text(tmp_path / "metrics.json", "{}")
    with new_folder(tmp_path / "store") as partial:
        (partial / "a").touch()
    assert events == ["on the disk", "metrics.json", "on the disk", "store"]


def test_two_processes_that_write_one_file_keep_out_of_each_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_file(tmp_path / "f") as mine:
        mine.write_text("mine")
        monkeypatch.setattr(cache.os, "getpid", lambda: 1)
        write_text(tmp_path / "f", "of another")
    assert (tmp_path / "f").read_text() == "mine"


def test_a_failed_folder_is_absent_and_a_good_one_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "store"
    with pytest.raises(RuntimeError), new_folder(target) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with new_folder(target) as partial:
            (partial / "a").write_text(text)
    assert (target / "a").read_text() == "second"
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_cannot_be_written_is_one_sentence_that_names_the_place(tmp_path: Path) -> None:
    sentence = f"No space is left on the disk that holds {tmp_path}; free some"
    for full in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(StudyError, match=sentence), new_file(tmp_path / "store"):
            raise OSError(full, "No space left on device")
    with pytest.raises(StudyError, match="cannot be written"), new_file(tmp_path / "store"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "store"))
    with pytest.raises(PermissionError), new_file(tmp_path / "store"):  # about a file elsewhere
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/signals.dat")
    assert list(tmp_path.iterdir()) == []


def test_cache_key_is_sha256_of_sorted_json_in_every_process() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"x"}').hexdigest()
    assert cache_key(b="x", a=[1, 2.5, None]) == cache_key(a=[1, 2.5, None], b="x") == expected
    assert len({cache_key(**made) for made in ({"a": 1}, {"a": "1"}, {"b": 1}, {"a": 2})}) == 4
    with pytest.raises(TypeError):
        cache_key(a=object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache_key(a=float("nan"))


def test_file_digest_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_waveform_digest_is_equal_for_equal_numbers_only_and_leaves_the_samples_alone() -> None:
    values = np.array([[-0.0, 1.5, np.nan], [2.0, -3.0, 4.0]], dtype=np.float32)
    before = values.tobytes()
    twin = np.asfortranarray(values.astype(np.float64))
    twin[0, 0] = 0.0
    other_nan = values.copy()
    other_nan.view(np.uint32)[0, 2] |= 1
    assert np.isnan(other_nan[0, 2])
    assert waveform_digest(values) == waveform_digest(twin) == waveform_digest(other_nan)
    assert values.tobytes() == before
    changed = values.copy()
    changed[1, 2] = np.nextafter(np.float32(4), np.float32(5))
    assert waveform_digest(changed) != waveform_digest(values)
    assert waveform_digest(values.reshape(3, 2)) != waveform_digest(values)


SOURCES = {
    "__init__.py": "SEED = 1\n",
    "train.py": '"""Trains."""\nfrom planted.nets import net\ndef fit(x):\n    """Fit."""\n    from . import loss\n'
    "    return loss.margin(net(x))\n",
    "nets/__init__.py": "DEPTH = 3\n",
    "nets/net.py": "def net(x):\n    return x + 1\n",
    "loss.py": '"""Losses."""\nSCALE = 2\n"""Why two."""\ndef margin(x):\n    def inner(y):\n        """Inner."""\n'
    "        return y\n    return SCALE * inner(x)\n",
    "unused.py": "A = 1\n",
}


@pytest.fixture
def key_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Key of ``planted.train.fit`` after an edit of one of the package's files."""
    monkeypatch.syspath_prepend(tmp_path)

    def key(file: str = "train.py", old: str = "", new: str = "") -> str:
        for path, text in SOURCES.items():
            assert old in text or path != file
            (tmp_path / "planted" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "planted" / path).write_text(text.replace(old, new) if path == file else text)
        for name in [name for name in sys.modules if name.split(".")[0] == "planted"]:
            del sys.modules[name]
        cache._closure_key.cache_clear()
        cache._code.cache_clear()
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return code_key(importlib.import_module("planted.train").fit)

    return key


@pytest.mark.parametrize(
    ("file", "old", "new", "noticed"),
    [
        ("train.py", "net(x))", "net(-x))", True),
        ("loss.py", "SCALE = 2", "SCALE = 3", True),  # imported inside a function, relatively
        ("loss.py", "return y", "return -y", True),
        ("nets/net.py", "x + 1", "x + 2", True),
        ("nets/__init__.py", "DEPTH = 3", "DEPTH = 4", True),  # runs before its modules
        ("__init__.py", "SEED = 1", "SEED = 2", True),
        ("unused.py", "A = 1", "A = 2", False),
        ("train.py", '"""Trains."""', '"""Trains a net."""', False),
        ("train.py", '"""Fit."""', "# fit", False),
        ("loss.py", '"""Inner."""', '"""Gives what it got."""', False),
        ("loss.py", '"""Why two."""', '"""Why not."""', False),
        ("loss.py", "return SCALE * inner(x)", "return (\n        SCALE  # two\n        * inner(x)\n    )", False),
    ],
)
def test_code_key_notices_what_runs_anywhere_in_the_import_closure_and_nothing_else(
    key_with: Callable[..., str], file: str, old: str, new: str, noticed: bool
) -> None:
    assert (key_with(file, old, new) != key_with()) == noticed


def test_code_key_follows_this_package_from_a_guest_and_needs_a_file(key_with: Callable[..., str]) -> None:
    key_with()
    assert "ecgstudy.errors" in cache._code(Path(cache.__file__), cache.__name__)[1]
    assert code_key(sys.modules["planted.train"].fit) != code_key(sys.modules["planted.nets.net"].net)
    scope = {"__name__": "nowhere"}
    exec("def fit(x): return x", scope)
    with pytest.raises(StudyError, match="fit stands in no module"):
        code_key(scope["fit"])


def test_a_value_is_made_once_and_says_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for now in ("first commit", "second commit"):
        monkeypatch.setattr(cache, "commit", lambda now=now: now)
        value, commit = remember(tmp_path, "scores", MADE_FROM, lambda: calls.append(1) or np.arange(3))
        np.testing.assert_array_equal(value, np.arange(3))
        assert (commit, len(calls)) == ("first commit", 1)
    key = cache_key(**MADE_FROM)
    about = json.loads((tmp_path / f"scores-{key[:12]}.json").read_text())
    assert (about["commit"], about["key"], about["made_from"]) == (commit, key, MADE_FROM)
    assert about["versions"]["numpy"] == np.__version__
    assert remember(tmp_path, "scores", MADE_FROM | {"seed": 1}, lambda: "other")[0] == "other"


def test_the_commit_says_where_code_differs_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter(["abc\n", "", "abc\n", " M ecgstudy/study/cache.py\n"])
    asked = []
    monkeypatch.setattr(cache.subprocess, "check_output", lambda words, **_: asked.append(words) or next(found))
    commit = cache.commit.__wrapped__
    assert [commit(), commit()] == ["abc", "abc-dirty"]
    assert asked[-1][-2:] == ["ecgstudy", "notebooks"]
    monkeypatch.setattr(cache.subprocess, "check_output", lambda *_, **__: Path("nowhere").read_text())
    assert commit() == "unknown"


DAMAGES = {
    "cut": lambda value, about: value.write_bytes(value.read_bytes()[:-3]),
    "changed": lambda value, about: value.write_bytes(value.read_bytes()[:-2] + b"xx"),
    "other content": lambda value, about: joblib.dump(list(range(7)), value),
    "no record": lambda value, about: about.unlink(),
    "another key": lambda value, about: about.write_text(about.read_text().replace(cache_key(**MADE_FROM), "0" * 64)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_made_again(tmp_path: Path, damage: str) -> None:
    remember(tmp_path, "scores", MADE_FROM, lambda: list(range(1000)))
    DAMAGES[damage](*tmp_path.glob("scores-*.joblib"), *tmp_path.glob("scores-*.json"))
    assert remember(tmp_path, "scores", MADE_FROM, lambda: "again")[0] == "again"
    assert remember(tmp_path, "scores", MADE_FROM, lambda: "not again")[0] == "again"


def test_a_failed_making_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remember(tmp_path, "scores", MADE_FROM, stop)
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".lock"]
    assert remember(tmp_path, "scores", MADE_FROM, lambda: 1)[0] == 1


MAKER = """
import sys, time
from pathlib import Path
from ecgstudy.study.cache import remember

folder = Path(sys.argv[1])

class Slow:
    def __reduce__(self):  # while it is written
        (folder / "begun").touch()
        time.sleep(float(sys.argv[2]))
        return (int, (7,))

remember(folder, "scores", {"cohort": "ecgid", "seed": 0}, Slow)
"""


def _maker(folder: Path, seconds: float) -> subprocess.Popen:
    """Start a process that makes the value, and wait until it writes it."""
    maker = subprocess.Popen([sys.executable, "-c", MAKER, str(folder), str(seconds)])
    while not (folder / "begun").exists():
        assert maker.poll() is None
        time.sleep(0.01)
    return maker


def test_one_process_makes_and_the_others_wait_or_go_on(tmp_path: Path) -> None:
    maker = _maker(tmp_path, 0.3)
    with pytest.raises(filelock.Timeout):
        remember(tmp_path, "scores", MADE_FROM, lambda: "mine", wait=False)
    assert remember(tmp_path, "scores", MADE_FROM, lambda: "mine")[0] == 7
    assert maker.wait() == 0


def test_a_kill_half_way_leaves_no_value_no_lock_and_no_rest(tmp_path: Path) -> None:
    maker = _maker(tmp_path, 60)
    maker.kill()
    maker.wait()
    assert remember(tmp_path, "scores", MADE_FROM, lambda: "mine", wait=False)[0] == "mine"
    assert not list(tmp_path.glob(".*partial*"))


def test_who_comes_second_is_told_who_is_at_it_and_goes_on_when_that_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "results" / "01_ingestion"
    code = "import pathlib, sys, time; from ecgstudy.study.cache import alone\n"
    code += "with alone(pathlib.Path(sys.argv[1]), 'a stage'): print(flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"\n"
    threading.Timer(0.5, first.kill).start()
    with alone(folder, "a stage"):
        assert first.wait(0) == -signal.SIGKILL
    told = rf"ecgstudy: a stage is being run by process {first.pid} on .+ since \d{{4}}-\d\d-\d\d [\d:]+; waiting until"
    assert re.match(told, capsys.readouterr().err)
    first.stdout.close()
