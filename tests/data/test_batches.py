"""Laws of mixtures and of the batches that are drawn from them."""

from collections import Counter
from itertools import chain, groupby

import pytest
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader, skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from metaembed.data import batches
from metaembed.data.batches import InterleavedBatchSampler
from metaembed.data.mixture import Mixture
from metaembed.data.settings import SourceSettings
from metaembed.errors import RecipeError

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def sampler(sizes, *, batch_size=4, interleave=2, **kwargs):
    return InterleavedBatchSampler(sizes, batch_size=batch_size, interleave=interleave, **kwargs)


def flat(found):
    return list(chain.from_iterable(found))


def source_of(index, sizes):
    source = 0
    while index >= sizes[source]:
        index -= sizes[source]
        source += 1
    return source


def runs(batch, sizes):
    return [(source, len(list(run))) for source, run in groupby(source_of(i, sizes) for i in batch)]


def test_one_source_is_gone_through_once():
    found = list(sampler([8], batch_size=3, drop_last=False))
    assert [len(batch) for batch in found] == [3, 3, 2]
    assert sorted(flat(found)) == list(range(8))
    assert flat(found) != list(range(8))


def test_a_batch_consists_of_runs_of_one_source():
    sizes = [100, 100, 100]
    for batch in sampler(sizes, batch_size=12, interleave=4):
        assert all(length % 4 == 0 for _, length in runs(batch, sizes))


def test_the_last_run_of_a_step_is_cut():
    sizes = [1000, 1000]
    (batch, *_) = sampler(sizes, batch_size=10, interleave=4, seed=1)
    assert [length % 4 for _, length in runs(batch, sizes)][:-1] == [0] * (
        len(runs(batch, sizes)) - 1
    )
    assert len(batch) == 10


def test_a_run_may_go_on_in_the_batch_of_the_next_process():
    sizes = [10_000, 10_000, 10_000]
    found = list(sampler(sizes, batch_size=48, interleave=32, num_processes=8))
    for start in range(0, len(found) - 8, 8):
        step = flat(found[start : start + 8])
        assert len(step) == 384
        assert all(length % 32 == 0 for _, length in runs(step, sizes))


def test_sources_are_drawn_by_weight():
    sizes = [500, 5000, 2000]
    drawn = Counter()
    for batch in sampler(sizes, batch_size=8, interleave=4, probabilities=[0.5, 0.25, 0.25]):
        drawn.update(source_of(index, sizes) for index in batch)
    total = sum(drawn.values())
    assert total == 7496
    # 1,874 runs: the standard deviation of a share is about 0.011.
    assert [drawn[n] / total for n in range(3)] == pytest.approx([0.5, 0.25, 0.25], abs=0.04)


def test_a_source_that_is_used_up_begins_anew_in_another_order():
    sizes = [10, 1000]
    rows = [
        index
        for batch in sampler(sizes, batch_size=10, interleave=10, probabilities=[0.5, 0.5])
        for index in batch
        if index < 10
    ]
    passes = [rows[start : start + 10] for start in range(0, len(rows) - 9, 10)]
    assert len(passes) > 10
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) > 10


