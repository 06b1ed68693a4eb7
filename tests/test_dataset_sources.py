"""Sources of a dataset: every kind gives, block by block, the array it was written from; damaged ones say so."""

import io
import json
import pickle
import shutil
import tracemalloc
import warnings
import zipfile

import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from gatelens.explainers.dataset.blocks import Block, regrouped
from gatelens.explainers.dataset.rows import StoredRows
from gatelens.explainers.dataset.source import open_source
from gatelens.models import (
    DataSpec,
    FeatureSpec,
    GatelensError,
    InvalidInputError,
    SequenceData,
    WindowSpec,
    encode_text,
    read_csv,
)
from gatelens.models.tokens import PADDING, UNKNOWN

N, T, D = 11, 5, 3
VALUES = np.random.default_rng(0).normal(size=(N, T, D)).astype(np.float32)
VALUES[2, 1] = 0  # what a store's fill value may be mistaken for
VALUES[3, 2, 1] = np.nan
IDS = np.random.default_rng(1).integers(0, 9, size=(N, T))
LENGTHS = np.array([5, 4, 0, 5, 5, 1, 2, 3, 4, 5, 5])
NAMES = tuple(f"ward {row}" for row in range(N))
TIMES = np.datetime64("2020-01-01", "ns") + np.arange(N * T).reshape(N, T) * np.timedelta64(60, "s")
TIMES[1, 4] = np.datetime64("NaT")
FEATURES = ("a", "b", "c")
SPEC = DataSpec(features=tuple(FeatureSpec(name=name) for name in FEATURES))
TEXT_SPEC = DataSpec(vocabulary=(PADDING, UNKNOWN, "a", "b"), token_unit="word", max_tokens=3)


def opened(source, spec=None, *, tokens=False, features=D, **options):
    return open_source(source, spec, tokens=tokens, features=None if tokens else features, **options)


def whole(source, rows):
    """All blocks as one, each checked: none too long, types as said, none wider than the longest."""
    blocks = list(source.blocks(rows))
    for block in blocks:
        assert 0 < len(block) == len(block.inputs) == len(block.lengths) <= rows
        assert block.inputs.dtype == source.dtype
        assert block.lengths.dtype == np.int64
        assert block.inputs.shape[1] <= source.steps
        assert (block.times is not None) == source.timed
        if source.timed:
            assert block.times.dtype == np.dtype("datetime64[ns]")
            assert block.times.shape == block.inputs.shape[:2]
    steps = max(block.inputs.shape[1] for block in blocks)
    padded = [
        np.pad(b.inputs, [(0, 0), (0, steps - b.inputs.shape[1])] + [(0, 0)] * (b.inputs.ndim - 2)) for b in blocks
    ]
    times = None
    if source.timed:
        nat = np.datetime64("NaT")
        times = np.concatenate(
            [np.pad(b.times, [(0, 0), (0, steps - b.times.shape[1])], constant_values=nat) for b in blocks]
        )
    lengths = np.concatenate([block.lengths for block in blocks])
    found = Block(np.concatenate(padded), lengths, tuple(name for block in blocks for name in block.names), times)
    assert (len(found), max(found.lengths) <= source.steps) == (source.count, True)
    return found


def assert_gives(source, inputs, lengths=None, names=None, times=None):
    """The source gives just these, for several sizes of blocks, and again."""
    for rows in (1, 3, 4, N, 100, 3):
        found = whole(source, rows)
        np.testing.assert_array_equal(found.inputs, inputs, strict=True)
        np.testing.assert_array_equal(found.lengths, np.full(N, T) if lengths is None else lengths)
        assert found.names == (tuple(f"sample {row}" for row in range(N)) if names is None else names)
        if times is not None:
            np.testing.assert_array_equal(found.times, times, strict=True)
    assert (source.count, source.steps, source.timed) == (len(inputs), T, times is not None)


def dataset_of(inputs=VALUES, **options) -> xr.Dataset:
    dims = ("sample", "time", "feature")[: inputs.ndim]
    variables = {"input": (dims, inputs), "length": ("sample", LENGTHS), "timestamp": (("sample", "time"), TIMES)}
    coords = {"sample": np.array(NAMES, dtype=object)}
    if inputs.ndim == 3:
        coords["feature"] = np.array(FEATURES[: inputs.shape[2]], dtype=object)
    return xr.Dataset(variables, coords | options)


def to_zarr(dataset, path, version=3, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's, about text in version 3
        dataset.to_zarr(path, zarr_format=version, consolidated=False, **options)
    return path


# -- arrays in memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x, np.asfortranarray, lambda x: x.astype(">f4"), torch.tensor, lambda x: da.from_array(x, (4, 2, 3)),
        lambda x: x.tolist(), xr.DataArray,
    ],
    ids=["numpy", "fortran", "big-endian", "torch", "dask", "lists", "xarray"],
)  # fmt: skip
def test_arrays_in_memory(make):
    """Arrays of every library give their values, with lengths or without."""
    expected = VALUES.astype(np.float64) if isinstance(make(VALUES), list) else VALUES
    assert_gives(opened(make(VALUES)), expected)
    assert_gives(opened(make(VALUES), lengths=LENGTHS), expected, LENGTHS)
    source = opened(make(VALUES))
    assert (source.features, source.dtype, source.stamp, source.notes) == (D, expected.dtype, None, ())


