"""HTML sections as a reader sees them, in linear time however broken, nothing left unread."""

import html
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.pages import Page, read_pages
from metaembed.pages.html import html_pages
from metaembed.pages.markup import Tag, tokens
from tests.pages.samples import first_lost_word, write

GUIDE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>The &amp; Guide</title>
<style>p { color: red }</style><script>if (a < b) alert("<p>no</p>")</script></head>
<body><nav><a href="/">Home</a> <a href="/b">Back</a></nav>
<p>Welcome,<br>dear    <b>rea</b>der.
<p>Look: <img src="x.png" alt="a &quot;red&quot; barn"></p>
<h2 id="install">Install<a class="headerlink" href="#install">¶</a></h2>
<ul><li>first</li><li>second</li></ul>
<pre>
def f():
    return 1
</pre>
<section id="more"><h3>More</h3><table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>
<h2>Usage</h2><noscript>no</noscript><template>no</template><!-- no -->needle</body></html>"""


def text_of(markup):
    return "\n\n".join(page.text for page in html_pages(markup))


def test_a_page_is_read_as_it_is_seen():
    assert list(html_pages(GUIDE)) == [
        Page(
            "section 1",
            None,
            "The & Guide",
            'Home Back\n\nWelcome,\ndear reader.\n\nLook: a "red" barn',
        ),
        Page(
            "#install",
            None,
            "The & Guide › Install",
            "Install¶\n\nfirst\nsecond\n\ndef f():\n    return 1",
        ),
        Page("#more", None, "The & Guide › Install › More", "More\n\na b\nc"),
        Page("section 4", None, "The & Guide › Usage", "Usage\n\nneedle"),
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a < b <3 &lt;p&gt; &copy &#x41;", "a < b <3 <p> © A"),
        ("<p>a<p>b", "a\n\nb"),
        ("a<span>b</span>c", "abc"),
        ("<button>a</button><button>b</button>", "a b"),
        ("a&nbsp;b\u00a0 c", "a b c"),
        ("<A HREF='>'>a</A>", "a"),
        ("<a href=x/>a", "a"),
        ("<a b=\"1\"c='2' d e=>a", "a"),
        ("<script>no</script>a<STYLE>no</style >b", "ab"),
        ("<script src=x />a", "a"),
        ("<script>a", "a"),  # never closed: read as if it had not been opened
        ("<!-- a", "a"),
        ("<!---->a<!-->b<!-- x --!> -->c", "abc"),
        ("<![CDATA[a < b]]>", "a < b"),
        ("<![if !IE]>a<![endif]>", "a"),
        ("<?php no ?>a", "a"),
        ("</>a</ b>c", "ac"),
        ("a <b class='never closed", "a <b class='never closed"),
        ("<title>only this</title>", "only this"),
        ("<title>T</title><svg><title>icon</title></svg>a", "icon\n\na"),
        ("&#" + "1" * 5_000 + ";", "&#" + "1" * 5_000 + ";"),
        ("<template><p>no<p>no</template>a", "a"),
    ],
)
def test_markup_is_read_as_browsers_do_and_mistakes_lose_nothing(markup, text):
    assert text_of(markup) == text


def test_tags_have_their_attributes():
    assert list(tokens("<A b='1 2' C=\"3\" d=4 e>x</a >")) == [
        Tag("a", False, {"b": "1 2", "c": "3", "d": "4", "e": ""}),
        "x",
        Tag("a", True, {}),
    ]


def places(markup):
    return [(page.place, page.title) for page in html_pages(markup)]


def test_an_id_names_a_place_once():
    heading = "<h1 id=a>A</h1>text"
    assert places(heading * 3) == [("#a", "A"), ("section 2", "A"), ("section 3", "A")]
    assert places("<h1 id='a b\n'>A</h1>text") == [("section 1", "A")]
    assert places("<h1><a name=old></a>A</h1>text") == [("#old", "A")]


def test_a_long_section_has_parts():
    pages = list(html_pages("<h1 id=a>A</h1>" + f"<p>{'word ' * 150}</p>" * 4))
    assert [page.place for page in pages] == ["#a", "#a, part 2", "#a, part 3", "#a, part 4"]
    assert {page.title for page in pages} == {"A"}


def test_a_heading_that_repeats_the_title_is_named_once():
    assert places("<title>A</title><h1>A</h1><h2>B</h2>b") == [("section 1", "A › B")]


def test_a_heading_without_words_or_end_is_survived():
    assert places("<h1><img></h1>text") == [("section 1", "")]
    assert places("<h1>A<p>text") == [("section 1", "A")]
    assert places("<h1><div>A</div></h1>text") == [("section 1", "A")]


def test_the_declared_character_set_is_used(tmp_path):
    content = "<meta charset=windows-1251><p>Привет".encode("cp1251")
    (page,) = read_pages(write(tmp_path / "a.html", content))
    assert page.text == "Привет"


words = st.text(st.characters(exclude_categories=["Cs", "C", "Z"]), min_size=1)
wrappers = st.sampled_from(
    [
        "<p>{}</p>",
        "<div>{} ",
        "<h1>{}</h1>",
        "<h3 id=x>{}</h3>",
        "<pre>\n{}\n</pre>",
        "<table><tr><td>{}</td></tr></table>",
        "<li>{}<br>",
        "<script>no</script> {} ",
        "<!-- no --> {} ",
    ]
)


@given(st.lists(st.tuples(wrappers, words)))
def test_nothing_is_left_unread(parts):
    markup = "".join(wrapper.format(html.escape(word)) for wrapper, word in parts)
    pages = list(html_pages(markup))
    seen = [part for _, word in parts for part in word.split()]
    assert first_lost_word(seen, pages) is None
    assert len({page.place for page in pages}) == len(pages)


@given(st.text(st.sampled_from("<>/!-?='\" abh1&;\n[]")))
def test_any_markup_is_read(markup):
    list(html_pages(markup))


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        '<a b="',
        "<a a=",
        "<!--",
        "<![CDATA[",
        "<script>",
        "<div>",
        "<h1>",
        "<a",
        "</",
        "<?",
        "&#1",
    ],
)
def test_hostile_markup_takes_linear_time(unit):
    begin = time.process_time()
    list(html_pages(unit * 30_000 + "<p>needle"))
    assert time.process_time() - begin < 3
