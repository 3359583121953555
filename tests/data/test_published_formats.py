"""Every published form gives the examples that it means."""

from multiprocessing.reduction import ForkingPickler

import pyarrow as pa
import pytest

from metaembed.data.examples import Picture, Side
from metaembed.data.settings import SourceSettings
from metaembed.data.sources import open_source
from metaembed.errors import ItemError, RecipeError
from tests.data.published import (
    CIRR,
    SOUGHT,
    encoded,
    images,
    put_image,
    write_strings,
    write_table,
)


def opened(path, **kwargs):
    return open_source(SourceSettings(path=str(path), **kwargs))


# MMEB-train


def test_a_question_about_a_picture(mmeb):
    source = opened(mmeb, config="A-OKVQA")
    assert (source.format, source.name, len(source)) == ("mmeb", "MMEB-train/A-OKVQA", 4)
    first = source[0]
    assert first.query.text == (
        "Represent the given image with the following question: "
        "What is the man by the bags awaiting?\n"
    )
    assert first.query.picture.path == mmeb / "images/A-OKVQA/Train/A-OKVQA_image_0.jpg"
    assert first.positive == Side("cab")
    assert first.negatives == (Side("train"),)
    assert first.query.item().image.size == (40, 30)


def test_a_negative_may_be_a_picture_without_text(mmeb):
    first = opened(mmeb, config="VisDial")[0]
    assert first.query.picture is None
    assert first.query.text.startswith("Represent the given dialogue")
    (negative,) = first.negatives
    # Without the positive's instruction the text alone would tell right from wrong.
    assert negative.text == first.positive.text == "Represent the given image\n"
    assert negative.picture.path.name == "VisDial_image_61616.jpg"


def test_an_image_token_without_a_picture_is_deleted(mmeb):
    first = opened(mmeb, config="WebQA")[0]
    assert first.query == Side("Find a Wikipedia image that answers this question: 0?\n")
    assert first.positive.item().image.mode == "RGB"
    assert first.negatives == ()


def test_paths_may_hold_spaces_and_texts_need_no_line_end(mmeb):
    first = opened(mmeb, config="MSCOCO")[0]
    assert first.positive.text == "Represent the given cropped image of the object"
    assert first.positive.picture.size() == (20, 300)


def test_the_stale_split_is_never_taken(mmeb):
    assert len(opened(mmeb, config="CIRR")) == 4
    assert len(opened(mmeb, config="CIRR", split="train")) == 1


def test_both_splits_have_the_same_rows_in_other_words(mmeb):
    first, other = (
        opened(mmeb, config="A-OKVQA", split=split)[1].query
        for split in ("original", "diverse_instruction")
    )
    assert other.text == first.text.replace("Represent", "Describe")
    assert other.picture == first.picture


@pytest.mark.parametrize("start", ["", "CIRR", "CIRR/original-00000-of-00001.parquet"])
def test_pictures_are_found_from_root_folder_and_file(start, mmeb):
    source = opened(mmeb / start, config=None if start else "CIRR")
    assert source[0].query.picture.size() == (40, 30)


def test_positives_with_one_text_differ_by_their_pictures(mmeb):
    source = opened(mmeb, config="CIRR")
    assert len({row.positive.text for row in source}) == 1
    assert len({row.positive.key() for row in source}) == 4


def test_pictures_still_in_zip_files_are_an_error_that_says_so(tmp_path):
    (tmp_path / "images_zip").mkdir()
    write_strings(tmp_path / "X/original-00000-of-00001.parquet", [("q", "a.jpg", "p", "", "", "")])
    with pytest.raises(RecipeError, match=r"unpack them first: unzip 'images_zip/\*\.zip'"):
        opened(tmp_path, config="X")


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/secret.png", "images/../../x.jpg", "C:\\x"]
)
def test_rows_cannot_name_files_outside_their_folder(path, tmp_path):
    file = write_strings(
        tmp_path / "original-00000-of-00001.parquet", [("q", path, "p", "", "", "")]
    )
    with pytest.raises(ItemError, match=r"original-.*parquet, row 1: Column 'qry_image_path' has"):
        opened(tmp_path)[0]
    assert file.exists()


