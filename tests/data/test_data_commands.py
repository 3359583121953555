"""`metaembed data` as a user meets it."""

import json
import sys

import pytest

from metaembed.cli.app import main
from metaembed.model import MetaEmbed
from tests.data.published import write_strings


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `metaembed data ARGS`; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["metaembed", "data", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def test_check_says_what_is_in_a_source(run, mmeb):
    code, out, _ = run("check", mmeb, "--config", "VisDial")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "MMEB-train/VisDial (mmeb): 4 rows"
    assert "positive             text and picture: 4" in lines
    assert "negatives a row      1: 4" in lines
    assert "positive pixels      28-255: 4" in lines
    assert "  positive     [40x30] 'Represent the given image\\n'" in lines
    assert lines[-1] == "Nothing is broken."


def test_check_fails_where_something_is_broken(run, tmp_path):
    rows = [("q", "images/none.jpg", "p", "", "", ""), ("", "", "p", "", "", "")]
    file = write_strings(tmp_path / "original-00000-of-00001.parquet", rows)
    code, out, _ = run("check", file)
    assert code == 1
    assert "missing picture: " in out
    assert f"{file}, row 1: query: there is no '{tmp_path}/images/none.jpg'" in out
    assert out.splitlines()[-1] == "Broken: 1 × missing picture, 1 × empty side."


def test_check_in_json(run, mmeb):
    code, out, err = run("check", mmeb, "--config", "WebQA", "--json", "--headers", "--limit", 2)
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["sound"], found["rows"], found["checked"], found["orphan_tokens"]) == (
        True,
        4,
        2,
        2,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/none.jsonl"], "There is no file or folder"),
        (["{}"], "has several configurations; set config to one of A-OKVQA"),
        (["{}", "--config", "CIRR", "--format", "tsv"], "--format: Input should be 'mmeb'"),
        (["{}", "--config", "CIRR", "--format", "colpali"], "needs query, image too"),
    ],
)
def test_mistakes_are_one_line(arguments, message, run, mmeb):
    code, out, err = run("check", *(argument.format(mmeb) for argument in arguments))
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_mine_writes_what_check_reads(run, bert_folder, tmp_path):
    model = MetaEmbed.create(
        bert_folder, num_query_tokens=2, num_candidate_tokens=4, dim=16, groups=["1x1", "2x4"]
    )
    model.save_pretrained(str(tmp_path / "model"))
    pairs = [{"query": f"question {n}", "positive": f"answer {n} " * n} for n in range(1, 9)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    out = tmp_path / "mined.jsonl"
    given = ["mine", tmp_path / "pairs.jsonl", tmp_path / "model", "--out", out]
    code, printed, _ = run(*given, "--budget", "1x1", "--negatives", 2, "--margin", 0)
    assert code == 0
    assert printed.startswith(f"{out} has 8 rows, ")
    assert f"Next: metaembed data check {out}" in printed.replace(sys.argv[0], "metaembed")
    assert run("check", out)[0] == 0
    code, _, err = run(*given)
    assert code == 1
    assert "is there already" in err