@pytest.mark.parametrize("make", [list, torch.tensor, lambda x: da.from_array(x, 4), xr.DataArray, np.float64])
def test_lengths_of_any_library(make):
    """lengths= may be what the inputs may be, in whole numbers."""
    assert_gives(opened(VALUES, lengths=make(LENGTHS)), VALUES, LENGTHS)


@pytest.mark.parametrize(
    ("given_type", "kept"),
    [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i1", "f4"), ("u2", "f4"), ("i4", "f8"), ("i8", "f8"), ("?", "f4")],
)
def test_types_keep_their_numbers(given_type, kept):
    """Inputs become float32 where that holds each of their numbers, and float64 elsewhere."""
    array = np.arange(N * T * D).reshape(N, T, D).astype(given_type)
    assert_gives(opened(array), array.astype(kept))
    assert opened(torch.tensor(VALUES).bfloat16()).dtype == np.float32


@pytest.mark.parametrize("make", [lambda x: x, torch.tensor, lambda x: da.from_array(x, 4), xr.DataArray])
@pytest.mark.parametrize("kind", ["i8", "i4", "u1"])
def test_token_ids(make, kind):
    """Token ids are int64 (n, T); a last dimension of one goes."""
    ids = IDS.astype(kind)
    assert_gives(opened(make(ids), tokens=True), IDS)
    assert_gives(opened(make(ids[..., None]), tokens=True), IDS)
    assert_gives(opened(make(ids), features=None), IDS)
    assert opened(make(ids), tokens=True).features is None


def test_blocks_are_copies():
    """What is done to a block is not done to the caller's array."""
    array = VALUES.copy()
    for block in opened(array).blocks(4):
        block.inputs[:] = 7
        block.lengths[:] = 1
    np.testing.assert_array_equal(array, VALUES)


def test_sequence_data():
    """A SequenceData brings lengths, names and times."""
    data = SequenceData(VALUES, LENGTHS, NAMES, TIMES, np.arange(N), ("cleaned",))
    source = opened(data, SPEC)
    assert_gives(source, VALUES, LENGTHS, NAMES, TIMES)
    assert source.notes == ("cleaned",)
    assert_gives(opened(SequenceData(IDS, LENGTHS, NAMES, None, np.arange(N)), tokens=True), IDS, LENGTHS, NAMES)


# -- reading lazily --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 11])
def test_dask_computes_each_chunk_once(rows):
    """Whatever the blocks, each chunk of a dask array is computed once, and not before its turn."""
    computed = []

    def chunk(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        computed.append(start)
        return VALUES[start:stop]

    array = da.map_blocks(chunk, chunks=((3, 1, 4, 3), (T,), (D,)), dtype=np.float32, meta=VALUES[:0])
    source = opened(array)
    assert computed == []
    blocks = source.blocks(rows)
    next(blocks)
    assert max(computed) < rows
    list(blocks)
    assert sorted(computed) == [0, 3, 4, 8]
    assert_gives(source, VALUES)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 30))
def test_stored_rows_are_read_once(count, chunk, rows):
    """Reads follow one another, end at borders of chunks, cover all rows once, and hold a block and a chunk at most."""
    reads, values = [], np.arange(count)

    def read(start, stop):
        reads.append((start, stop))
        return values[start:stop]

    found = list(StoredRows((count,), values.dtype, read, chunk).pieces(rows))
    assert np.concatenate(found).tolist() == values.tolist()
    assert [len(piece) for piece in found[:-1]] == [rows] * (len(found) - 1)
    assert [start for start, _ in reads] == [0, *(stop for _, stop in reads[:-1])]
    assert all(stop % chunk == 0 or stop == count for _, stop in reads)
    assert max(stop - start for start, stop in reads) <= rows + chunk


def peak_of(source, rows) -> int:
    tracemalloc.start()
    try:
        for _ in source.blocks(rows):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["npy", "npz", "zarr", "nc"])
def test_files_are_never_whole_in_memory(tmp_path, kind):
    """Reading 8 MB in blocks of 16 kB takes a small part of it."""
    array = np.random.default_rng(0).normal(size=(2000, 100, 10)).astype(np.float32)
    path = tmp_path / f"big.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez_compressed(path, inputs=array)
    elif kind == "zarr":
        zarr.create_array(path, data=array, chunks=(10, 100, 10))
    else:
        sizes = {"inputs": {"chunksizes": (10, 100, 10)}}
        xr.Dataset({"inputs": (("n", "t", "d"), array)}).to_netcdf(path, engine="h5netcdf", encoding=sizes)
    source = opened(path, features=10)
    next(source.blocks(1))  # what is imported at the first read is no data
    assert peak_of(source, 4) < array.nbytes / 8