def test_urls_are_not_downloaded(tmp_path):
    rows = [("q", "https://x.org/a.jpg", "p", "", "", "")]
    write_strings(tmp_path / "original-00000-of-00001.parquet", rows)
    with pytest.raises(ItemError, match="download the picture"):
        opened(tmp_path)[0]


# MMEB-train with mined negatives


def hardneg(root, negatives, *, paths=None, text=str):
    """A file of mmE5-MMEB-hardneg with one row: CIRR, whose negatives are given as texts."""
    query = put_image(root, "images/CIRR/q.jpg", 1)
    positive = put_image(root, "images/CIRR/p.jpg", 2)
    row = (CIRR.format("x"), query, SOUGHT, positive, text(negatives), text(paths or []))
    write_strings(root / "CIRR/train-00000-of-00001.parquet", [row])
    return root


def test_negatives_in_a_string_with_a_python_list(tmp_path):
    paths = [put_image(tmp_path, f"images/CIRR/{n} it's.jpg", 10 + n) for n in range(10)]
    root = hardneg(tmp_path, [SOUGHT] * 10, paths=paths)
    source = opened(root, config="CIRR", num_negatives=3)
    assert source.format == "mmeb-hardneg"
    negatives = source[0].negatives
    # The text is the positive's: only text and picture together make a negative.
    assert {side.text for side in negatives} == {"Represent the given image.\n"}
    assert [side.picture.path.name for side in negatives] == [
        "0 it's.jpg",
        "1 it's.jpg",
        "2 it's.jpg",
    ]
    assert len(opened(root, config="CIRR")[0].negatives) == 1
    assert opened(root, config="CIRR", num_negatives=0)[0].negatives == ()


def test_negatives_that_are_texts_need_no_paths(tmp_path):
    root = hardneg(tmp_path, ["train", "parking time"], paths=["", ""])
    source = opened(root, config="CIRR", num_negatives=2)
    assert source[0].negatives == (Side("train"), Side("parking time"))


def test_the_positive_is_never_its_own_negative(tmp_path):
    root = hardneg(tmp_path, [SOUGHT, SOUGHT], paths=["images/CIRR/p.jpg", "images/CIRR/q.jpg"])
    (negative,) = opened(root, config="CIRR", num_negatives=2)[0].negatives
    assert negative.picture.path.name == "q.jpg"


def test_empty_texts_of_negatives_get_the_instruction(tmp_path):
    paths = ["images/CIRR/q.jpg", "images/CIRR/r.jpg"]
    root = hardneg(tmp_path, ["", ""], paths=paths)
    texts = [side.text for side in opened(root, config="CIRR", num_negatives=2)[0].negatives]
    assert texts == ["Represent the given image.\n"] * 2
    root = hardneg(tmp_path, ["", "Look.\n"], paths=paths)
    texts = [side.text for side in opened(root, config="CIRR", num_negatives=2)[0].negatives]
    assert texts == ["Look.\n"] * 2


@pytest.mark.parametrize(
    "literal",
    ["['a', ", "__import__('os').getcwd()]", "[" * 5000, "[1, 2]", "['a'] * 3", "[open('x')]"],
)
def test_a_string_that_is_no_list_of_texts_is_an_error(literal, tmp_path):
    text = literal if literal.startswith("[") else f"[{literal}"
    root = hardneg(tmp_path, text, paths=[""], text=str)
    with pytest.raises(ItemError, match=r"train-00000-of-00001\.parquet, row 1: .*'neg_text'"):
        opened(root, config="CIRR", format="mmeb-hardneg")[0]


def test_lists_without_end_are_refused(tmp_path):
    root = hardneg(tmp_path, ["a"] * 300_000)
    with pytest.raises(ItemError, match=r"1,500,000 characters"):
        opened(root, config="CIRR")[0]


