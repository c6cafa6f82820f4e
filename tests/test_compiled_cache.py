"""The files of compiled code: known by what the sources say, and never worse than a compilation."""

import os
import shutil
from pathlib import Path

import pytest

from banditroute._core import kernels


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
