"""A journal on a disk that fails in every way, and a process that is killed: nothing that was flushed is lost."""

import sys
import tempfile
from pathlib import Path
from random import Random

import pytest

from faults import harness

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="faults are injected by LD_PRELOAD"),
    pytest.mark.skipif(harness.compiler() is None, reason="there is no C compiler to build the faults with"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return harness.built(tmp_path_factory.mktemp("shim"))


def test_nothing_that_was_flushed_is_lost_on_a_faulty_disk(shim):
    # In memory where there is such a place: what a killed process had written is there on any file system.
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    draw = Random(0)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        killing = harness.Killing(folder, shim)
        try:
            for kinds in (*harness.KINDS.values(), sum(harness.KINDS.values())):
                killing.run(draw, kinds, 500)
                killing.run(draw, kinds, 200, limit=4000)
            killing.run(draw, 0, 0)
        finally:
            killing.close()
        assert killing.runs == 17 and killing.lost == killing.wrong == 0
        assert killing.injected > 30 and killing.dropped > 0 and killing.twin.count > 300
