import torch
from hypothesis import given
from hypothesis import strategies as st

from metaembed.windows import added, windows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=5)
COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def test_an_item_of_eight_tokens_worked_by_hand():
    starts, stops = windows(torch.tensor([8]), [1, 3])
    # Whole: 0..8. Parts leave the two special tokens out: 1..7 in three.
    assert starts.tolist() == [[0, 1, 3, 5]]
    assert stops.tolist() == [[8, 3, 5, 7]]


def test_groups_add_what_they_have_more_than_the_one_before():
    assert added([1, 4, 8, 16, 64]) == [1, 3, 4, 8, 48]
    assert added([1, 1, 2]) == [1, 1]


@given(LENGTHS, COUNTS)
def test_windows_lie_in_the_item_and_are_never_empty(lengths, counts):
    starts, stops = windows(torch.tensor(lengths), counts)
    assert starts.shape == (len(lengths), sum(counts))
    assert (starts >= 0).all()
    assert (stops > starts).all()
    assert (stops <= torch.tensor(lengths).unsqueeze(1)).all()


@given(st.integers(3, 60), st.integers(1, 12))
def test_the_windows_of_a_group_cover_the_item(length, count):
    starts, stops = windows(torch.tensor([length]), [count])
    covered = {
        n for a, b in zip(starts[0].tolist(), stops[0].tolist(), strict=True) for n in range(a, b)
    }
    edge = 0 if count == 1 else 1
    assert covered == set(range(edge, length - edge))


@given(LENGTHS, COUNTS)
def test_an_items_windows_do_not_depend_on_its_batch(lengths, counts):
    together = windows(torch.tensor(lengths), counts)
    for row, length in enumerate(lengths):
        alone = windows(torch.tensor([length]), counts)
        assert torch.equal(together[0][row], alone[0][0])
        assert torch.equal(together[1][row], alone[1][0])
