"""The command line in this process, a tiny model, a folder of two files and its index."""

import sys

import pytest

from metaembed.cli.app import main
from metaembed.model import MetaEmbed
from tests.cli.examples import GROUPS


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
