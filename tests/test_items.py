import io

import pytest
from PIL import Image

from metaembed.errors import ItemError
from metaembed.images import open_image
from metaembed.items import Item, is_one_item
from tests.tiny import png_claiming


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cat.png"
    Image.new("RGB", (4, 3), "red").save(path)
    return path


def test_text_paths_pictures_and_dicts_become_items(picture):
    image = Image.open(picture)
    assert Item.of("a cat") == Item(text="a cat")
    assert Item.of(picture).image.size == (4, 3)
    assert Item.of(image).image.getpixel((0, 0)) == (255, 0, 0)
    both = Item.of({"text": "a cat", "image": str(picture), "instruction": "find"})
    assert (both.text, both.image.size, both.instruction) == ("a cat", (4, 3), "find")
    assert Item.of(both) is both
    image.close()


def test_a_str_that_names_an_existing_picture_is_that_picture(picture):
    assert Item.of(str(picture)).image is not None
    assert Item.of(str(picture.with_name("dog.png"))).text is not None
    assert Item.of({"text": str(picture)}).image is None


def test_a_url_is_text_and_never_fetched():
    assert Item.of("https://localhost:9/cat.png") == Item(text="https://localhost:9/cat.png")


def test_an_instruction_is_read_before_the_text():
    assert (
        Item(text="whales", instruction="Find a page about").prompt() == "Find a page about\nwhales"
    )
    assert Item(image=Image.new("RGB", (1, 1))).prompt() is None
    assert Item(text="").prompt() == ""


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": None},
        {"txt": "a"},
        {"text": 3},
        {"image": 3},
        3,
        None,
        b"bytes",
        {"instruction": "x"},
    ],
)
def test_what_is_no_item_is_refused_in_one_line(value):
    with pytest.raises(ItemError) as caught:
        Item.of(value)
    assert "\n" not in str(caught.value)


def test_lone_surrogates_are_replaced():
    assert Item.of("a\ud800b").text == "a?b"


def test_one_item_is_told_from_a_batch(picture):
    assert all(map(is_one_item, ["a", picture, {"text": "a"}, Item("a"), Image.new("L", (1, 1))]))
    assert not any(map(is_one_item, [["a"], ("a", "b"), []]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_claiming(50_000, 50_000), "million"),
        (png_claiming(12_000, 12_000), "12,000"),
        (png_claiming(10, 10), "decoded"),
        (b"", "not a readable picture"),
        (b"not a picture", "not a readable picture"),
        (None, "does not exist"),
    ],
)
def test_hostile_pictures_are_refused_before_they_are_decoded(tmp_path, content, reason):
    path = tmp_path / "hostile.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ItemError, match=reason) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_picture_is_an_error(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    path = tmp_path / "cut.png"
    path.write_bytes(buffer.getvalue()[:-500])
    with pytest.raises(ItemError, match="cut.png"):
        open_image(path)


def test_transparency_becomes_white_and_rotation_is_undone(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(path)
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (2, 4)
