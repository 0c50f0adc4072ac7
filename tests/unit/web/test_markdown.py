"""Replies are written by models, so their Markdown is hostile until rendered."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.apps.web.markdown import MAX_LENGTH, TAGS, render

ALLOWED = TAGS | {"pre", "code", "span"}
ELEMENT = re.compile(r"<(/?)([a-zA-Z0-9]+)([^>]*)>")
ATTRIBUTES = re.compile(r'(?: class="address"| start="\d+")?')

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">here</a>',
    "[here](javascript:alert(1))",
    "[here](https://evil.example/?q=secret)",
    "[here][1]\n\n[1]: javascript:alert(1)",
    "![pixel](https://evil.example/pixel.png)",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "<https://evil.example>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<div style='position:fixed'>over everything</div>",
    "<!-- comment --> <?php ?> <![CDATA[x]]>",
    "```<script>\nalert(1)\n```",
    "~~~html\n<b onmouseover=alert(1)>\n~~~",
    "`<script>`",
    '> "><img src=x onerror=alert(1)>',
    "| a | b |\n|---|---|\n| <img src=x> | [x](javascript:y) |",
    "&lt;script&gt; &#60;script&#62;",
    '[x](<javascript:alert(1)> "on\' mouseover")',
    '[a](https://e.example/"onmouseover="alert(1))',
    "<form action=https://evil.example><input name=password>",
    "\x00<b>\ufeff</b>\u202e",
]


def assert_harmless(html: str):
    for slash, name, rest in ELEMENT.findall(html):
        assert name in ALLOWED
        assert ATTRIBUTES.fullmatch("" if slash else rest), rest
    # Whatever is left is text: no bracket of it opens an element.
    assert "<" not in ELEMENT.sub("", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_only_elements_of_the_list(text: str):
    assert_harmless(str(render(text)))


@given(st.text(alphabet="<>[]()!`*_#-|&;:/\"'= \nabjs1.", max_size=120))
def test_whatever_is_written_nothing_but_the_list_comes_out(text: str):
    assert_harmless(str(render(text)))


def test_a_link_stands_there_as_text_with_its_address():
    html = str(render("See [the docs](https://docs.example/a?b=c&d)."))

    assert "<a" not in html
    assert 'the docs <span class="address">(https://docs.example/a?b=c&amp;d)</span>' in html


def test_an_image_loads_nothing():
    assert "<img" not in str(render("![a cat](https://evil.example/cat.png)"))


def test_plain_markdown_is_formatted():
    html = str(render("# Title\n\n1. **one**\n2. *two*\n\n- a\n- b\n\n`code`"))

    assert html == (
        "<h4>Title</h4><ol><li><strong>one</strong></li><li><em>two</em></li></ol>"
        "<ul><li>a</li><li>b</li></ul><p><code>code</code></p>"
    )


def test_a_list_goes_on_counting_where_it_began():
    assert str(render("4. four\n5. five")).startswith('<ol start="4">')


def test_line_breaks_of_a_poem_stay():
    assert str(render("by the sea\nby the sand")) == "<p>by the sea<br>by the sand</p>"


def test_a_very_long_text_is_shown_as_it_is():
    html = str(render("<b>" + "a" * MAX_LENGTH))

    assert html.startswith("<pre>&lt;b&gt;aaa")
