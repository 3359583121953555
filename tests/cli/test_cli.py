"""The command line as a user meets it, with a tiny model; a mistake is one line and exit code 1."""

import json
import subprocess
import sys
from typing import get_args

import pytest
from PIL import Image

from metaembed.cli.options import Sketch, SketchChange, Storage
from metaembed.index.manifest import IndexType, SketchType
from metaembed.kernels import kernel_name
from metaembed.model import MetaEmbed
from tests.cli.examples import GROUPS, one_line_error
from tests.tiny import png_claiming


def test_indexing_says_what_it_did_and_what_to_type_next(run, documents, index, model):
    code, out, _ = run("index", documents, "--out", index, "--model", model)
    assert code == 0
    assert "2 files (2 unchanged, 0 skipped, 0 removed); 0 passages encoded" in out
    assert f"metaembed search {index}" in out


def test_search_prints_one_object_a_hit(run, index):
    code, out, _ = run("search", index, "whales", "--budget", "2x4", "-k", "2", "--json")
    assert code == 0
    hits = [json.loads(line) for line in out.splitlines()]
    assert len(hits) == 2
    assert set(hits[0]) == {"id", "score", "source", "page", "place", "title", "snippet"}
    assert {hit["source"] for hit in hits} == {"whales.txt", "prices.md"}
    assert hits[0]["page"] is None


def test_search_for_people_shows_source_snippet_and_time(run, index):
    code, out, err = run("search", index, "whales", "-k", "1")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "budget 4x8: encoding" in err


def test_the_budget_defaults_to_the_largest(run, index):
    _, default, _ = run("search", index, "whales", "--json")
    _, largest, _ = run("search", index, "whales", "--json", "-b", "4x8")
    assert default == largest


def test_many_queries_give_one_object_each(run, index, tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"id": "a", "query": "whales"}\n\n{"id": 7, "query": "prices", "more": 1}\n')
    code, out, _ = run("search", index, "--queries", file, "-k", "1", "--budget", "1x1")
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in answers] == ["a", 7]
    assert all(len(answer["hits"]) == 1 for answer in answers)
    single = [
        json.loads(run("search", index, q, "-k", "1", "-b", "1x1", "--json")[1])
        for q in ("whales", "prices")
    ]
    assert [answer["hits"][0]["id"] for answer in answers] == [hit["id"] for hit in single]


def test_search_can_be_narrowed_to_a_path(run, index):
    _, out, _ = run("search", index, "whales", "--source", "prices", "--json")
    assert [json.loads(line)["source"] for line in out.splitlines()] == ["prices.md"]


def test_info_tells_bytes_by_budget(run, index, model):
    code, out, _ = run("info", index, "--json")
    found = json.loads(out)
    assert (code, found["items"], found["model"]) == (0, 2, str(model))
    assert found["bytes_per_item"] == {"1x1": 32, "2x4": 128, "4x8": 256}  # 16 numbers of 2 bytes
    code, out, _ = run("info", model)
    assert code == 0
    assert "1x1, 2x4, 4x8" in out


def test_info_tells_how_vectors_are_stored_and_what_searches_them(run, index):
    found = json.loads(run("info", index, "--json")[1])
    assert (found["dtype"], found["sketch"], found["segments"]) == ("bfloat16", None, 1)
    assert (found["deleted_rows"], found["sketch_bytes_per_item"]) == (0, {})
    assert found["kernel"] == kernel_name()
    lines = [" ".join(line.split()) for line in run("info", index)[1].splitlines()]
    assert {"sketch none", "deleted rows 0", "bytes an item at 4x8 256"} < set(lines)


def test_a_new_index_stores_vectors_as_asked_and_keeps_doing_so(run, documents, model, tmp_path):
    out = tmp_path / "index"
    asked = ("index", documents, "--out", out, "--model", model)
    assert run(*asked, "--dtype", "int8", "--sketch", "binary")[0] == 0
    found = json.loads(run("info", out, "--json")[1])
    assert (found["dtype"], found["sketch"]) == ("int8", "binary")
    assert found["bytes_per_item"]["2x4"] == 4 * (16 + 4)  # a scale a vector
    assert found["sketch_bytes_per_item"]["2x4"] == 4 * 2
    assert "bytes of its sketch at 2x4" in run("info", out)[1]
    assert run(*asked)[0] == run(*asked, "--dtype", "int8", "--sketch", "binary")[0] == 0
    assert "has dtype int8, not bfloat16" in one_line_error(run(*asked, "--dtype", "bfloat16"))
    assert "--out NEW --sketch int4" in one_line_error(run(*asked, "--sketch", "int4"))
    assert run(*asked, "--dtype", "int7")[0] == 2
    result = run(
        "index",
        documents,
        "--out",
        tmp_path / "o",
        "--model",
        model,
        "--dtype=int4",
        "--sketch=int8",
    )
    assert "not smaller" in one_line_error(result)


def test_every_type_of_an_index_can_be_asked_for():
    assert {one.value for one in Storage} == set(get_args(IndexType))
    assert {one.value for one in Sketch} == set(get_args(SketchType))
    assert {one.value for one in SketchChange} == {*get_args(SketchType), "none"}


def test_a_cascade_that_keeps_everything_changes_nothing_but_what_is_told(run, index):
    _, exact, err = run("search", index, "whales", "--json")
    assert json.loads(err)["cascade"] is None
    code, found, err = run("search", index, "whales", "--json", "--cascade", "4x1:20, 1x4:20")
    assert (code, found) == (0, exact)
    told = json.loads(err)
    assert (told["budget"], told["cascade"]) == ("4x8", "4x1:20,1x4:20")
    assert min(told["encode_ms"], told["score_ms"]) > 0
    _, _, err = run("search", index, "whales", "--cascade", "4x1:20")
    assert err.startswith("budget 4x8, cascade 4x1:20: encoding ")


