"""A damaged trace is refused with the reason, wherever the damage is; never read as another trace."""

import os
import warnings

import numpy as np
import pytest

from banditroute import Trace


def trace(rows=40):
    rng = np.random.default_rng(0)
    return Trace(
        names=["small", "large"], arms=rng.integers(2, size=rows), rewards=rng.random(rows),
        propensities=np.full(rows, 0.5), contexts=rng.standard_normal((rows, 3)), hits=rng.random(rows) < 0.5,
        times=np.arange(rows) * 1.0, ids=rng.integers(2**63, size=rows).astype(np.uint64),
    )  # fmt: skip


def same(one, other):
    return one.names == other.names and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        if getattr(one, name) is not None
        else getattr(other, name) is None
        for name in Trace.columns()
    )


def test_every_byte_counts_or_does_no_harm(tmp_path):
    """Bytes inverted in turn: an error that says so, or the very trace (dates of the archive).

    All bytes of the directory at the end, every seventh elsewhere.
    """
    path = trace().save(tmp_path / "log.npz")
    whole, original = path.read_bytes(), Trace.load(path)
    assert same(original, trace())
    refused = 0
    directory = whole.find(b"PK\x01\x02")
    for at in (*range(0, directory, 7), *range(directory, len(whole))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read = Trace.load(path)
        except ValueError as error:
            refused += "log.npz" in str(error)
        else:
            assert same(read, original), at
    assert refused > 0.9 / 7 * sum(
        getattr(original, n).nbytes for n in ("arms", "rewards", "contexts", "times", "ids")
    )


def test_one_bit_of_a_number_is_told_as_damage(tmp_path):
    path = trace().save(tmp_path / "log.npz")
    whole = bytearray(path.read_bytes())
    at = whole.find(trace().contexts.tobytes())
    whole[at + 100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"log\.npz cannot be read: contexts\.npy is damaged: its checksum"):
        Trace.load(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 0.9999])
def test_a_file_cut_short_is_refused(tmp_path, share):
    path = trace(4000).save(tmp_path / "log.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"log\.npz"):
        Trace.load(path)


def test_a_length_that_was_made_up_asks_for_no_memory(tmp_path):
    path = trace().save(tmp_path / "log.npz")
    whole = path.read_bytes()
    forged = whole.replace(b"'shape': (40, 3), }       ", b"'shape': (99999999999, 3),}")
    assert forged != whole
    path.write_bytes(forged)
    with pytest.raises(ValueError, match="damaged"):
        Trace.load(path)


def test_an_archive_without_a_trace_is_refused_with_what_it_holds(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz cannot be read: it is not a trace, it holds weights"):
        Trace.load(tmp_path / "other.npz")
    np.savez_compressed(tmp_path / "small.npz", header=np.zeros(3))
    with pytest.raises(ValueError, match=r"header\.npy must not be compressed"):
        Trace.load(tmp_path / "small.npz")


def test_files_from_before_the_columns_were_listed_are_read(tmp_path):
    own = trace()
    columns = {name: getattr(own, name) for name in Trace.columns() if getattr(own, name) is not None}
    header = np.array('{"format": 1, "names": ["small", "large"], "policies": [""]}')
    np.savez(tmp_path / "old.npz", header=header, **columns)
    assert same(Trace.load(tmp_path / "old.npz"), own)


MUTATIONS = int(
    os.environ.get("BANDITROUTE_MUTATIONS", "150")
)  # of each format; 2,500 and more in the long form


def mutated(whole, rng):
    """Change, drop, add, repeat or blank some bytes of a file, or cut it off."""
    at, size = int(rng.integers(len(whole))), int(rng.integers(1, 9))
    kind = int(rng.integers(7))
    if kind == 0:
        return whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :]
    if kind == 1:
        return whole[:at] + bytes(rng.integers(256, size=size, dtype=np.uint8)) + whole[at + size :]
    if kind == 2:
        return whole[:at] + whole[at + size :]
    if kind == 3:
        return whole[:at] + bytes(rng.choice(list(b'0123456789.,:e-"[]{}\n x'), size)) + whole[at:]
    if kind == 4:
        return whole[:at] + whole[at : at + 10 * size] + whole[at:]
    if kind == 5:
        return whole[:at] + bytes(size) + whole[at + size :]
    return whole[:at]


@pytest.mark.parametrize("suffix", ["npz", "csv", "jsonl", "parquet"])
def test_random_damage_is_refused_or_does_no_harm(suffix, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    rng = np.random.default_rng(1)
    path = trace().save(tmp_path / f"log.{suffix}")
    whole, original = path.read_bytes(), trace()
    refused = unharmed = 0
    for i in range(MUTATIONS):
        damaged = mutated(whole, rng)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a file that is now one from elsewhere
                read = Trace.load(path)
        except ValueError as error:
            refused += f"log.{suffix} cannot be read: " in str(error)
        else:
            assert same(read, original), (i, damaged)
            unharmed += 1
    assert refused + unharmed == MUTATIONS and refused > 0.5 * MUTATIONS


def test_a_parquet_file_whose_header_lost_its_format_is_still_checked(tmp_path):
    path, own = tmp_path / "trace.parquet", trace()
    own.save(path)
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    (key, header), *_ = [item for item in table.schema.metadata.items() if b"checksum" in item[1]]
    lost = header.replace(b"format", b"fprmat")
    parquet.write_table(table.replace_schema_metadata({key: lost}), path)
    assert same(Trace.load(path), own)
    parquet.write_table(table.replace_schema_metadata({key: lost.replace(b"small", b"smell")}), path)
    with pytest.raises(ValueError, match="smell"):
        Trace.load(path)
