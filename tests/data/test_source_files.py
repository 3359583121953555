"""Which files are taken, which rows of them, and what is said when they are not right."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaembed.data.settings import SourceSettings
from metaembed.data.sources import open_source, parse_split
from metaembed.errors import RecipeError
from tests.data.published import write_strings, write_table


def opened(path, **kwargs):
    return open_source(SourceSettings(path=str(path), **kwargs))


def texts(source):
    return [row.query.text for row in source]


def write_pairs(file, count, *, start=0):
    names = [str(n) for n in range(start, start + count)]
    return write_table(file, {"query": pa.array(names), "positive": pa.array(names)})


def test_shards_are_one_source_and_rows_keep_their_file(tmp_path):
    write_pairs(tmp_path / "train-00000-of-00002.parquet", 3)
    write_pairs(tmp_path / "train-00001-of-00002.parquet", 2, start=3)
    source = opened(tmp_path)
    assert texts(source) == ["0", "1", "2", "3", "4"]
    assert source.where(3).endswith("train-00001-of-00002.parquet, row 1")
    with pytest.raises(IndexError):
        source[5]


def test_a_missing_shard_is_an_error(tmp_path):
    write_pairs(tmp_path / "train-00001-of-00002.parquet", 2)
    with pytest.raises(RecipeError, match=r"lacks part 00000 of 00002 of split 'train'"):
        opened(tmp_path)


def test_a_changed_file_is_read_anew(tmp_path):
    assert texts(opened(write_pairs(tmp_path / "train.parquet", 2))) == ["0", "1"]
    assert texts(opened(write_pairs(tmp_path / "train.parquet", 2, start=7))) == ["7", "8"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"PAR1 and then nothing", "not a whole Parquet file"),
        (b"", "not a whole Parquet file"),
    ],
)
def test_damaged_files_are_named(content, message, tmp_path):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"train\.parquet' is .*{message.split(' ', 1)[1]}"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"path": "{}/none"}, "There is no file or folder"),
        ({"path": "{}"}, "has several configurations; set config to one of CIRR, X"),
        ({"path": "{}", "config": "Y"}, "has no configuration 'Y'"),
        ({"path": "{}", "config": "../CIRR"}, "not the name of a configuration"),
        ({"path": "{}/CIRR", "split": "test"}, "has no split 'test'; set split to one of a, b"),
        ({"path": "{}/CIRR"}, "has several splits; set split to one of a, b"),
        ({"path": "{}/X", "format": "colpali"}, "the format colpali needs query, image too"),
        ({"path": "{}/X", "image_dir": "{}/pictures"}, "There is no image_dir"),
        ({"path": "{}/X", "split": "a[1"}, "not of the form NAME or NAME"),
        ({"path": "{}/notes.txt"}, r"is neither \.parquet nor \.jsonl"),
        ({"path": "{}/empty"}, r"holds no \.parquet or \.jsonl file"),
    ],
)
def test_what_is_missing_is_said(kwargs, message, tmp_path):
    for name in ("CIRR/a", "CIRR/b", "X/original-00000-of-00001"):
        write_strings(tmp_path / f"{name}.parquet", [("q", "", "p", "", "", "")])
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=message):
        opened(**{key: value.format(tmp_path) for key, value in kwargs.items()})


def test_without_a_network_a_hub_id_is_one_line():
    with pytest.raises(RecipeError, match="no file or folder 'nobody/nothing', and the hub's") as e:
        opened("nobody/nothing")
    assert "\n" not in str(e.value)


def test_rows_with_an_empty_side_are_left_out_of_training(tmp_path):
    rows = [
        ("a", "", "p", "", "", ""),
        ("", "", "p", "", "", ""),
        (" ", "images/x.jpg", "p", "", "", ""),
        ("b", "", "", "", "n", ""),
    ]
    write_strings(tmp_path / "original-00000-of-00001.parquet", rows)
    source = opened(tmp_path)
    assert texts(source) == ["a", None]
    assert source.where(1).endswith("row 3")
    assert len(open_source(SourceSettings(path=str(tmp_path)), keep_empty=True)) == 4


def test_without_rows_there_is_no_source(tmp_path):
    write_strings(tmp_path / "original-00000-of-00001.parquet", [])
    (tmp_path / "x.jsonl").write_text("\n\n")
    for name in ("original-00000-of-00001.parquet", "x.jsonl"):
        with pytest.raises(RecipeError, match="has no rows"):
            opened(tmp_path / name)


def test_shards_without_rows_are_passed_over(tmp_path):
    write_pairs(tmp_path / "train-00000-of-00002.parquet", 0)
    write_pairs(tmp_path / "train-00001-of-00002.parquet", 2)
    source = opened(tmp_path)
    assert texts(source) == ["0", "1"]
    assert source.where(0).endswith("train-00001-of-00002.parquet, row 1")


def test_held_out_rows_are_a_part_of_a_split(tmp_path):
    write_pairs(tmp_path / "train.parquet", 10)
    assert texts(opened(tmp_path, split="train[:-3]")) == [str(n) for n in range(7)]
    assert texts(opened(tmp_path, split="[-3:]")) == ["7", "8", "9"]


@given(split=st.sampled_from(["train", "a b", ""]), part=st.slices(20))
def test_splits_are_read_as_python_slices(split, part):
    start, stop = part.start, part.stop
    text = f"{split}[{'' if start is None else start}:{'' if stop is None else stop}]"
    assert parse_split(text) == (split or None, slice(start, stop))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(count=st.integers(1, 12), seed=st.integers(0, 5))
def test_a_cap_is_a_sample_that_the_seed_decides(tmp_path, count, seed):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"query": "{n}", "positive": "p"}}\n' for n in range(10)))
    capped = SourceSettings(path=str(path), max_rows=count)
    found = texts(open_source(capped, seed=seed))
    assert len(found) == min(count, 10) == len(set(found))
    assert found == sorted(found)
    assert found == texts(open_source(capped, seed=seed))


def test_another_seed_draws_another_sample(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"query": "{n:03}", "positive": "p"}}\n' for n in range(500)))
    capped = SourceSettings(path=str(path), max_rows=250)
    first, second = (texts(open_source(capped, seed=seed)) for seed in (0, 1))
    assert first != second
    drawn = sum(text < "250" for text in first)
    assert 95 < drawn < 155  # about half from either half