def test_a_cascade_may_spend_more_of_the_query_than_the_budget(run, index):
    asked = ("search", index, "whales", "--json", "-b", "1x1")
    exact, found = (
        [json.loads(line) for line in run(*asked, *more)[1].splitlines()]
        for more in ((), ("--cascade", "4x8:20"))
    )
    assert [hit["id"] for hit in found] == [hit["id"] for hit in exact]
    scores = [hit["score"] for hit in exact]
    assert [hit["score"] for hit in found] == pytest.approx(scores, abs=1e-5)


def test_a_cascade_returns_no_more_pages_than_it_keeps(run, index):
    _, out, _ = run("search", index, "whales", "--json", "-k", "1", "--cascade", "1x1:1")
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("cascade", "problem"),
    [
        ("4x1", "is written like"),
        ("4x1:10,4x4:20", "keeps more"),
        ("8x1:10", "larger than"),
        ("~4x1:10", "no"),
        ("4x1:9", "Keep more"),
    ],
)
def test_a_wrong_cascade_is_one_line(run, index, cascade, problem):
    assert problem in one_line_error(run("search", index, "whales", "--cascade", cascade))


def test_many_queries_are_told_what_they_cost(run, index, tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"id": "a", "query": "whales"}\n')
    asked = ("search", index, "--queries", file, "-b", "2x4", "--cascade", "4x1:20")
    answer = json.loads(run(*asked)[1])
    assert set(answer) >= {"id", "budget", "cascade", "encode_ms", "score_ms", "hits"}
    assert (answer["budget"], answer["cascade"]) == ("2x4", "4x1:20")


def test_indexing_can_report_in_json(run, documents, index, model):
    _, out, _ = run("index", documents, "--out", index, "--model", model, "--json")
    assert json.loads(out)["unchanged"] == 2


def test_an_unknown_or_empty_folder_is_one_line(run, tmp_path):
    assert "no folder" in one_line_error(run("index", tmp_path / "none", "--out", tmp_path / "o"))
    (tmp_path / "empty").mkdir()
    assert "no file" in one_line_error(run("index", tmp_path / "empty", "--out", tmp_path / "o"))
    (tmp_path / "file.txt").write_text("x")
    assert "is a file" in one_line_error(
        run("index", tmp_path / "file.txt", "--out", tmp_path / "o")
    )
    assert not (tmp_path / "o").exists()


def test_a_folder_with_nothing_but_a_broken_pdf_is_one_line(run, tmp_path, model):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    result = run("index", tmp_path / "in", "--out", tmp_path / "out", "--model", model)
    assert "broken.pdf" in one_line_error(result)


@pytest.mark.parametrize("budget", ["0x4", "16x999", "abc", "4", "-1x2"])
def test_a_wrong_budget_is_one_line(run, index, budget):
    assert budget in one_line_error(run("search", index, "whales", f"--budget={budget}"))


def test_an_index_of_another_model_is_one_line(run, index, bert_folder, tmp_path):
    MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS, seed=5
    ).save_pretrained(str(tmp_path))
    assert "another model" in one_line_error(run("search", index, "x", "--model", tmp_path))


@pytest.mark.parametrize("file", ["manifest.json", "catalog.sqlite"])
def test_a_damaged_index_is_one_line(run, documents, model, tmp_path, file):
    run("index", documents, "--out", tmp_path / "index", "--model", model)
    (tmp_path / "index" / file).write_bytes(b"damaged")
    one_line_error(run("search", tmp_path / "index", "whales"))


def test_a_missing_index_or_model_is_one_line(run, tmp_path, documents):
    assert "no index" in one_line_error(run("search", tmp_path, "whales"))
    one_line_error(run("info", tmp_path / "none"))
    one_line_error(run("index", documents, "--out", tmp_path / "o", "--model", tmp_path / "none"))


def test_a_query_of_a_hundred_thousand_words_is_one_line(run, index):
    assert "tokens" in one_line_error(run("search", index, "whale " * 100_000))


def test_a_picture_that_claims_billions_of_pixels_is_one_line(run, index, tmp_path):
    (tmp_path / "huge.png").write_bytes(png_claiming(50_000, 50_000))
    assert "pixels" in one_line_error(run("search", index, "--image", tmp_path / "huge.png"))


def test_a_picture_for_a_model_that_does_not_see_needs_ocr(run, index, tmp_path, monkeypatch):
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "tesseract" in one_line_error(run("search", index, "--image", tmp_path / "p.png"))


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"id": 1}', '{"id": 1, "query": 2}', '{"id": null, "query": "a"}']
)
def test_a_wrong_line_of_queries_is_named(run, index, tmp_path, line):
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": 1, "query": "whales"}\n' + line + "\n")
    assert "q.jsonl, line 2" in one_line_error(run("search", index, "--queries", file))


def test_search_wants_one_way_of_asking(run, index, tmp_path):
    one_line_error(run("search", index))
    one_line_error(run("search", index, "whales", "--queries", tmp_path / "q"))


def test_a_wrong_recipe_is_one_line(run, tmp_path):
    (tmp_path / "r.toml").write_text("seed = 'x'\n[model]\nunknown = 1\n")
    error = one_line_error(run("train", tmp_path / "r.toml", "--out", tmp_path / "o"))
    assert "seed" in error
    assert "model.unknown" in error
    assert "no recipe" in one_line_error(
        run("train", tmp_path / "none.toml", "--out", tmp_path / "o")
    )


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys; sys.argv = ['metaembed', '--help']\n"
        "from metaembed.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "index" in done.stdout
    assert "search" in done.stdout
