"""The one Markdown renderer for replies: an allow-list, no HTML, no images, no live links."""

from collections.abc import Callable, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

MAX_LENGTH = 20_000
"""Longer texts are shown as they are: nobody reads them formatted, and parsing takes time."""

# Only these become elements. Whatever else a parser may ever say turns into its escaped text.
BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "hr")
TABLES = ("table", "thead", "tbody", "tr", "th", "td")
TAGS = frozenset({*BLOCKS, *TABLES, "strong", "em", "s", "br"})
# A heading inside a reply must not compete with the headings of the page.
AS_TAG = {f"h{level}": "h4" for level in range(1, 7)}

_PARSER = (
    MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False})
    .enable(["table", "strikethrough"])
    .disable(["html_block", "html_inline", "image", "reference"])
)


def render(text: str) -> Markup:
    """A reply as safe HTML.

    >>> str(render("**Hi** <b>you</b>, see [here](javascript:alert)"))
    '<p><strong>Hi</strong> &lt;b&gt;you&lt;/b&gt;, see [here](javascript:alert)</p>'
    """
    if len(text) > MAX_LENGTH:
        return Markup("<pre>{}</pre>").format(text)
    return Markup("").join(_block(_PARSER.parse(text)))


def _block(tokens: Sequence[Token]) -> list[Markup]:
    return [part for token in tokens for part in _token(token)]


def _token(token: Token) -> list[Markup]:
    if token.type == "inline":
        return _inline(token.children or [])
    if token.hidden:  # the paragraphs of a tight list
        return []
    return [_leaf(token)]


def _inline(tokens: Sequence[Token]) -> list[Markup]:
    parts: list[Markup] = []
    addresses: list[str] = []
    for token in tokens:
        if token.type == "link_open":
            addresses.append(str(token.attrs.get("href", "")))
        elif token.type == "link_close":
            parts.append(Markup(' <span class="address">({})</span>').format(addresses.pop()))
        else:
            parts.append(_leaf(token))
    return parts


def _leaf(token: Token) -> Markup:
    if token.type in _LEAVES:
        return _LEAVES[token.type](token)
    if token.tag not in TAGS:
        return escape(token.content)
    tag = AS_TAG.get(token.tag, token.tag)  # from the allow-list, so never from the text
    if token.nesting < 0:
        return Markup("</{}>").format(tag)
    start = token.attrs.get("start")
    if token.tag == "ol" and isinstance(start, int):
        return Markup('<ol start="{}">').format(start)
    return Markup("<{}>").format(tag)


def _code(token: Token) -> Markup:
    return Markup("<pre><code>{}</code></pre>").format(token.content)


_LEAVES: dict[str, Callable[[Token], Markup]] = {
    "text": lambda token: escape(token.content),
    "text_special": lambda token: escape(token.content),
    "softbreak": lambda _: Markup("<br>"),  # a model's line break is meant, in a poem most of all
    "code_inline": lambda token: Markup("<code>{}</code>").format(token.content),
    "fence": _code,
    "code_block": _code,
}
