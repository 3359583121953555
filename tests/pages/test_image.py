"""Pictures as pages: what the pixels become, and the pages of a TIFF."""

import pytest
from PIL import Image

from metaembed.images import open_image
from metaembed.pages import Page, read_pages

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def test_a_picture_is_one_page(tmp_path):
    Image.new("RGB", (20, 10), RED).save(tmp_path / "a.png")
    assert list(read_pages(tmp_path / "a.png")) == [Page("image", None, "", "", None)]
    (page,) = read_pages(tmp_path / "a.png", images=True)
    assert page.image.size == (20, 10)
    assert page.image.getpixel((0, 0)) == RED


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"])
def test_every_format_becomes_rgb(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.linear_gradient("L").save(path)
    image = open_image(path)
    assert image.mode == "RGB"
    assert image.getpixel((128, 10))[0] < 30 < 225 < image.getpixel((128, 245))[0]


def test_transparency_becomes_white(tmp_path):
    picture = Image.new("RGBA", (2, 1), (*RED, 255))
    picture.putpixel((1, 0), (*RED, 0))
    picture.save(tmp_path / "a.png")
    assert [open_image(tmp_path / "a.png").getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]
    picture.convert("P").save(tmp_path / "b.png", transparency=bytes([0] * 256))
    assert open_image(tmp_path / "b.png").getpixel((0, 0)) == WHITE


def test_a_photo_taken_sideways_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(GREEN, (0, 0, 20, 20))
    picture.save(tmp_path / "a.png", exif=exif)
    image = open_image(tmp_path / "a.png")
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == GREEN
    assert image.getpixel((10, 35)) == RED


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN)]
    for name in ("a.gif", "a.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert open_image(tmp_path / name).getpixel((0, 0)) == RED
        assert len(list(read_pages(tmp_path / name))) == 1


def test_each_page_of_a_tiff_is_a_page(tmp_path):
    frames = [Image.new("RGB", (4 * n, 4), color) for n, color in ((1, RED), (2, GREEN))]
    frames[0].save(tmp_path / "fax.tif", save_all=True, append_images=frames[1:])
    pages = list(read_pages(tmp_path / "fax.tif", images=True))
    assert [(page.place, page.page, page.image.size) for page in pages] == [
        ("page 1", 1, (4, 4)),
        ("page 2", 2, (8, 4)),
    ]


@pytest.mark.parametrize(("mode", "highest"), [("I;16", 4_000), ("I", 70_000), ("F", 0.5)])
def test_grey_levels_beyond_8_bits_are_not_clipped(tmp_path, mode, highest):
    picture = Image.new(mode, (3, 1))
    picture.putpixel((1, 0), type(highest)(highest / 2))
    picture.putpixel((2, 0), highest)
    picture.save(tmp_path / "a.tif")
    image = open_image(tmp_path / "a.tif")
    assert [image.getpixel((x, 0))[0] for x in range(3)] == pytest.approx([0, 127, 255], abs=1)


def test_a_name_may_lie_about_the_format(tmp_path):
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").getpixel((0, 0)) == RED