def test_a_table_is_cut_block_by_block():
    """Windows as long as a tenth of the table are never all there at once."""
    frame = pd.DataFrame({"x": np.arange(4000.0)})
    spec = DataSpec(features=(FeatureSpec(name="x"),), window=WindowSpec(length=400))
    source = opened(frame, spec, features=1)
    assert source.count == 3601
    assert peak_of(source, 10) < 3601 * 400 * 4 / 20


# -- files of arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, order):
    """An NPY file gives its array; lengths may be passed."""
    path = tmp_path / "x.npy"
    np.save(path, np.asarray(VALUES, order=order))
    assert_gives(opened(path), VALUES)
    assert_gives(opened(str(path), lengths=LENGTHS), VALUES, LENGTHS)
    np.save(path, IDS)
    assert_gives(opened(path, tokens=True), IDS)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save, order):
    """An NPZ file gives `inputs`, lengths, names and times, or its only array."""
    path, inputs = tmp_path / "x.npz", np.asarray(VALUES, order=order)
    save(path, inputs=inputs, lengths=LENGTHS, sample_names=np.array(NAMES), times=TIMES, other=np.arange(3))
    assert_gives(opened(path), VALUES, LENGTHS, NAMES, TIMES)
    save(path, readings=inputs, lengths=LENGTHS.astype(np.uint8))
    assert_gives(opened(path), VALUES, LENGTHS)
    save(path, IDS)
    assert_gives(opened(path, tokens=True), IDS)
    save(path, one=VALUES, two=VALUES)
    with pytest.raises(InvalidInputError, match="holds the arrays one, two; expected one called 'inputs'"):
        opened(path)


@pytest.mark.parametrize("options", [{}, {"chunksizes": (2, T, D), "zlib": True}, {"chunksizes": (4, 2, 1)}])
def test_netcdf(tmp_path, options):
    """A netCDF file, as Attribution.save writes it, gives inputs, lengths, names and times."""
    path = tmp_path / "x.nc"
    dataset_of().to_netcdf(path, engine="h5netcdf", encoding={"input": options})
    assert_gives(opened(path, SPEC), VALUES, LENGTHS, NAMES, TIMES)
    dataset_of(IDS[..., None]).drop_vars("feature").to_netcdf(path, engine="h5netcdf")
    assert_gives(opened(path, tokens=True), IDS, LENGTHS, NAMES, TIMES)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_zarr_of_xarray(tmp_path, version, chunk):
    """A Zarr store of xarray, either version, gives the same; nothing in it is changed."""
    path = to_zarr(dataset_of().chunk(sample=chunk), tmp_path / "x.zarr", version)
    source = opened(path, SPEC)
    assert_gives(source, VALUES, LENGTHS, NAMES, TIMES)
    assert opened(path, SPEC).stamp == source.stamp
    assert_gives(opened(path.rename(tmp_path / "store"), SPEC), VALUES, LENGTHS, NAMES, TIMES)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("named", [True, False])
def test_zarr_of_zarr(tmp_path, version, named):
    """A group that zarr wrote gives its values, zeros among them, with dimension names or without."""
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=version)
    for name, values, dims in (("inputs", VALUES, ["sample", "time", "feature"]), ("lengths", LENGTHS, ["sample"])):
        told = {"dimension_names": dims} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": dims}}
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(4, *values.shape[1:]), fill_value=0,
            **(told if named else {}),
        )  # fmt: skip
        array[:] = values
    assert_gives(opened(tmp_path / "x.zarr"), VALUES, LENGTHS)


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_array_alone(tmp_path, version):
    """A store that is one array, and arrays of zarr and h5py that are open, give their values."""
    array = zarr.create_array(tmp_path / "x.zarr", data=VALUES, chunks=(4, T, D), zarr_format=version)
    assert_gives(opened(tmp_path / "x.zarr", lengths=LENGTHS), VALUES, LENGTHS)
    assert_gives(opened(array), VALUES)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = VALUES
        assert_gives(opened(file["x"]), VALUES)


