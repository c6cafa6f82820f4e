"""Each persistent format under mutation: identical, or refused or skipped whole."""

import shutil
from collections import Counter
from random import Random

import pytest

from banditroute._core import container
from banditroute.durability import journal
from banditroute.durability import journal_records as form
from faults import mutations
from faults.host import MemoryHost


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with three generations, the last journal of them open-ended."""
    place = tmp_path_factory.mktemp("mutations") / "home"
    host = MemoryHost()
    host.listener, _ = journal.recover(host, place, checkpoint_s=1e6, flush_s=1e6)
    for _ in range(3):
        for _ in range(40):
            host.step()
        host.listener.checkpoint()
    for _ in range(40):
        host.step()
    host.listener.flush()
    host.listener.abandon()
    return place


def last(home, kind):
    return sorted(home.glob(f"{kind}-*"))[-1]


def test_a_snapshot_reads_as_it_was_written_or_not_at_all(home):
    data, draw = last(home, "snapshot").read_bytes(), Random(1)
    seen = Counter(mutations.snapshot_survives(data, draw) for _ in range(1500))
    assert seen["refused"] > 1400


def test_a_journal_reads_as_it_was_written_up_to_some_record(home, tmp_path):
    data, draw = last(home, "journal").read_bytes(), Random(2)
    seen = Counter(mutations.journal_survives(tmp_path / "journal", data, draw) for _ in range(600))
    assert seen["cut"] > 400 and seen["refused"] > 0


def test_a_record_with_a_right_checksum_and_other_content_raises_nothing(home):
    draw = Random(3)
    with last(home, "journal").open("rb") as file:
        payloads = [form.packed(event) for _, event in form.events(file, form.opening(file))]
    seen = Counter(mutations.records_survive(draw.choice(payloads), draw) for _ in range(2000))
    assert seen["skipped"] > 100 and seen["taken"] > 100


def test_a_directory_with_a_file_that_is_another_is_recovered_or_refused(home, tmp_path):
    draw, seen = Random(4), Counter()
    for number in range(60):
        copy = tmp_path / str(number)
        shutil.copytree(home, copy)
        seen[mutations.directory_survives(copy, MemoryHost, draw)] += 1
        shutil.rmtree(copy)
    assert seen["recovered"] > 50


def test_a_crafted_state_is_refused_whole(home):
    header, arrays = container.decode(last(home, "snapshot").read_bytes())
    draw = Random(5)
    for _ in range(300):
        container.decode(container.encode(*mutations.crafted(header, arrays, draw)))


def test_a_file_that_a_router_loads_is_refused_whole_or_serves(tmp_path):
    draw, router = Random(6), mutations.RouterUnderMutation(tmp_path)
    seen = Counter(router.one(draw) for _ in range(250))
    assert seen["refused"] > 100 and seen["loaded"] > 10


def test_metrics_of_a_worker_are_shown_or_passed_over(tmp_path):
    pytest.importorskip("prometheus_client")
    draw, metrics = Random(7), mutations.MetricsUnderMutation(tmp_path)
    seen = Counter(metrics.one(draw) for _ in range(300))
    metrics.mine.close()
    assert seen["passed over"] > 150