def test_lists_of_different_length_are_an_error(tmp_path):
    root = hardneg(tmp_path, ["a", "b", "c"], paths=["x.jpg", "y.jpg"])
    with pytest.raises(ItemError, match="list 3 and 2 negatives"):
        opened(root, config="CIRR")[0]


def test_in_mmeb_itself_brackets_are_text(tmp_path):
    rows = [("q", "", "[1] a", "", "[2] b", "")]
    write_strings(tmp_path / "original-00000-of-00001.parquet", rows)
    source = opened(tmp_path)
    assert source.format == "mmeb"
    assert source[0].negatives == (Side("[2] b"),)


def test_b3_has_real_lists(tmp_path):
    put_image(tmp_path, "images/n.jpg", 3)
    columns = {
        "qry": pa.array(["who"]),
        "qry_image_path": pa.array([""]),
        "pos_text": pa.array([SOUGHT]),
        "pos_image_path": pa.array(["images/p.jpg"]),
        "neg_text": pa.array([[SOUGHT, "plain"]]),
        "neg_image_path": pa.array([["images/n.jpg", ""]]),
    }
    write_table(tmp_path / "VisDial/train-00000-of-00001.parquet", columns)
    source = opened(tmp_path, config="VisDial", num_negatives=5)
    assert source.format == "mmeb-hardneg"
    first, second = source[0].negatives
    assert first == Side("Represent the given image.\n", Picture(tmp_path / "images/n.jpg"))
    assert second == Side("plain")


def test_pictures_in_the_rows_go_before_paths(tmp_path):
    columns = {
        "qry": pa.array(["<|image_1|>\nwhat", "is it"]),
        "qry_image_path": pa.array(["images/gone.jpg", ""]),
        "qry_image": images(encoded(1), None),
        "pos_text": pa.array(["a cab", COMPARED]),
        "pos_image_path": pa.array(["", "images/gone too.jpg"]),
        "pos_image": images(None, encoded(2)),
        "neg_text": pa.array([["a bus", "a car"], [""]]),
        "neg_image_path": pa.array([["", ""], ["images/gone.jpg"]]),
        "neg_image_0": images(None, encoded(3)),
        "neg_image_1": images(None, None),
    }
    pictures = ("qry_image", "pos_image", "neg_image_0", "neg_image_1")
    file = tmp_path / "MoCa/VisDial/original-00000-of-00001.parquet"
    write_table(file, columns, images=pictures)
    source = opened(tmp_path / "MoCa", config="VisDial", num_negatives=2)
    assert source.format == "mmeb-hardneg"
    text, picture = source
    assert text.query == Side("what", Picture(content=encoded(1)))
    assert text.negatives == (Side("a bus"), Side("a car"))
    assert picture.positive == Side("Represent the given image\n", Picture(content=encoded(2)))
    assert picture.negatives == (Side("Represent the given image\n", Picture(content=encoded(3))),)


COMPARED = "<|image_1|>\nRepresent the given image\n"


# Page images


def test_colpali_train_set(tmp_path):
    columns = {
        "image": images(encoded(1), encoded(2), encoded(3)),
        "image_filename": pa.array(["a.png", "b.png", "c.png"]),
        "query": pa.array(["how many whales", None, "  "]),
        "answer": pa.array(["['4']", "x", "y"]),
        "source": pa.array(["docvqa", "pdf", "pdf"]),
    }
    write_table(tmp_path / "data/train-00000-of-00001.parquet", columns, images=("image",))
    write_table(tmp_path / "data/test-00000-of-00001.parquet", columns, images=("image",))
    source = opened(tmp_path)
    assert source.format == "colpali"
    assert len(source) == 1  # two have no query
    assert source[0].query == Side("how many whales")
    assert source[0].positive == Side(picture=Picture(content=encoded(1)))
    assert source[0].negatives == ()


