"""The files of compiled code: known by what the sources say, and never worse than a compilation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from banditroute._core import kernels
from banditroute._core.kernels import tiles


@pytest.fixture
def stored(tmp_path):
    file = kernels._Stored(str(tmp_path), "unit.kernel-1.py311", "stamp")
    file.save("key", ("machine", b"code"))
    return file


def test_what_was_stored_comes_back(stored):
    assert stored.load("key") == ("machine", b"code")
    assert stored.load("other") is None


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\x80" * len(b)])
def test_damaged_files_are_as_good_as_none_and_are_written_anew(stored, tmp_path, pattern, damage):
    for file in tmp_path.glob(pattern):
        file.write_bytes(damage(file.read_bytes()))
    assert stored.load("key") is None
    stored.save("key", ("machine", b"newer"))
    assert stored.load("key") == ("machine", b"newer")


def test_one_bit_of_machine_code_is_missed(stored, tmp_path):
    (file,) = tmp_path.glob("*.nbc")
    text = bytearray(file.read_bytes())
    text[-8] ^= 1
    file.write_bytes(bytes(text))
    assert stored.load("key") is None


def test_nothing_can_be_written(tmp_path):
    file = kernels._Stored(str(tmp_path / "missing"), "unit.kernel-1.py311", "stamp")
    file.save("key", "code")
    assert file.load("key") is None


def test_another_stamp_voids_the_code_and_new_times_do_not(stored, tmp_path, monkeypatch):
    assert kernels._Stored(str(tmp_path), "unit.kernel-1.py311", "other").load("key") is None
    before = kernels._stamp()
    folder = Path(kernels.__file__).parent
    copy = tmp_path / "kernels"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file in copy.glob("*.py"):
        os.utime(file, (1.0, 1.0))
    monkeypatch.setattr(kernels, "__file__", str(copy / "__init__.py"))
    assert kernels._stamp() == before
    (copy / "tiles.py").write_bytes((copy / "tiles.py").read_bytes() + b"#")
    assert kernels._stamp() != before


def test_a_part_of_kernels_can_be_called_alone():
    p, x = np.array([2.0] * 8), np.arange(8.0)
    assert tiles.quadratic(p, x) == pytest.approx(2.0 * (x @ x))
    assert kernels.whole(p, 3) == 2 and kernels.view(x, 2, 3).tolist() == [2.0, 3.0, 4.0]


START = """
import os, sys
import banditroute
from banditroute._core import kernels
policy = banditroute.LinUCB(2, 2, rng=0)
assert "scipy.linalg" not in sys.modules
if hasattr(os, "fork") and (child := os.fork()) == 0:  # waits: the child finds an open compiler
    assert not any(thread.is_alive() for thread in kernels._soon.values())
    policy.refresh()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
for i in range(40):
    policy.update(policy.select([1.0, 0.0]).arm, [1.0, 0.0], i % 3)
print(len(kernels._soon), policy.scores([1.0, 0.0]).mean.tolist())
"""


def test_the_refresh_is_compiled_beside_the_requests_and_decides_the_same(tmp_path):
    """A process without stored code waits for it where it is needed; the next one finds it."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", START], env=env, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    first, second = (one.stdout.split(maxsplit=1) for one in said)
    assert (first[0], second[0]) == ("1", "0")
    assert first[1] == second[1]


def test_a_kernel_that_a_call_loaded_is_prepared_without_a_second_copy():
    """Two of one kernel would be ambiguous: every call would raise."""
    code = """
import numpy as np
from banditroute._core.kernels import prepare, tiles
full = np.eye(8)
packed = np.empty(64)
tiles.pack(full.ravel(), packed, 8)
prepare(tiles.pack, full.ravel(), packed, 8)
tiles.pack(full.ravel(), packed, 8)
print(len(tiles.pack.overloads), packed.sum())
"""
    for _ in range(2):  # compiled, or loaded where it was stored; then loaded
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1", "8.0"]
