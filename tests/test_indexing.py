"""From a folder to hits, with a tiny model: what is read, kept, resumed and reported."""

import json
import os
import stat

import numpy as np
import pytest
from PIL import Image, ImageDraw

from metaembed import indexing
from metaembed.budget import Budget
from metaembed.errors import BudgetError, IndexMismatchError, ItemError
from metaembed.indexing import index_folder
from metaembed.items import Item
from metaembed.ledger import Ledger
from metaembed.library import Library, check_length, fitting
from metaembed.model import MetaEmbed

GROUPS = ("1x1", "2x4", "4x8")
WORDS = ["fox", "dog", "query", "whales", "prices", "page", "three", "report", "model"]


@pytest.fixture(scope="module")
def model(bert_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS
    )
    made.save_pretrained(str(folder))
    loaded = MetaEmbed(folder).eval()
    loaded.folder = folder
    return loaded


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, word in enumerate(WORDS):
        (folder / f"{word}.txt").write_text(f"the {word} number {number}\n")
    (folder / "deep").mkdir()
    (folder / "deep" / "notes.md").write_text("# Whales\n\nsing\n\n# Prices\n\nrise\n")
    return folder


@pytest.fixture
def library(tmp_path, model):
    library = Library.create(tmp_path / "index", model=model, model_name=str(model.folder))
    yield library
    library.index.close()


def texts_of(library):
    ids = library.index.ids()
    return dict(zip(ids, library.index.texts(ids), strict=True))


def test_every_file_becomes_findable_with_its_place(library, folder):
    report = index_folder(library, folder)
    assert (report.files, report.skipped, report.incomplete) == (10, {}, {})
    assert report.encoded == len(library.index) == 11
    hits = library.search(Item("the whales number 3"), k=20).hits
    assert len(hits) == 11
    assert {hit.source for hit in hits} == {f"{word}.txt" for word in WORDS} | {"deep/notes.md"}
    exact = next(hit for hit in hits if hit.source == "whales.txt")
    assert exact.snippet == "the whales number 3"
    assert exact.page is None
    assert exact.id == f"whales.txt#{exact.place.replace(' ', '=', 1)}"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_scores_are_those_of_the_model_at_the_budget(library, folder):
    index_folder(library, folder)
    for budget in map(Budget.parse, GROUPS):
        query = library.model.encode_query(["fox"], budget=budget)
        best = library.search(Item("fox"), budget=budget, k=1).hits[0]
        candidates = library.index.embeddings(library.index.ids())
        scores = library.model.similarity(
            query, candidates[:, : budget.candidate].astype(np.float32)
        )
        assert best.score == pytest.approx(scores.max().item(), rel=0.01)  # rounded to bfloat16


def test_a_second_run_encodes_only_what_changed(library, folder):
    index_folder(library, folder)
    before = library.index.ids()
    again = index_folder(library, folder)
    assert (again.encoded, again.unchanged, library.index.ids()) == (0, 10, before)
    os.utime(folder / "fox.txt", ns=(1, 1))  # touched, but the same
    assert index_folder(library, folder).unchanged == 10
    (folder / "fox.txt").write_text("the fox is another one now\n")
    (folder / "deep" / "notes.md").write_text("# Whales\n\nsing\n\n# Prices\n\nfall\n")
    (folder / "dog.txt").unlink()
    (folder / "new.txt").write_text("a new page\n")
    changed = index_folder(library, folder)
    assert (changed.encoded, changed.kept, changed.removed) == (3, 1, 1)
    texts = texts_of(library)
    assert len(texts) == 11
    assert not [id for id in texts if id.startswith("dog.txt")]
    assert "the fox is another one now" in texts.values()
    assert not [text for text in texts.values() if "rise" in text]


def test_an_index_most_of_which_is_deleted_is_compacted(library, folder):
    index_folder(library, folder)
    for word in WORDS[:-1]:
        (folder / f"{word}.txt").unlink()
    index_folder(library, folder)
    assert library.index.stats()[:3] == (3, 0, 1)
    assert library.index.verify() == []


