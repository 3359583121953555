"""Mining: who becomes a negative, what is written, and going on after a stop."""

import json

import pytest

from metaembed import negatives
from metaembed.budget import Budget
from metaembed.data.examples import Side
from metaembed.data.settings import SourceSettings
from metaembed.data.sources import open_source
from metaembed.errors import ItemError, ModelError, RecipeError
from metaembed.index import Hit
from metaembed.model import MetaEmbed
from metaembed.negatives import Mining, choose, mine_negatives
from metaembed.scoring import maxsim
from tests.data.published import encoded, put_image

ROWS = [
    {"query": "whales", "positive": "a page about whales"},
    {"query": "Whales ", "positive": "the report about whales"},
    {"query": "prices", "positive": "the report about prices"},
    {"query": "the fox", "positive": "the quick brown fox"},
    {"query": "the dog", "positive": "The quick  brown fox"},
    {"query": "a page about dogs", "positive": {"text": "dogs on page 3", "instruction": "Read."}},
    {"query": "dogs", "positive": "a page about dogs"},
]


@pytest.fixture(scope="module")
def model(bert_folder):
    return MetaEmbed.create(
        bert_folder,
        num_query_tokens=4,
        num_candidate_tokens=8,
        dim=16,
        groups=["1x1", "2x4", "4x8"],
    ).eval()


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return open_source(SourceSettings(path=str(file)))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def ranked(model, source, row, budget):
    """Every distinct positive with its score for a query, best first."""
    sides = {source[n].positive.key(): source[n].positive for n in range(len(source))}
    query = model.encode_query([source[row].query.item()], budget=budget, convert_to_tensor=True)
    candidates = [side.item() for side in sides.values()]
    vectors = model.encode_document(candidates, budget=budget, convert_to_tensor=True)
    scores = maxsim(query, vectors)[0].tolist()
    return sorted(zip(scores, sides, sides.values(), strict=True), key=lambda one: -one[0])


def test_what_scores_nearly_like_the_positive_may_be_right():
    hits = [
        Hit(name, score, {}) for name, score in [("a", 9.0), ("b", 7.7), ("c", 7.5), ("d", 1.0)]
    ]

    def chosen(positive_score, **kwargs):
        found = choose(hits, Mining(**kwargs), positive_score=positive_score)
        return "".join(hit.id for hit in found)

    assert chosen(8.0) == "cd"  # 5% below 8 is 7.6
    assert chosen(8.0, margin=0.0) == "bcd"
    assert chosen(8.0, num_negatives=1) == "c"
    assert chosen(10.0, margin=0.1, num_negatives=2) == "ab"
    assert chosen(-1.0) == ""  # below a negative score means further down


@pytest.mark.parametrize("budget", ["1x1", "4x8"])
def test_negatives_are_the_best_wrong_candidates_below_the_margin(budget, model, source, tmp_path):
    out, budget = tmp_path / "mined.jsonl", Budget.parse(budget)
    plan = Mining(budget=budget, num_negatives=2, margin=0.001)
    done = mine_negatives(source, model, out, plan=plan)
    assert (done.rows, done.candidates) == (7, 6)
    mined = open_source(SourceSettings(path=str(out), num_negatives=2))
    rounding = 0.02 * budget.query  # bulk encoding and the index are in bfloat16
    for row in range(len(source)):
        order = ranked(model, source, row, budget)
        scores = {key: score for score, key, _ in order}
        own = scores[source[row].positive.key()]
        highest = own - 0.001 * abs(own)
        right = {
            other.positive.key() for other in source if other.query.key() == mined[row].query.key()
        }
        wrong = [score for score, key, _ in order if key not in right | {mined[row].query.key()}]
        chosen = [scores[side.key()] for side in mined[row].negatives]
        best = [score for score in wrong if score <= highest - rounding][:2]
        assert all(score <= highest + rounding for score in chosen)
        assert all(one >= other - rounding for one, other in zip(chosen, best, strict=False))
        assert len(chosen) >= len(best)
        written = lines(out)[row]
        assert written["positive_score"] == pytest.approx(own, abs=rounding)
        assert written["negative_scores"] == pytest.approx(chosen, abs=rounding)
        assert mined[row].query == source[row].query
        assert mined[row].positive == source[row].positive
    assert done.negatives == sum(len(line["negatives"]) for line in lines(out))