def test_a_store_of_times_in_zarrs_own_type(tmp_path):
    """Timestamps that are stored as datetime64 are read as such."""
    parts = {"input": (VALUES, ("sample", "time", "feature")), "timestamp": (TIMES, ("sample", "time"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's, that the type is not yet part of its specification
        group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3)
        for name, (values, dims) in parts.items():
            group.create_array(name, data=values, chunks=(4, *values.shape[1:]), dimension_names=dims)
    assert_gives(opened(tmp_path / "x.zarr"), VALUES, times=TIMES)


def test_packed_numbers_stay_packed(tmp_path):
    """A store's own scale, offset and missing value are applied."""
    packed = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    values = np.array([[[0.0], [0.5]], [[np.nan], [3.0]]])
    for version in (2, 3):
        dataset = xr.Dataset({"inputs": (("sample", "time", "feature"), values)})
        path = to_zarr(dataset, tmp_path / f"{version}.zarr", version, encoding={"inputs": packed})
        np.testing.assert_array_equal(whole(opened(path, features=1), 1).inputs, values)


# -- xarray ----------------------------------------------------------------------------------------------------------


def test_xarray_in_memory():
    """A Dataset, lazy or not, and a DataArray with its coordinates give the same; dimensions in any order."""
    dataset = dataset_of()
    swapped = dataset.transpose("feature", "time", "sample")
    for data in (dataset, dataset.chunk(sample=4), swapped, swapped.chunk(sample=3, time=2)):
        assert_gives(opened(data, SPEC), VALUES, LENGTHS, NAMES, TIMES)
    array = dataset["input"].assign_coords(length=dataset["length"], timestamp=dataset["timestamp"])
    assert_gives(opened(array, SPEC), VALUES, LENGTHS, NAMES, TIMES)
    renamed = dataset.drop_vars(["length", "timestamp"]).rename(sample="patient", feature="channel", input="readings")
    assert_gives(opened(renamed, SPEC), VALUES, None, NAMES)
    assert_gives(opened(renamed, SPEC, lengths=LENGTHS), VALUES, LENGTHS, NAMES)
    part = dataset.chunk(sample=4).isel(sample=slice(1, None))
    np.testing.assert_array_equal(whole(opened(part, SPEC), 3).inputs, VALUES[1:])


def test_dimensions_by_name_and_position():
    """A dimension called time or sample stands where its name says, the others where they are left."""
    array = xr.DataArray(VALUES.transpose(1, 0, 2), dims=("time", "patient", "channel"))
    assert_gives(opened(array), VALUES)
    assert_gives(opened(xr.DataArray(IDS.T, dims=("time", "sample")), tokens=True), IDS)


def test_a_part_of_a_file_is_read_right(tmp_path):
    """Of a file that is sliced or chunked by the caller just those rows are read."""
    path = to_zarr(dataset_of().chunk(sample=4), tmp_path / "x.zarr")
    for chunks in (None, {}, {"sample": 8}):
        part = xr.open_zarr(path, chunks=chunks, consolidated=False).isel(sample=slice(3, 10))
        np.testing.assert_array_equal(whole(opened(part, SPEC), 2).inputs, VALUES[3:10])


def test_features_come_in_the_models_order():
    """Features of the same names are put in the model's order, which is noted; other names are refused."""
    order = ["c", "a", "b"]
    source = opened(dataset_of().sel(feature=order), SPEC)
    assert_gives(source, VALUES, LENGTHS, NAMES, TIMES)
    assert source.notes == ("the features were put in the model's order: a, b, c",)
    assert opened(dataset_of(), SPEC).notes == ()
    np.testing.assert_array_equal(whole(opened(dataset_of().sel(feature=order)), N).inputs, VALUES[..., [2, 0, 1]])
    numbered = dataset_of().assign_coords(feature=[0, 1, 2])
    assert_gives(opened(numbered, SPEC), VALUES, LENGTHS, NAMES, TIMES)
    for names, told in ((["a", "b", "x"], "not the model's: x; missing: c"), (["a", "b", "b"], "missing: c")):
        with pytest.raises(InvalidInputError, match=rf"the model reads a, b, c \({told}\)"):
            opened(dataset_of().assign_coords(feature=names), SPEC)


def test_which_variable_is_read():
    """`inputs` or `input` is read, or the only variable of three dimensions; several are refused by name."""
    dataset = dataset_of()
    more = dataset.assign(attribution=dataset["input"] * 2)
    assert_gives(opened(more, SPEC), VALUES, LENGTHS, NAMES, TIMES)
    with pytest.raises(InvalidInputError, match=r"holds the arrays .*one, two.*; expected one called 'inputs'"):
        opened(more.rename(input="one", attribution="two"), SPEC)
    with pytest.raises(InvalidInputError, match="expected one called 'inputs'"):
        opened(dataset.drop_vars("input"), SPEC)


# -- tables ----------------------------------------------------------------------------------------------------------

TABLE_SPEC = DataSpec(
    features=(FeatureSpec(name="x", center=2, scale=3), FeatureSpec(name="change", column="x", transform="difference")),
    window=WindowSpec(length=3, time_column="time", max_gap_seconds=600, missing="drop"),
)


def table_of(rows=23, **columns) -> pd.DataFrame:
    times = pd.Timestamp("2020-03-01") + pd.to_timedelta([5 * row + 60 * (row > 9) for row in range(rows)], unit="min")
    frame = pd.DataFrame({"time": times.astype(str), "x": np.arange(rows) ** 1.5, "other": "text", **columns})
    frame.loc[frame.index == 5, "x"] = np.nan
    return frame


def write(frame, path):
    if path.suffix in (".parquet", ".pq"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def assert_same(source, data: SequenceData):
    for rows in (1, 4, 1000):
        found = whole(source, rows)
        np.testing.assert_array_equal(found.inputs, data.inputs, strict=True)
        np.testing.assert_array_equal(found.lengths, data.lengths)
        assert found.names == data.sample_names
        if data.times is not None:
            np.testing.assert_array_equal(found.times, data.times)
    assert source.timed == (data.times is not None)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "parquet", "pq"])
@pytest.mark.parametrize("options", [{}, {"stride": 4}, {"windows": "last"}, {"id_column": "ward"}])
def test_tables(tmp_path, suffix, options):
    """A table gives the windows that read_csv cuts, all of them unless told otherwise, and its notes."""
    path = write(table_of(ward=[row % 2 for row in range(23)]), tmp_path / f"x.{suffix}")
    source, data = (
        opened(path, TABLE_SPEC, features=2, **options),
        read_csv(path, TABLE_SPEC, **{"windows": "all"} | options),
    )
    assert_same(source, data)
    assert (source.notes, source.features, source.dtype) == (data.notes, 2, np.float32)
    assert (source.steps, source.description) == (3, str(path))


def test_windows_of_any_length():
    """Where each id is one sequence, blocks are padded to their own longest."""
    frame = pd.DataFrame({"id": [1] * 2 + [2] * 7 + [3] * 4, "x": range(13)})
    spec = DataSpec(features=(FeatureSpec(name="x"),))
    source = opened(frame, spec, features=1, id_column="id")
    assert [block.inputs.shape for block in source.blocks(1)] == [(1, 2, 1), (1, 7, 1), (1, 4, 1)]
    assert_same(source, SequenceData.from_frame(frame, spec, windows="all", id_column="id"))
    assert source.steps == 7


def test_a_table_for_a_model_that_names_no_features(tmp_path):
    """The number columns are read as they stand, and a column of ids by a model of tokens; notes say so."""
    path = write(pd.DataFrame({"id": [1, 1, 2], "x": [1.5, 2, 3], "y": [4, 5, 6], "z": "text"}), tmp_path / "x.csv")
    source = opened(path, None, features=2, id_column="id")
    assert whole(source, 5).inputs.tolist() == [[[1.5, 4], [2, 5]], [[3, 6], [0, 0]]]
    assert source.notes[0].startswith("the columns x, y are read as they stand")
    assert source.notes[0].endswith("Not read: z.")
    assert source.notes[1].startswith("the whole table of each id is one sequence")
    with pytest.raises(InvalidInputError, match=r"has 3 number columns \(id, x, y\); the model reads 2"):
        opened(path, None, features=2)
    path = write(pd.DataFrame({"id": [1, 1, 2], "token": [3, 0, 9]}), tmp_path / "ids.csv")
    source = opened(path, None, tokens=True, id_column="id")
    assert whole(source, 5).inputs.tolist() == [[3, 0], [9, 0]]
    assert (source.dtype, source.features) == (np.int64, None)
    with pytest.raises(InvalidInputError, match="no column 'token' of whole numbers"):
        opened(write(pd.DataFrame({"word": ["a"]}), tmp_path / "words.csv"), None, tokens=True)
    with pytest.raises(InvalidInputError, match="holds the token id 1000000000000"):
        opened(pd.DataFrame({"token": [10**12]}), None, tokens=True)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_texts(tmp_path, suffix):
    """Each row's text is a sequence, encoded as encode_text does; one without a token has length 0."""
    texts = ["a b", None, "b", "a a odd b", "a"]
    path = write(pd.DataFrame({"text": texts, "other": 1}), tmp_path / f"x.{suffix}")
    source = opened(path, TEXT_SPEC, tokens=True, text_column="text")
    kept = [text for text in texts if text is not None]
    assert_same(source, encode_text(kept, TEXT_SPEC))
    assert source.notes == (
        "1 rows have no text and are left out", "1 texts are cut off after 3 words",
        "1 of 7 tokens are not in the vocabulary and read as <unknown>",
    )  # fmt: skip
    blank = opened(pd.DataFrame({"text": ["a", " ", "", "b a"]}), TEXT_SPEC, tokens=True, text_column="text")
    for rows in (1, 2, 10):
        found = whole(blank, rows)
        assert (found.lengths.tolist(), found.names) == ([1, 0, 0, 2], ("a", "row 2", "row 3", "b a"))
        assert found.inputs.tolist() == [[2, 0], [0, 0], [0, 0], [3, 2]]


def test_texts_refused(tmp_path):
    """A column that is not there, a model of no texts, an unknown token, and a table that must be texts say so."""
    frame = pd.DataFrame({"text": ["a", "odd"]})
    with pytest.raises(InvalidInputError, match=r"no column 'txt'; known: text\. Did you mean 'text'"):
        opened(frame, TEXT_SPEC, tokens=True, text_column="txt")
    with pytest.raises(InvalidInputError, match="text_column is given, and the model does not say"):
        opened(frame, SPEC, text_column="text")
    narrow = DataSpec(vocabulary=(PADDING, "a"), token_unit="word")
    with pytest.raises(InvalidInputError, match="data row 2 holds 'odd', which is not in the vocabulary"):
        opened(frame, narrow, tokens=True, text_column="text")
    with pytest.raises(InvalidInputError, match="is to hold texts; name their column"):
        opened(write(frame, tmp_path / "x.csv"), TEXT_SPEC, tokens=True)
    with pytest.raises(InvalidInputError, match="has no text in 'text'"):
        opened(pd.DataFrame({"text": [None]}), TEXT_SPEC, tokens=True, text_column="text")


# -- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_arrays(tmp_path):
    """All files of a folder are read in the order of their names; what is hidden or of another kind is not."""
    np.save(tmp_path / "a.npy", VALUES[:3])
    np.savez(tmp_path / "b.npz", inputs=VALUES[3:4, :4], sample_names=np.array(["one"]), lengths=[2])
    to_zarr(dataset_of().isel(sample=slice(4, 9)), tmp_path / "c.zarr")
    dataset_of().isel(sample=slice(9, 11)).to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    (tmp_path / ".hidden.npy").write_text("no array")
    (tmp_path / "notes.md").write_text("no array")
    (tmp_path / "sub").mkdir()
    source = opened(tmp_path, SPEC)
    inputs = VALUES.copy()
    inputs[3, 4:] = 0
    names = (
        "a: sample 0",
        "a: sample 1",
        "a: sample 2",
        "b",
        *(f"{'c' if row < 9 else 'd'}: ward {row}" for row in range(4, N)),
    )
    lengths = [5, 5, 5, 2, *LENGTHS[4:]]
    assert_gives(source, inputs, lengths, names)
    assert source.notes == ("times are left out, because a.npy has none",)
    assert [len(block) for block in source.blocks(4)] == [4, 4, 3]
    stamp = source.stamp
    assert [part[0] for part in json.loads(stamp)] == ["a.npy", "b.npz", "c.zarr", "d.nc"]
    np.save(tmp_path / "a.npy", VALUES[:2])
    assert opened(tmp_path, SPEC).stamp != stamp
    with pytest.raises(
        InvalidInputError, match=r"a\.npy has changed while it was being read: 3 sequences before and 2"
    ):
        list(source.blocks(4))


def test_a_folder_of_tables(tmp_path):
    """Tables in a folder are cut as each alone, with its notes; times stay where all files have them."""
    for name, rows in (("b.csv", 14), ("a.parquet", 23), ("c.tsv", 3)):
        write(table_of(rows), tmp_path / name)
    each = [read_csv(tmp_path / name, TABLE_SPEC, windows="all") for name in ("a.parquet", "b.csv", "c.tsv")]
    source = opened(tmp_path, TABLE_SPEC, features=2)
    found = whole(source, 5)
    np.testing.assert_array_equal(found.inputs, np.concatenate([data.inputs for data in each]))
    np.testing.assert_array_equal(found.times, np.concatenate([data.times for data in each]))
    assert found.names == (
        *(f"a: {name}" for name in each[0].sample_names), *(f"b: {name}" for name in each[1].sample_names), "c"
    )  # fmt: skip
    files = ("a.parquet", "b.csv", "c.tsv")
    assert source.notes == tuple(
        f"{file}: {note}" for file, data in zip(files, each, strict=True) for note in data.notes
    )  # fmt: skip


def test_a_folder_is_read_one_file_at_a_time(tmp_path, monkeypatch):
    """No more than one file is open at once, and none before its turn."""
    for row in range(6):
        np.save(tmp_path / f"{row}.npy", VALUES[row : row + 1])
    source = opened(tmp_path)
    seen = []
    original = source._open
    monkeypatch.setattr(source, "_open", lambda file: seen.append(file.name) or original(file))
    blocks = source.blocks(2)
    assert next(blocks).names == ("0", "1")
    assert seen == ["0.npy", "1.npy"]


def test_folders_refused(tmp_path):
    """An empty folder, files of different features, ids among floats and a damaged file are named."""
    with pytest.raises(InvalidInputError, match=r"holds no file that is read; expected \.npy"):
        opened(tmp_path)
    np.save(tmp_path / "a.npy", VALUES)
    np.save(tmp_path / "b.npy", VALUES[..., :2])
    with pytest.raises(InvalidInputError, match=r"b\.npy holds sequences of 2 features, and .*a\.npy sequences of 3"):
        opened(tmp_path, features=None)
    with pytest.raises(InvalidInputError, match=r"b\.npy has shape \(11, 5, 2\), 2 features"):
        opened(tmp_path)
    np.save(tmp_path / "b.npy", IDS)
    with pytest.raises(InvalidInputError, match=r"b\.npy holds token ids, and .*a\.npy sequences of 3 features"):
        opened(tmp_path, features=None)
    (tmp_path / "b.npy").write_text("no array")
    with pytest.raises(InvalidInputError, match=r"b\.npy is not a readable NPY file"):
        opened(tmp_path)
    with pytest.raises(InvalidInputError, match="lengths= is given, and a folder brings its own"):
        opened(tmp_path, lengths=LENGTHS)
    with pytest.raises(InvalidInputError, match=r"id_column= \(--id-column\) is given, and .* is no table"):
        opened(tmp_path, id_column="id")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 7))
