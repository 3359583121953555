"""One's own data in JSON lines and Parquet, and sentence-transformers' positional columns."""

import json
from multiprocessing.reduction import ForkingPickler

import datasets
import pyarrow as pa
import pytest

from metaembed.data.examples import Picture, Side
from metaembed.data.mixture import Mixture
from metaembed.data.settings import SourceSettings
from metaembed.data.sources import open_source
from metaembed.errors import ItemError, RecipeError
from tests.data.published import IMAGE, encoded, images, put_image, write_table


def opened(path, **kwargs):
    return open_source(SourceSettings(path=str(path), **kwargs))


def write_lines(file, *rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def test_texts_paths_and_objects_are_sides(tmp_path):
    put_image(tmp_path, "pages/page 1.png", 1, kind="PNG")
    picture = Picture(tmp_path / "pages/page 1.png")
    file = write_lines(
        tmp_path / "train.jsonl",
        {"query": "whales", "positive": "pages/page 1.png", "negatives": ["ants", "bees"], "id": 1},
        {
            "query": {"text": "like this", "image": "pages/page 1.png", "instruction": "Find it."},
            "positive": {"text": "pages/page 1.png"},
            "negative": {"image": str(tmp_path / "pages/page 1.png")},
        },
        {"query": "a.png", "positive": "no such picture.png"},
    )
    source = opened(file, num_negatives=2)
    assert (source.format, source.name, len(source)) == ("jsonl", "train.jsonl", 3)
    assert source[0].query == Side("whales")
    assert source[0].positive == Side(picture=picture)
    assert source[0].negatives == (Side("ants"), Side("bees"))
    assert source[1].query == Side("like this", picture, "Find it.")
    assert source[1].positive == Side("pages/page 1.png")
    assert source[1].negatives == (Side(picture=picture),)
    assert source[2].positive == Side("no such picture.png")


def test_blank_lines_are_passed_over_and_counted(tmp_path):
    row = '{"query": "q", "positive": "p"}'
    (tmp_path / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + f"{row}\r\n\r\n\n{row}\n{row[:-1]}\n[1]".encode()
    )
    source = opened(tmp_path / "a.jsonl")
    assert len(source) == 4
    assert source[0] == source[1]
    with pytest.raises(ItemError, match=r"a\.jsonl, line 5: not valid JSON"):
        source[2]
    with pytest.raises(ItemError, match=r"a\.jsonl, line 6: a row has to be a JSON object"):
        source[3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "", "positive": "p"}, "the query has neither text nor picture"),
        ({"query": "q", "positive": {"text": None}}, "the positive has neither"),
        ({"query": "q", "positive": 7}, "Column 'positive' holds a int"),
        ({"query": {"txt": "q"}, "positive": "p"}, r"unknown keys \['txt'\]; allowed are"),
        ({"query": {"text": 7}, "positive": "p"}, "Column 'query' has 'text' of type int"),
        ({"query": "q", "positive": "p", "negatives": ["n"] * 1001}, "1,001 entries"),
        ({"query": "q", "positive": {"image": "https://x.org/a.png"}}, "download the picture"),
    ],
)
def test_a_wrong_row_is_named(row, message, tmp_path):
    file = write_lines(tmp_path / "t.jsonl", {"query": "q", "positive": "p"}, row)
    with pytest.raises(ItemError, match=rf"t\.jsonl, line 2: .*{message}"):
        opened(file)[1]


def test_parquet_may_hold_pictures_in_objects_and_lists(tmp_path):
    side = pa.struct([("text", pa.string()), ("image", IMAGE), ("instruction", pa.string())])
    stored = {"bytes": encoded(3), "path": None}
    columns = {
        "query": pa.array([{"text": "q", "instruction": "Find it."}, {"text": None}], type=side),
        "positive": images(encoded(1), encoded(2)),
        "negatives": pa.array([[{"image": stored}, {"text": "n"}], None], type=pa.list_(side)),
    }
    source = opened(
        write_table(tmp_path / "own.parquet", columns, images=("positive",)),
        num_negatives=2,
        format="parquet",
    )
    first = source[0]
    assert first.query == Side("q", None, "Find it.")
    assert first.positive == Side(picture=Picture(content=encoded(1)))
    assert first.negatives == (Side(picture=Picture(content=encoded(3))), Side("n"))


def test_columns_by_position(tmp_path):
    columns = {
        "anchor": pa.array(["q"]),
        "text": pa.array(["p"]),
        "scores": pa.array([0.5]),
        "negative_1": pa.array(["n"]),
        "negative_2": images(encoded(1)),
    }
    file = write_table(tmp_path / "pairs.parquet", columns, images=("negative_2",))
    source = opened(file, num_negatives=9)
    assert source.format == "columns"
    assert source[0].query == Side("q")
    assert source[0].positive == Side("p")
    assert source[0].negatives == (Side("n"), Side(picture=Picture(content=encoded(1))))


def test_one_column_is_too_few(tmp_path):
    file = write_table(tmp_path / "x.parquet", {"text": pa.array(["q"])})
    with pytest.raises(RecipeError, match="needs a query and a positive"):
        opened(file)


def test_folders_that_datasets_saved(tmp_path):
    rows = datasets.Dataset.from_dict({"query": ["a", "b"], "positive": ["c", "d"]})
    rows.select([1, 0]).save_to_disk(tmp_path / "one")
    assert [row.query.text for row in opened(tmp_path / "one")] == ["b", "a"]
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(tmp_path / "two")
    assert len(opened(tmp_path / "two")) == 2
    assert len(opened(tmp_path / "two", split="test")) == 1


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "columns"])
def test_worker_processes_get_the_same_rows(kind, tmp_path):
    file = tmp_path / f"t.{'jsonl' if kind == 'jsonl' else 'parquet'}"
    if kind == "jsonl":
        write_lines(file, {"query": "q", "positive": "p"})
    else:
        write_table(file, {"query": pa.array(["q"]), "positive": pa.array(["p"])})
    mixture = Mixture.open([SourceSettings(path=str(file), format=kind)])
    there = ForkingPickler.loads(ForkingPickler.dumps(mixture))  # as processes that are spawned
    assert there[0] == mixture[0]