def test_an_interrupted_run_goes_on_and_ends_as_an_uninterrupted_one(
    library, folder, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(indexing, "CHUNK", 3)

    def stop(progress):
        if progress.passages >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(library, folder, progress=stop)
    stored = len(library.index)
    assert stored >= 6
    report = index_folder(library, folder)
    assert report.encoded == 11 - stored
    whole = Library.create(tmp_path / "whole", model=model, model_name=str(model.folder))
    index_folder(whole, folder)
    assert sorted(whole.index.ids()) == sorted(library.index.ids())
    ids = sorted(whole.index.ids())
    # Batches differ, so vectors agree up to what bulk precision leaves.
    np.testing.assert_allclose(
        whole.index.embeddings(ids), library.index.embeddings(ids), atol=0.05
    )
    whole.index.close()


def test_a_crash_between_index_and_ledger_costs_an_encoding_and_nothing_else(
    library, folder, monkeypatch
):
    def crash(self, passages):
        raise RuntimeError("power failure")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", crash)
        with pytest.raises(RuntimeError, match="power failure"):
            index_folder(library, folder)
    assert len(library.index) == 11
    index_folder(library, folder)
    assert len(library.index) == len(set(library.index.ids())) == 11


def test_a_dense_page_is_read_to_its_end_and_found_as_one_hit(library, folder):
    words = " ".join(f"{word} {number}" for number in range(60) for word in WORDS)
    (folder / "dense.txt").write_text(words + " needle")
    index_folder(library, folder)
    parts = {id: text for id, text in texts_of(library).items() if id.startswith("dense.txt")}
    assert len(parts) > 5
    assert any(text.endswith("needle") for text in parts.values())
    read = library.model[0].item_length
    lengths = [len(library.model.tokenizer(text)["input_ids"]) for text in parts.values()]
    assert max(lengths) <= read
    hits = library.search(Item("needle"), k=50).hits
    assert len(hits) == len({hit.id for hit in hits})
    assert len([hit for hit in hits if hit.source == "dense.txt"]) < len(parts)


def test_files_that_cannot_be_read_are_reported_and_the_rest_is_done(library, folder):
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (folder / "binary.txt").write_bytes(b"\0\1\2\3" * 100)
    report = index_folder(library, folder)
    assert set(report.skipped) == {"broken.pdf", "binary.txt"}
    assert all("\n" not in reason for reason in report.skipped.values())
    assert len(library.index) == 11


def test_a_scan_without_ocr_is_reported_and_read_once_ocr_is_there(
    library, folder, tmp_path, monkeypatch
):
    scan = Image.new("RGB", (200, 60), "white")
    ImageDraw.Draw(scan).text((5, 5), "whales", fill="black")
    scan.save(folder / "scan.png")
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    report = index_folder(library, folder)
    assert list(report.incomplete) == ["scan.png"]
    assert "tesseract" in report.incomplete["scan.png"]
    program = empty / "tesseract"  # stands for the real program: prints what it would have read
    program.write_text("#!/bin/sh\n/bin/cat > /dev/null\necho whales in the scan\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    report = index_folder(library, folder)
    assert (report.encoded, report.incomplete) == (1, {})
    assert "whales in the scan" in texts_of(library)["scan.png"]


def test_thumbnails_of_pictures_are_kept(library, folder):
    Image.new("RGB", (2000, 1000), "red").save(folder / "red.png")
    index_folder(library, folder)
    ledger = Ledger(library.index.path)
    jpeg = ledger.thumbnail("red.png")
    ledger.close()
    assert jpeg is not None
    assert jpeg.startswith(b"\xff\xd8")


def test_an_index_inside_its_folder_does_not_index_itself(model, folder):
    library = Library.create(folder / "index", model=model, model_name=str(model.folder))
    index_folder(library, folder)
    again = index_folder(library, folder)
    assert (again.files, again.encoded) == (10, 0)
    library.index.close()


def test_a_folder_with_none_of_the_indexs_files_is_refused(library, folder, tmp_path):
    index_folder(library, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "unrelated.txt").write_text("a page\n")
    with pytest.raises(IndexMismatchError, match="another folder"):
        index_folder(library, tmp_path / "other")
    assert len(library.index) == 11


def test_a_reopened_library_answers_the_same(library, folder):
    index_folder(library, folder)
    before = library.search(Item("whales"), k=5).hits
    again = Library.open(library.index.path)
    assert again.search(Item("whales"), k=5).hits == before
    again.index.close()


def test_an_index_of_another_model_is_refused(library, bert_folder, tmp_path):
    other = MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS, seed=7
    )
    other.save_pretrained(str(tmp_path / "other"))
    with pytest.raises(IndexMismatchError, match="another model"):
        Library.open(library.index.path, model_name=str(tmp_path / "other"))


def test_a_budget_beyond_the_index_is_refused(library, folder):
    index_folder(library, folder)
    with pytest.raises(BudgetError, match="4x8"):
        library.search(Item("fox"), budget=Budget(16, 64))


def test_a_query_too_long_is_refused_and_can_be_cut_to_fit(model):
    text = "whales " * 100_000
    with pytest.raises(ItemError, match="tokens; the model reads at most"):
        check_length(model, Item(text))
    check_length(model, Item(fitting(model, text)))


def test_a_model_that_sees_gets_the_pictures_themselves(qwen_folder, folder, tmp_path):
    made = MetaEmbed.create(
        qwen_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS
    )
    made.save_pretrained(str(tmp_path / "seeing"))
    for seed, colour in enumerate(["red", "blue"]):
        Image.effect_noise((60 + seed, 40), 80).convert("RGB").save(folder / f"{colour}.png")
    library = Library.create(
        tmp_path / "seen", model=MetaEmbed(tmp_path / "seeing"), model_name="x"
    )
    report = index_folder(library, folder)
    assert (report.incomplete, report.skipped) == ({}, {})
    assert {"red.png", "blue.png"} < set(library.index.ids())
    hits = library.search(Item.of({"image": folder / "red.png", "text": "red"}), k=3).hits
    assert len(hits) == 3
    library.index.close()


def test_many_queries_are_answered_in_order_as_one_by_one(library, folder):
    index_folder(library, folder)
    queries = [Item(word) for word in WORDS] * 5
    many = [results.hits for results in library.search_many(queries, k=3)]
    one_by_one = [library.search(query, k=3).hits for query in queries]
    assert [[hit.id for hit in hits] for hits in many] == [
        [hit.id for hit in hits] for hits in one_by_one
    ]


def test_metadata_is_plain_json(library, folder):
    index_folder(library, folder)
    data = library.index.get(library.index.ids()[:1])[0]
    assert json.loads(json.dumps(data)) == data
    assert set(data) == {"group", "source", "page", "place", "title"}
