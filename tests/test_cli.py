"""The command line as a user meets it, with a tiny model; a mistake is one line and exit code 1."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from metaembed.cli.app import main
from metaembed.model import MetaEmbed
from tests.tiny import png_claiming

GROUPS = ("1x1", "2x4", "4x8")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `metaembed ARGS`; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["metaembed", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture(scope="module")
def model(bert_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS
    ).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "whales.txt").write_text("a page about whales\n")
    (folder / "prices.md").write_text("# Prices\n\nof the report\n")
    return folder


@pytest.fixture(scope="module")
def index(documents, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "index"
    sys.argv = ["metaembed", "index", str(documents), "--out", str(out), "--model", str(model)]
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return out


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


def test_indexing_can_report_in_json(run, documents, index, model):
    _, out, _ = run("index", documents, "--out", index, "--model", model, "--json")
    assert json.loads(out)["unchanged"] == 2


def one_line_error(result):
    code, out, err = result
    assert code == 1
    assert out == ""
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1
    return err


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
