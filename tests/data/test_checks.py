"""What a check finds in a source with one of every fault, and in one without any."""

import json

import pyarrow as pa
import pytest

from metaembed.data import checks
from metaembed.data.checks import check_source
from metaembed.data.settings import SourceSettings
from metaembed.data.sources import open_source
from tests.data.published import CIRR, COLUMNS, SOUGHT, encoded, put_image, write_strings


def checked(path, *, decode=True, limit=None, **kwargs):
    source = open_source(SourceSettings(path=str(path), **kwargs), keep_empty=True)
    return check_source(source, decode=decode, limit=limit)


def test_a_sound_source(mmeb):
    report = checked(mmeb, config="VisDial")
    assert report.is_sound
    assert (report.rows, report.checked, report.format) == (4, 4, "mmeb")
    assert report.modalities == {
        "query": {"text": 4},
        "positive": {"text and picture": 4},
        "negative": {"text and picture": 4},
    }
    assert report.negatives == {1: 4}
    assert report.text_lengths == {
        "query": {"32-127": 4},
        "positive": {"0-31": 4},
        "negative": {"0-31": 4},
    }
    assert report.picture_sizes == {"positive": {"28-255": 4}, "negative": {"28-255": 4}}
    assert report.orphan_tokens == report.repeated_rows == 0
    assert report.first[0]["positive"] == {
        "text": "Represent the given image\n",
        "picture": "40x30",
    }


def test_image_tokens_without_pictures_are_counted(mmeb):
    report = checked(mmeb, config="WebQA")
    assert report.is_sound
    assert report.orphan_tokens == 4
    assert report.first[0]["query"]["text"].startswith("Find a Wikipedia image")


def test_small_crops_are_counted(mmeb):
    report = checked(mmeb, config="MSCOCO")
    assert (report.small_pictures, report.picture_sizes["positive"]) == (4, {"256-511": 4})


@pytest.fixture
def broken(tmp_path):
    """Ten rows: a good one, every fault, and what is no fault but worth knowing."""
    good = put_image(tmp_path, "images/good.jpg", 1, size=(300, 200))
    cut = put_image(tmp_path, "images/cut.jpg", 2, size=(900, 900))
    (tmp_path / cut).write_bytes((tmp_path / cut).read_bytes()[:4000])
    (tmp_path / "images/text.jpg").write_text("no picture")
    rows = [
        (CIRR.format("a"), good, SOUGHT, good, "", ""),
        (CIRR.format("b"), cut, SOUGHT, good, "", ""),
        (CIRR.format("c"), "images/text.jpg", SOUGHT, good, "", ""),
        (CIRR.format("d"), "images/none.jpg", SOUGHT, good, "", ""),
        ("", "", "p", "", "", ""),
        ("<|image_1|>\n", "", "p", "", "", ""),
        ("q", "", " ", "", "", ""),
        (CIRR.format("A "), good, SOUGHT, good, "", ""),
        ("same", "", "same\n", "", "", ""),
        ("what is <|image_pad|>", "../x.jpg", "p", "", "", ""),
    ]
    assert len(COLUMNS) == 6
    write_strings(tmp_path / "original-00000-of-00001.parquet", rows)
    return tmp_path


def test_every_fault_is_counted_and_named(broken):
    report = checked(broken)
    assert not report.is_sound
    assert report.faults == {
        "broken picture": 2,
        "missing picture": 1,
        "empty side": 3,
        "unreadable row": 1,
    }
    found = [(one.kind, one.where.rpartition(" ")[2]) for one in report.problems]
    assert found == [
        ("broken picture", "2"),
        ("broken picture", "3"),
        ("missing picture", "4"),
        ("empty side", "5"),
        ("empty side", "6"),
        ("empty side", "7"),
        ("unreadable row", "10"),
    ]
    assert report.problems[0].what.startswith("query: 'cut.jpg': The picture cannot be decoded")
    assert "leads out of the source's folder" in report.problems[-1].what
    assert report.modalities["query"] == {"text and picture": 5, "empty": 2, "text": 2}
    assert (report.repeated_rows, report.repeated_queries, report.repeated_positives) == (1, 1, 4)
    assert (report.answered_by_itself, report.orphan_tokens) == (1, 1)


def test_headers_alone_miss_a_picture_that_is_cut_off(broken):
    report = checked(broken, decode=False)
    assert report.faults["broken picture"] == 1
    assert report.picture_sizes["query"] == {"256-511": 2, "512-1023": 1}


def test_all_are_counted_and_some_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "MAX_NAMED", 5)
    monkeypatch.setattr(checks, "CHUNK", 7)
    write_strings(tmp_path / "original-00000-of-00001.parquet", [("", "", "p", "", "", "")] * 30)
    report = checked(tmp_path)
    assert report.faults == {"empty side": 30}
    assert len(report.problems) == 5
    assert checked(tmp_path, limit=10).faults == {"empty side": 10}


def test_a_text_that_was_meant_to_be_a_picture_is_missing(tmp_path):
    rows = [
        {"query": "see a.png", "positive": "pages/a b.png"},
        {"query": "x", "positive": "a.png"},
        {"query": "<image> <|im_end|>", "positive": {"text": "x"}},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = checked(tmp_path / "own.jsonl")
    assert report.faults == {"missing picture": 2}
    assert report.model_tokens == 1


def test_unreadable_lines_do_not_stop_a_check(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"query": "q", "positive": "p"}\n{"query"\n7\n')
    report = checked(tmp_path / "own.jsonl")
    assert report.faults == {"unreadable row": 2}
    assert report.problems[0].what.startswith("not valid JSON")
    assert report.modalities["query"] == {"text": 1}


def test_pictures_in_rows_are_checked_too(tmp_path):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": encoded(1)}, {"bytes": encoded(1)[:200]}, {"path": "gone.png"}]
    table = pa.table({"query": ["a", "b", "c"], "image": pa.array(values, type=image)})
    pa.parquet.write_table(table, tmp_path / "train.parquet")
    report = checked(tmp_path)
    assert report.format == "colpali"
    assert report.faults == {"broken picture": 1, "missing picture": 1}


def test_progress_ends_at_the_end(mmeb):
    seen = []
    source = open_source(SourceSettings(path=str(mmeb), config="CIRR"), keep_empty=True)
    check_source(source, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]