@given(
    sizes=SIZES,
    batch_size=st.integers(1, 9),
    interleave=st.integers(1, 9),
    drop_last=st.booleans(),
    num_processes=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_length_and_sizes_are_as_promised(
    sizes, batch_size, interleave, drop_last, num_processes, seed
):
    drawn = sampler(
        sizes,
        batch_size=batch_size,
        interleave=interleave,
        drop_last=drop_last,
        num_processes=num_processes,
        seed=seed,
    )
    found = list(drawn)
    assert len(found) == len(drawn)
    assert all(len(batch) == batch_size for batch in found[:-1])
    if drop_last:
        assert all(len(batch) == batch_size for batch in found)
    else:
        assert sum(map(len, found)) == sum(sizes)
    assert all(0 <= index < sum(sizes) for batch in found for index in batch)


@given(sizes=SIZES, seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_seed_and_epoch_decide_everything(sizes, seed, epoch):
    one, other = sampler(sizes, seed=seed), sampler(sizes, seed=seed)
    other.set_epoch(epoch + 1)
    list(other)
    one.set_epoch(epoch)
    other.set_epoch(epoch)
    assert list(one) == list(other) == list(other)


def test_epochs_and_seeds_differ():
    drawn = sampler([50, 50])
    first = list(drawn)
    drawn.set_epoch(1)
    assert list(drawn) != first
    assert list(sampler([50, 50], seed=1)) != first


# Without duplicates


@settings(max_examples=50)
@given(
    groups=st.lists(st.integers(0, 12), min_size=12, max_size=60),
    num_processes=st.integers(1, 2),
    seed=st.integers(0, 3),
)
def test_no_step_holds_two_rows_of_equal_keys(groups, num_processes, seed):
    batch_size = max(1, len(set(groups)) // (2 * num_processes))
    sizes = [len(groups) // 2, len(groups) - len(groups) // 2]

    def keys(index):
        return index, groups[index]

    drawn = sampler(sizes, batch_size=batch_size, keys=keys, num_processes=num_processes, seed=seed)
    found = list(drawn)
    assert len(found) == len(drawn)
    assert found == list(drawn)
    for start in range(0, len(found), num_processes):
        step = flat(found[start : start + num_processes])
        assert len({groups[index] for index in step}) == len(step)


@pytest.mark.parametrize("seed", range(5))
def test_without_duplicates_nearly_every_row_still_comes(seed):
    drawn = sampler([240], batch_size=4, seed=seed, keys=lambda index: (index, -1 - index % 8))
    assert len(flat(drawn)) == 240
    # Those that are left at the end may all be duplicates; rows of a new order take their place.
    assert len(set(flat(drawn))) >= 220


def test_queries_are_kept_apart_as_positives_are():
    drawn = sampler([40], batch_size=4, keys=lambda index: (index % 8, index))
    assert all(len({index % 8 for index in batch}) == 4 for batch in drawn)


def test_a_source_of_few_answers_leaves_room_for_others(monkeypatch):
    monkeypatch.setattr(batches, "LOOK_AHEAD", 50)
    sizes = [500, 500]  # the first knows yes and no

    def keys(index):
        return index, index % 2 if index < 500 else index

    for batch in sampler(sizes, batch_size=16, interleave=8, keys=keys):
        assert sum(index < 500 for index in batch) <= 2


def test_a_batch_that_cannot_be_filled_is_an_error():
    with pytest.raises(RecipeError, match="Make the batch smaller, or allow duplicates"):
        list(sampler([500], batch_size=4, keys=lambda index: (index, index % 2)))


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"interleave": 0}, {"num_processes": 0}])
def test_nothing_is_drawn_in_parts_below_one(wrong):
    with pytest.raises(RecipeError, match="at least 1"):
        sampler([5], **wrong)
    with pytest.raises(RecipeError, match="at least one row"):
        sampler([5, 0])


# In the trainer's hands


class Numbers:
    """A source of which only the size is needed."""

    def __init__(self, name, count):
        self.name, self.count = name, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return 1000 * int(self.name) + index

    def where(self, index):
        return f"{self.name} {index}"


def loader(sizes, *, processes=1, rank=0):
    sources = [Numbers(str(n), size) for n, size in enumerate(sizes)]
    mixture = Mixture(sources, weights=sizes)
    drawn = mixture.batches(batch_size=4, interleave=2, num_processes=processes)
    plain = DataLoader(mixture, batch_sampler=drawn)
    return prepare_data_loader(plain, num_processes=processes, process_index=rank)


def test_processes_share_out_the_batches():
    sizes = [30, 30]
    whole = list(sampler(sizes, num_processes=2))
    shards = [
        list(BatchSamplerShard(sampler(sizes, num_processes=2), 2, rank)) for rank in range(2)
    ]
    assert [batch for pair in zip(*shards, strict=True) for batch in pair] == whole[:14]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("epoch", [0, 2])
def test_going_on_in_an_epoch_gives_the_batches_that_were_left(epoch, processes):
    sizes = [30, 20]
    whole = loader(sizes, processes=processes)
    whole.set_epoch(epoch)
    expected = [batch.tolist() for batch in whole]
    resumed = skip_first_batches(loader(sizes, processes=processes), 5)
    resumed.set_epoch(epoch)
    assert [batch.tolist() for batch in resumed] == expected[5:]


# Mixtures


@pytest.fixture
def pair_files(tmp_path):
    files = []
    for name, count in (("a", 5), ("b", 3)):
        file = tmp_path / f"{name}.jsonl"
        rows = (f'{{"query": "{name}{n}", "positive": "{name}"}}\n' for n in range(count))
        file.write_text("".join(rows))
        files.append(str(file))
    return files


def test_a_mixture_is_its_sources_one_after_the_other(pair_files):
    a, b = pair_files
    mixture = Mixture.open([SourceSettings(path=a, weight=3), SourceSettings(path=b, max_rows=2)])
    assert mixture.sizes == (5, 2)
    assert mixture.probabilities == (0.75, 0.25)
    assert [row.positive.text for row in mixture] == ["a"] * 5 + ["b"] * 2
    assert mixture.locate(5) == (1, 0)
    assert mixture.where(4).endswith("a.jsonl, line 5")
    assert mixture.keys(0)[1] == mixture.keys(1)[1] != mixture.keys(5)[1]


def test_a_mixture_feeds_batches(pair_files):
    mixture = Mixture.open([SourceSettings(path=file) for file in pair_files])
    drawn = mixture.batches(batch_size=2, interleave=2, avoid_duplicates=True)
    rows = DataLoader(mixture, batch_sampler=drawn, collate_fn=list)
    assert len(list(rows)) == 4
    for batch in rows:
        assert {row.positive.text for row in batch} == {"a", "b"}


def test_a_mixture_needs_sources_of_different_names(pair_files):
    a, b = (SourceSettings(path=file, name="same") for file in pair_files)
    with pytest.raises(RecipeError, match="Two sources are called 'same'"):
        Mixture.open([a, b])
    with pytest.raises(RecipeError, match="at least one"):
        Mixture.open([])
    with pytest.raises(RecipeError, match=r"'a\.jsonl' has no rows that can be used"):
        Mixture.open([SourceSettings(path=a.path, split="[:0]")])