def test_no_positive_of_a_query_and_not_itself_becomes_its_negative(model, source, tmp_path):
    out = tmp_path / "mined.jsonl"
    mine_negatives(source, model, out, plan=Mining(num_negatives=99, margin=0.0))
    mined = open_source(SourceSettings(path=str(out), num_negatives=99))
    whales = {Side("a page about whales"), Side("the report about whales")}
    assert not whales & set(mined[0].negatives + mined[1].negatives)
    assert all("fox" not in side.text for n in (3, 4) for side in mined[n].negatives)
    assert Side("a page about dogs") not in mined[5].negatives


def test_a_wide_margin_leaves_rows_without_negatives(model, source, tmp_path):
    done = mine_negatives(source, model, tmp_path / "m.jsonl", plan=Mining(margin=1.0))
    assert done.without == done.rows == 7


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_stopped_run_goes_on(stop, model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(negatives, "CHUNK", 3)
    monkeypatch.setattr(negatives, "QUERIES", 3)
    mine_negatives(source, model, tmp_path / "whole.jsonl")
    calls = []

    def interrupt(*_):
        calls.append(None)
        if len(calls) == stop:
            raise KeyboardInterrupt

    out = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        mine_negatives(source, model, out, progress=interrupt)
    assert not out.exists()
    rows = tmp_path / "cut.jsonl.work/rows.jsonl"
    rows.write_bytes(rows.read_bytes() + b'{"query": "torn')
    later = []
    mine_negatives(source, model, out, progress=lambda *_: later.append(None))
    assert len(later) == 5 - stop
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not rows.exists()


def test_work_of_other_settings_is_not_taken_on(model, source, tmp_path):
    out = tmp_path / "m.jsonl"

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_negatives(source, model, out, progress=interrupt)
    with pytest.raises(RecipeError, match="a run of other settings"):
        mine_negatives(source, model, out, plan=Mining(margin=0.1))
    mine_negatives(source, model, out)
    with pytest.raises(RecipeError, match="is there already"):
        mine_negatives(source, model, out)
    with pytest.raises(RecipeError, match="no folder"):
        mine_negatives(source, model, tmp_path / "none/m.jsonl")


def test_pictures_are_written_so_that_they_are_found_again(tmp_path, qwen_folder):
    seeing = MetaEmbed.create(
        qwen_folder, num_query_tokens=2, num_candidate_tokens=2, dim=8, groups=["1x1", "2x2"]
    ).eval()
    put_image(tmp_path, "in/pages/1.png", 1, kind="PNG")
    put_image(tmp_path, "in/pages/2.png", 200, kind="PNG", size=(60, 90))
    rows = [
        {"query": "one", "positive": "pages/1.png"},
        {"query": "two", "positive": {"text": "pages/2.png", "image": "pages/2.png"}},
    ]
    (tmp_path / "in/own.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = open_source(SourceSettings(path=str(tmp_path / "in/own.jsonl")))
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/mined.jsonl"
    assert mine_negatives(source, seeing, out, plan=Mining(margin=0.0)).rows == 2
    mined = open_source(SourceSettings(path=str(out)))
    assert [row.positive for row in mined] == [row.positive for row in source]


def test_pictures_of_rows_get_files(tmp_path, qwen_folder):
    import pyarrow as pa

    from tests.data.published import images, write_table

    seeing = MetaEmbed.create(
        qwen_folder, num_query_tokens=2, num_candidate_tokens=2, dim=8, groups=["1x1", "2x2"]
    ).eval()
    contents = [encoded(1), encoded(200, kind="PNG"), encoded(1)]
    columns = {"query": pa.array(["a", "b", "c"]), "image": images(*contents)}
    write_table(tmp_path / "train.parquet", columns, images=("image",))
    source = open_source(SourceSettings(path=str(tmp_path / "train.parquet")))
    out = tmp_path / "mined.jsonl"
    assert mine_negatives(source, seeing, out).candidates == 2
    mined = open_source(SourceSettings(path=str(out)))
    assert [row.positive.key() for row in mined] == [row.positive.key() for row in source]
    written = sorted((tmp_path / "mined-images").iterdir())
    assert sorted(file.read_bytes() for file in written) == sorted(set(contents))
    assert {file.suffix for file in written} == {".png", ".jpg"}


def test_a_model_that_does_not_see_says_so(model, tmp_path):
    put_image(tmp_path, "1.png", 1, kind="PNG")
    (tmp_path / "own.jsonl").write_text('{"query": "q", "positive": "1.png"}\n')
    source = open_source(SourceSettings(path=str(tmp_path / "own.jsonl")))
    with pytest.raises((ItemError, ModelError)):
        mine_negatives(source, model, tmp_path / "m.jsonl")