def test_visrag_stores_bytes(tmp_path):
    columns = {
        "query": pa.array(["what share"]),
        "image": pa.array([encoded(9)], type=pa.binary()),
        "source": pa.array(["ChartQA"]),
    }
    write_table(tmp_path / "visrag.parquet", columns)
    source = opened(tmp_path / "visrag.parquet", format="visrag")
    assert source[0].positive.picture.size() == (40, 30)


# Tevatron


def tevatron(root, *, ids, positives, negatives):
    queries = {
        "query_id": pa.array([f"q{n}" for n in range(len(positives))]),
        "query_text": pa.array([f"question {n}" for n in range(len(positives))]),
        "query_image": images(*[None] * len(positives)),
        "positive_document_ids": pa.array(positives, type=pa.list_(pa.string())),
        "negative_document_ids": pa.array(negatives, type=pa.list_(pa.string())),
        "answer": pa.array([""] * len(positives)),
    }
    corpus = {
        "docid": pa.array(ids),
        "image": images(*(encoded(n) for n in range(len(ids)))),
        "text": pa.array([""] * len(ids)),
        "title": pa.array([None] * len(ids), type=pa.string()),
    }
    write_table(root / "queries.parquet", queries, images=("query_image",))
    write_table(root / "corpus.parquet", corpus, images=("image",))
    return root


def test_tevatron_looks_candidates_up_by_id(tmp_path):
    ids = [f"page {n}" for n in (7, 3, 9, 1)]
    root = tevatron(
        tmp_path,
        ids=ids,
        positives=[["page 3", "page 9"], []],
        negatives=[["page 9", "page 1", "page 7"], ["page 1"]],
    )
    source = opened(root, num_negatives=2)
    assert source.format == "tevatron"
    assert len(source) == 1  # the other query has no positive
    assert source[0].query == Side("question 0")
    assert source[0].positive == Side(picture=Picture(content=encoded(1)))
    # "page 9" is a positive as well.
    assert [side.picture.content for side in source[0].negatives] == [encoded(3), encoded(0)]


def test_a_corpus_may_lie_elsewhere_and_have_texts(tmp_path):
    (tmp_path / "q.jsonl").write_text(
        '{"query_id": 1, "query_text": "who", "positive_document_ids": [7],'
        ' "negative_document_ids": ["8"]}\n'
    )
    (tmp_path / "c.jsonl").write_text(
        '{"docid": "7", "title": "Whales", "text": "They swim."}\n{"docid": 8, "text": "Ants."}\n'
    )
    (source,) = opened(tmp_path / "q.jsonl", corpus=str(tmp_path / "c.jsonl"))
    assert (source.positive, source.negatives) == (Side("Whales They swim."), (Side("Ants."),))


def test_an_id_that_the_corpus_lacks_is_an_error(tmp_path):
    root = tevatron(tmp_path, ids=["a"], positives=[["a"]], negatives=[["b"]])
    with pytest.raises(
        ItemError, match=r"queries\.parquet, row 1: The corpus has no candidate 'b'"
    ):
        opened(root)[0]


@pytest.mark.parametrize("form", ["mmeb", "mmeb-hardneg", "colpali", "tevatron"])
def test_worker_processes_get_the_same_rows(form, mmeb, tmp_path):
    match form:
        case "mmeb":
            source = opened(mmeb, config="CIRR")
        case "mmeb-hardneg":
            source = opened(hardneg(tmp_path, ["a"]), config="CIRR")
        case "colpali":
            columns = {"query": pa.array(["q"]), "image": images(encoded(1))}
            source = opened(write_table(tmp_path / "a.parquet", columns, images=("image",)))
        case "tevatron":
            source = opened(tevatron(tmp_path, ids=["a"], positives=[["a"]], negatives=[[]]))
    assert source.format == form
    there = ForkingPickler.loads(ForkingPickler.dumps(source))  # as processes that are spawned
    assert there[0] == source[0]
