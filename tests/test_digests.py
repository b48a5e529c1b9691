"""Digests change with content and with nothing else."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecgstudy import errors
from ecgstudy.study import atomic
from ecgstudy.study.digests import cache_key, code_digest, file_digest, waveform_digest


def test_cache_key_is_sha256_of_sorted_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"x"}').hexdigest()
    assert cache_key(b="x", a=[1, 2.5, None]) == expected
    assert cache_key(a=[1, 2.5, None], b="x") == expected


@pytest.mark.parametrize(
    ("one", "other"), [({"fs": 100.0}, {"fs": 500.0}), ({"a": 1}, {"b": 1}), ({"a": "1"}, {"a": 1})]
)
def test_cache_key_differs_where_what_made_it_differs(one: dict, other: dict) -> None:
    assert cache_key(**one) != cache_key(**other)


def test_cache_key_refuses_what_has_no_stable_text() -> None:
    with pytest.raises(TypeError):
        cache_key(a=object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache_key(a=float("nan"))


def test_cache_key_is_the_same_in_another_process() -> None:
    script = "from ecgstudy.study.digests import cache_key; print(cache_key(name='ecgid', fs=100.0))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == cache_key(name="ecgid", fs=100.0)


def test_code_digest_ignores_order_and_notices_an_edit(tmp_path: Path) -> None:
    assert code_digest(atomic, errors) == code_digest(errors, atomic)
    assert code_digest(atomic) != code_digest(errors)
    source = tmp_path / "edited.py"
    module = ModuleType("edited")
    module.__file__ = str(source)
    digests = set()
    for text in ("CORNER = 0.5\n", "CORNER = 0.6\n"):
        source.write_text(text)
        digests.add(code_digest(module))
    assert len(digests) == 2


def test_file_digest_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_waveform_digest_is_equal_for_equal_numbers_only() -> None:
    values = np.array([[0.0, 1.5, np.nan], [2.0, -3.0, 4.0]], dtype=np.float32)
    twin = np.asfortranarray(values.astype(np.float64))
    twin[0, 0] = -0.0
    other_nan = values.copy()
    other_nan.view(np.uint32)[0, 2] |= 1
    assert np.isnan(other_nan[0, 2])
    assert waveform_digest(values) == waveform_digest(twin) == waveform_digest(other_nan)
    changed = values.copy()
    changed[1, 2] = np.nextafter(np.float32(4), np.float32(5))
    assert waveform_digest(changed) != waveform_digest(values)
    assert waveform_digest(values.reshape(3, 2)) != waveform_digest(values)


def test_waveform_digest_leaves_the_samples_alone() -> None:
    values = np.array([[-0.0, np.nan]], dtype=np.float32)
    before = values.tobytes()
    waveform_digest(values)
    assert values.tobytes() == before