def test_regrouped(sizes, rows):
    """Blocks of any sizes become blocks of one size, padded to the longest among them."""
    blocks = [
        Block(np.full((size, size, 1), size), np.full(size, size), (str(size),) * size, None) for size in sizes
    ]  # fmt: skip
    found = list(regrouped(blocks, rows))
    assert [len(block) for block in found[:-1]] == [rows] * (len(found) - 1)
    assert 0 < len(found[-1]) <= rows
    each = [
        (name, row[:length, 0].tolist())
        for b in found
        for name, row, length in zip(b.names, b.inputs, b.lengths, strict=True)
    ]
    assert each == [(str(size), [size] * size) for size in sizes for _ in range(size)]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "options", "told"),
    [
        (VALUES[0], {}, r"has shape \(5, 3\); .*features=3\)\. For one sequence use inputs\[None\]"),
        (VALUES[..., :2], {}, r"2 features; the model reads \(samples, time, features=3\)"),
        (VALUES[:0], {}, "expected at least one sequence"),
        (VALUES[:, :0], {}, "expected at least one sequence"),
        (VALUES.astype(complex), {}, "holds complex128 values; expected numbers"),
        (VALUES.astype(str), {}, "values; expected numbers"),
        (IDS, {}, r"has shape \(11, 5\)"),
        (VALUES, {"tokens": True}, "holds float32 values; the model reads token ids"),
        (IDS[..., None, None], {"tokens": True}, r"has shape \(11, 5, 1, 1\)"),
        (np.float32(3), {}, "is a single value"),
        (np.ma.masked_invalid(VALUES), {}, "is a masked array; fill it first"),
        (torch.tensor(VALUES).to_sparse(), {}, "is a sparse or quantized tensor"),
        (torch.tensor(VALUES) * 1j, {}, "complex64 values"),
        (da.from_array(VALUES)[da.from_array(LENGTHS) > 2], {}, r"call its compute_chunk_sizes\(\) first"),
        ([[1.0], [1.0, 2.0]], {}, "is not rectangular"),
        (VALUES, {"lengths": LENGTHS[:3]}, r"lengths of the shape \(3,\); expected \(11,\)"),
        (VALUES, {"lengths": LENGTHS - 1}, r"1 lengths that do not fit, the first -1 \(sequence 2\)"),
        (VALUES, {"lengths": LENGTHS + 1}, r"lengths that do not fit, the first 6 \(sequence 0\); .* 0 to 5"),
        (VALUES, {"lengths": LENGTHS + 0.5}, "lengths that do not fit, the first 5.5"),
        (VALUES, {"lengths": LENGTHS > 2}, "lengths of bool; expected whole numbers"),
        (VALUES, {"text_column": "x"}, r"text_column= \(--text-column\) is given, and the source is no table"),
        ({"x": 1}, {}, "source is dict; expected an array"),
        (SequenceData(VALUES, LENGTHS, NAMES, None, LENGTHS), {"lengths": LENGTHS}, "brings its own; leave it out"),
        (dataset_of(), {"lengths": LENGTHS}, "has its own 'length', and lengths= is given"),
        (dataset_of().rename(time="t", timestamp="times").assign(times=("t", TIMES[0])), {}, "'times' with the dimens"),
        (dataset_of().assign(timestamp=(("sample", "time"), IDS)), {}, r"times of the shape \(11, 5\) and type int64"),
        (xr.DataArray(VALUES[0, 0]), {}, "has inputs of the dimensions"),
    ],
)  # fmt: skip
def test_refused(array, options, told):
    """What a model does not read is refused with what was expected, before anything is read."""
    with pytest.raises(GatelensError, match=told):
        opened(array, **options)


