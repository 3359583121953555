"""Pictures, sides and what counts as a duplicate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.data.examples import Example, Picture, Side
from metaembed.errors import ItemError
from tests.data.published import encoded
from tests.tiny import png_claiming

WORDS = st.lists(st.text("abcß1", min_size=1, max_size=5), min_size=1, max_size=5)


def test_a_side_is_decoded_when_it_is_asked_for(tmp_path):
    file = tmp_path / "a b.jpg"
    file.write_bytes(encoded(7, size=(12, 9)))
    side = Side.of("<|image_1|>\nFind it.\n", Picture(file))
    assert side.text == "Find it.\n"
    item = side.item()
    assert item.image.size == side.picture.size() == (12, 9)
    assert item.prompt() == side.prompt() == "Find it.\n"


def test_bytes_are_decoded_like_files():
    picture = Picture(content=encoded(7, kind="RGBA"))
    assert picture.open().mode == "RGB"
    assert picture.size() == (40, 30)


@pytest.mark.parametrize("read", [Picture.open, Picture.size])
def test_pictures_that_claim_too_much_are_not_decoded(read, tmp_path):
    bomb = png_claiming(100_000, 100_000)
    (tmp_path / "bomb.png").write_bytes(bomb)
    for picture in (Picture(content=bomb), Picture(tmp_path / "bomb.png")):
        with pytest.raises(ItemError, match="pixels"):
            read(picture)


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(1)[:300]])
def test_broken_bytes_are_an_item_error(content):
    with pytest.raises(ItemError, match="picture"):
        Picture(content=content).open()


def test_a_picture_needs_a_file_or_bytes():
    with pytest.raises(ItemError, match="neither"):
        Picture()


@pytest.mark.parametrize("text", ["", " \n", "<|image_1|>", "<|image_1|>\n", None])
def test_an_image_token_alone_is_no_text(text):
    assert Side.of(text).is_empty


def test_lone_surrogates_do_not_reach_the_tokenizer():
    assert Side.of("a\ud800").text == "a?"
    assert Side.of("a\ud800").key() == Side.of("a?").key()


@given(words=WORDS)
def test_case_spaces_and_the_image_token_make_no_difference(words):
    plain = Side.of(" ".join(words)).key()
    assert Side.of("<|image_1|>\n" + " \n".join(words).upper() + "\n").key() == plain
    assert -(2**63) <= plain < 2**63


@given(one=WORDS, other=WORDS)
def test_different_words_have_different_keys(one, other):
    one, other = (" ".join(words).casefold() for words in (one, other))
    assert (Side.of(one).key() == Side.of(other).key()) == (one == other)


def test_a_duplicate_is_one_by_text_and_picture_together(tmp_path):
    red, blue = Picture(content=encoded(1)), Picture(content=encoded(2))
    keys = [Side.of(text, p).key() for text in (None, "a", "b") for p in (None, red, blue)]
    assert len(set(keys)) == len(keys)


def test_keys_stay_the_same_in_every_process():
    assert Side.of("What is  THAT?").key() == 2339382003542750744


def test_copies_of_a_picture_are_one_unless_told_by_path(tmp_path):
    files = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for file in files:
        file.write_bytes(encoded(1))
    a, b = map(Picture, files)
    assert a.digest() == b.digest() == Picture(content=encoded(1)).digest()
    assert a.digest(by_path=True) != b.digest(by_path=True)
    assert Picture(tmp_path / "none.jpg").digest() != a.digest()


def test_the_instruction_is_part_of_what_is_asked():
    whole = Side.of("Find it.\nwhales")
    assert Side.of("whales", instruction="Find it.").key() == whole.key()
    assert Side.of("whales").key() != whole.key()


def test_an_example_names_its_sides():
    example = Example(Side("q"), Side("p"), (Side("n"), Side("m")))
    assert [name for name, _ in example.sides()] == [
        "query",
        "positive",
        "negative 1",
        "negative 2",
    ]
    assert example.keys() == (Side("q").key(), Side("p").key())
