"""The grammar of queries, as in `--cluster="layer2=0 & (layer4!=1 | smiling)"`: text in, tree out.

    any  = all {"|" all}
    all  = not {"&" not}
    not  = "!" not | "(" any ")" | term
    term = cluster | clustering "=" cluster | clustering "!=" cluster

A clustering or a cluster is a run of characters without operators (inner spaces allowed), or
anything between two " or two '. `resolve` looks up what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from cgjax.errors import UserError

MAX_DEPTH = 50
"""How deeply parentheses and `!` may nest; no query a person types comes near."""


class Term(NamedTuple):
    """One cluster.

    Attributes:
        cluster: its id, name or path, as typed.
        clustering: the clustering's id or layer; None if none was typed.
    """

    cluster: str
    clustering: str | None = None


class Not(NamedTuple):
    """Everything that a query does not match."""

    part: Query


class AllOf(NamedTuple):
    """What all of two or more queries match."""

    parts: tuple[Query, ...]


class AnyOf(NamedTuple):
    """What any of two or more queries matches."""

    parts: tuple[Query, ...]


Query = Term | Not | AllOf | AnyOf


def parse_query(text: str) -> Query:
    """Parse a query: `!` binds tighter than `&`, and `&` tighter than `|`.

    A text without operators is one cluster.

    Args:
        text: what was typed after `--cluster=`.

    Returns:
        The tree as typed: `a & b & c` is one `AllOf` of three parts.

    Raises:
        UserError: a syntax error, with its position.

    Example:
        >>> parse_query("facing left")
        Term(cluster='facing left', clustering=None)
        >>> parse_query("layer2=0 & !'black & white'").parts[1]
        Not(part=Term(cluster='black & white', clustering=None))
    """
    return _Parser(text).whole()


def quoted(word: str) -> str:
    """Return a word as typed in a query: in quotes if it would not be parsed as one word."""
    if word == word.strip() and not re.search(r"""[!&|()=]|^["']""", word):
        return word
    return f'"{word}"' if "'" in word else f"'{word}'"


class _Token(NamedTuple):
    """A piece of the text.

    Attributes:
        kind: "word", the operator, or "" at the end of the text.
        word: the word without its quotes.
        start: its first character, from 0.
    """

    kind: str
    word: str
    start: int


_PIECE = re.compile(
    r"""\s* (?: (?P<operator> != | [!&|()=] )
              | (?P<quote> ["'] ) (?P<quoted> .*? ) (?P=quote)
              | (?P<open> ["'] )
              | (?P<bare> [^\s!&|()=] [^!&|()=]* ) )""",
    re.VERBOSE | re.DOTALL,
)


class _Parser:
    """Recursive descent with one method per grammar rule; `token` is the next one to consume."""

    def __init__(self, text: str):
        self.text = text
        self.depth = 0
        self.position = 0
        self.token = self._next()

    def whole(self) -> Query:
        query = self._any()
        if self.token.kind:
            self._fail("expected & or | or the end")
        return query

    def _any(self) -> Query:
        parts = self._separated(self._all, "|")
        return AnyOf(parts) if len(parts) > 1 else parts[0]

    def _all(self) -> Query:
        parts = self._separated(self._not, "&")
        return AllOf(parts) if len(parts) > 1 else parts[0]

    def _separated(self, rule: Callable[[], Query], operator: str) -> tuple[Query, ...]:
        parts = [rule()]
        while self._accept(operator):
            parts.append(rule())
        return tuple(parts)

    def _not(self) -> Query:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep")
        if self._accept("!"):
            query: Query = Not(self._not())
        elif self._accept("("):
            query = self._any()
            if not self._accept(")"):
                self._fail("expected & or | or )")
        else:
            query = self._term()
        self.depth -= 1
        return query

    def _term(self) -> Query:
        first = self._word()
        if self._accept("="):
            return Term(self._word(), first)
        if self._accept("!="):
            return Not(Term(self._word(), first))
        return Term(first)

    def _word(self) -> str:
        word = self.token.word
        if not word:
            self._fail("expected a cluster")
        self.token = self._next()
        return word

    def _accept(self, operator: str) -> bool:
        """Consume the next token if it is an operator; return whether it was."""
        is_next = self.token.kind == operator
        if is_next:
            self.token = self._next()
        return is_next

    def _next(self) -> _Token:
        match = _PIECE.match(self.text, self.position)
        if match is None:
            return _Token("", "", len(self.text))
        self.position = match.end()
        groups = match.groupdict()
        if groups["operator"]:
            return _Token(groups["operator"], "", match.start("operator"))
        if groups["bare"]:
            return _Token("word", groups["bare"].rstrip(), match.start("bare"))
        if groups["open"]:
            self.token = _Token("", "", match.start("open"))
            self._fail(f"unclosed {groups['open']}")
        return _Token("word", groups["quoted"].strip(), match.start("quote"))

    def _fail(self, problem: str) -> NoReturn:
        """Raise a UserError at the next token."""
        text = re.sub(r"\s", " ", self.text)
        unread = text[self.token.start :]
        position = f"character {self.token.start + 1} ({unread!r})" if unread else "the end"
        raise UserError(f"--cluster={text}: {problem} at {position}")