def test_a_failing_dask_array_says_so():
    """What a lazy array raises when it is computed comes with the source's name."""

    def fails(block):
        raise RuntimeError("the disk is gone")

    source = opened(da.from_array(VALUES, (4, T, D)).map_blocks(fails, dtype=np.float32, meta=VALUES[:0]))
    with pytest.raises(InvalidInputError, match="the array cannot be read: the disk is gone"):
        next(source.blocks(2))


class _Trap:
    """Unpickling this would fail the test."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def header(shape, dtype="<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def zipped(**members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def saved(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


TRAP = np.array([_Trap()], dtype=object)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("x.npy", b"", "not a readable NPY file"),
        ("x.npy", header((N, T, D)) + VALUES.tobytes()[:-8], "not a readable NPY file"),
        ("x.npy", header((10**12, 5, 5)), "not a readable NPY file"),
        ("x.npy", header((N, T, D), "|O") + pickle.dumps(_Trap()), "not a readable NPY file"),
        ("x.npy", pickle.dumps(_Trap()), "not a readable NPY file"),
        ("x.npz", b"PK", "not a readable NPZ file"),
        ("x.npz", saved(inputs=TRAP), "'inputs' holds Python objects, which are not read"),
        ("x.npz", saved(inputs=VALUES, sample_names=TRAP), "'sample_names' holds Python objects"),
        ("x.npz", zipped(inputs=header((10**12, 5, 5))), r"claims the shape \(1000000000000, 5, 5\).* holds 0 bytes"),
        ("x.npz", zipped(inputs=header((-1, 5, 3)) + b"0" * 60), "claims the shape"),
        ("x.npz", zipped(inputs=b"no header"), "not a readable NPZ file"),
        ("x.npz", zipped(), r"holds the arrays \(none\)"),
        ("x.npz", saved(inputs=VALUES, lengths=LENGTHS[:2]), r"lengths of the shape \(2,\)"),
        ("x.npz", saved(inputs=VALUES, times=TIMES[:, :2]), r"times of the shape \(11, 2\)"),
        ("x.npz", saved(inputs=VALUES, sample_names=np.array(["a"])), r"names of the shape \(1,\)"),
        ("x.nc", b"no netCDF", "not a readable netCDF-4 file"),
        ("x.csv", b"", "is empty"),
        ("x.parquet", b"no parquet", "not a readable Parquet file"),
        ("x.pkl", pickle.dumps(_Trap()), r"of a kind that is not read \(\.pkl\); expected \.npy"),
        ("x.zarr", b"no folder", "not a readable Zarr store"),
    ],
)  # fmt: skip
def test_hostile_files(tmp_path, name, data, told):
    """A damaged or hostile file is refused in a sentence that names it, and nothing in it is run."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(GatelensError, match=told) as refusal:
        opened(path, SPEC)
    assert str(path) in str(refusal.value)


def test_an_npz_that_ends_early(tmp_path):
    """Damage that only reading shows is told with the file's name."""
    data = bytearray(saved(inputs=np.tile(VALUES, (200, 1, 1))))
    data[100_000] ^= 255  # a number, so that the checksum is wrong
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=r"x\.npz cannot be read: Bad CRC-32"):
        list(opened(path).blocks(N))


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_the_stamp_changes_with_the_file(tmp_path, kind):
    """A number that changes in a file, or in one chunk of a store, changes the stamp; reading does not."""
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, VALUES)
    else:
        zarr.create_array(path, data=VALUES, chunks=(4, T, D))
    source = opened(path)
    list(source.blocks(3))
    assert opened(path).stamp == source.stamp
    if kind == "npy":
        np.save(path, VALUES + 1)
    else:
        zarr.open_array(path, mode="r+")[9] = 1
    assert opened(path).stamp != source.stamp


def test_no_such_file(tmp_path):
    """A path that is not there is told with what may be."""
    with pytest.raises(InvalidInputError, match=r"there is no file .*x\.zarr; expected \.npy, \.npz, \.nc, \.zarr"):
        opened(tmp_path / "x.zarr")


def damage(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


@pytest.mark.parametrize("version", [2, 3])
def test_hostile_zarr(tmp_path, version):
    """A store whose metadata is damaged, claims what is not there, or would be unpickled is refused in a sentence."""
    good, path = to_zarr(dataset_of().chunk(sample=4), tmp_path / "good.zarr", version), tmp_path / "x.zarr"
    file = {2: ".zarray", 3: "zarr.json"}[version]

    def made():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(good, path)
        return path / "input" / file

    def refused(told):
        with pytest.raises(GatelensError, match=told) as refusal:
            list(opened(path, SPEC).blocks(3))
        assert str(path) in str(refusal.value)

    made().write_text("{")
    refused("x.zarr is not a readable Zarr store")
    made().write_text("[]")
    refused("x.zarr is not a readable Zarr store")
    damage(made(), lambda told: told.update(shape=[10**12, T, D]))
    refused("x.zarr")
    made()
    damage(path / "length" / file, lambda told: told.update(shape=[N - 2]))
    refused("x.zarr")
    made()
    for chunk in (path / "input").rglob("*0*"):
        if chunk.is_file():
            chunk.write_bytes(b"no data")
    refused("x.zarr cannot be read")
    shutil.rmtree(path)
    path.mkdir()
    refused("x.zarr is not a readable Zarr store")


def test_a_store_that_claims_more_than_it_can_hold(tmp_path):
    """A shape of 10**12 sequences in a file of some bytes is refused."""
    path = tmp_path / "x.zarr"
    zarr.create_array(path, shape=(10**12, 5, 3), chunks=(10, 5, 3), dtype="f4")
    with pytest.raises(InvalidInputError, match=r"claims 1000000000000 sequences of 5 timesteps, .* never written"):
        opened(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sample", {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]}),
        ("sample", {"dtype": "|O", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle", "protocol": 5}}),
        ("input", {"filters": [{"id": "pickle", "protocol": 5}]}),
        ("input", {"compressor": {"id": "pickle", "protocol": 5}}),
    ],
)
def test_a_pickled_zarr_is_refused(tmp_path, name, change):
    """Arrays that Zarr decodes by unpickling, values or compressed bytes, are refused before anything is read."""
    path = to_zarr(dataset_of(), tmp_path / "x.zarr", 2)
    for chunk in (path / name).glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(_Trap()))
    damage(path / name / ".zarray", lambda told: told.update(change))
    with pytest.raises(InvalidInputError, match=r"x\.zarr (stores 'sample' as pickled|is not .* No Zarr data type)"):
        opened(path, SPEC)


def test_a_packed_table(tmp_path) -> None:
    """A table that is packed with gzip is the table."""
    frame = pd.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0)[::-1]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_csv(tmp_path / "y.csv.gz", index=False)
    spec = DataSpec(features=(FeatureSpec(name="a"), FeatureSpec(name="b")), window=WindowSpec(length=5))
    plain, packed = (
        list(open_source(tmp_path / name, spec, tokens=False, features=2).blocks(7)) for name in ("x.csv", "y.csv.gz")
    )
    for one, other in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
