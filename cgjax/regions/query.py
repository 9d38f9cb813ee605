"""The grammar of queries, as in `--cluster="layer2=0 & (layer4!=1 | smiling)"`: text in, tree out.

    any  = all {"|" all}
    all  = not {"&" not}
    not  = "!" not | "(" any ")" | term
    term = cluster | clustering "=" cluster | clustering "!=" cluster

A clustering or a cluster is a run of characters without operators, spaces inside included, or
anything between two " or two '. What they mean is found in `resolve`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from cgjax.errors import UserError

MAX_DEPTH = 50
"""How deep parentheses and `!` may lie within each other; no person's query comes near."""


class Term(NamedTuple):
    """One cluster.

    Attributes:
        cluster: its id, name or path, as it was typed.
        clustering: the clustering's id or layer; None where none was given.
    """

    cluster: str
    clustering: str | None = None


class Not(NamedTuple):
    """All but what a query asks for."""

    part: Query


class AllOf(NamedTuple):
    """What two or more queries ask for, all at once."""

    parts: tuple[Query, ...]


class AnyOf(NamedTuple):
    """What any of two or more queries asks for."""

    parts: tuple[Query, ...]


Query = Term | Not | AllOf | AnyOf


def parse_query(text: str) -> Query:
    """Read a query: `!` binds tighter than `&`, and `&` tighter than `|`.

    A text without any operator is one cluster.

    Args:
        text: what stood after `--cluster=`.

    Returns:
        The tree as it was typed: `a & b & c` is one `AllOf` of three parts.

    Raises:
        UserError: a syntax error, with its place.

    Example:
        >>> parse_query("facing left")
        Term(cluster='facing left', clustering=None)
        >>> parse_query("layer2=0 & !'black & white'").parts[1]
        Not(part=Term(cluster='black & white', clustering=None))
    """
    return _Parser(text).whole()


def quoted(word: str) -> str:
    """Return a word as it is typed in a query: within quotes where it would not be read whole."""
    if word == word.strip() and not re.search(r"""[!&|()=]|^["']""", word):
        return word
    return f'"{word}"' if "'" in word else f"'{word}'"


class _Token(NamedTuple):
    """A piece of the text.

    Attributes:
        kind: "word", or the operator, or "" at the end of the text.
        word: without its quotes.
        start: where it begins, from 0.
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
    """Recursive descent, one method a rule of the grammar; `token` is the first not yet read."""

    def __init__(self, text: str):
        self.text = text
        self.depth = 0
        self.position = 0
        self.token = self._read()

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
        while self._took(operator):
            parts.append(rule())
        return tuple(parts)

    def _not(self) -> Query:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep")
        if self._took("!"):
            query: Query = Not(self._not())
        elif self._took("("):
            query = self._any()
            if not self._took(")"):
                self._fail("expected & or | or )")
        else:
            query = self._term()
        self.depth -= 1
        return query

    def _term(self) -> Query:
        first = self._word()
        if self._took("="):
            return Term(self._word(), first)
        if self._took("!="):
            return Not(Term(self._word(), first))
        return Term(first)

    def _word(self) -> str:
        word = self.token.word
        if not word:
            self._fail("expected a cluster")
        self.token = self._read()
        return word

    def _took(self, operator: str) -> bool:
        """Whether the next token is an operator; it is then read."""
        is_next = self.token.kind == operator
        if is_next:
            self.token = self._read()
        return is_next

    def _read(self) -> _Token:
        match = _PIECE.match(self.text, self.position)
        if match is None:
            return _Token("", "", len(self.text))
        self.position = match.end()
        found = match.groupdict()
        if found["operator"]:
            return _Token(found["operator"], "", match.start("operator"))
        if found["bare"]:
            return _Token("word", found["bare"].rstrip(), match.start("bare"))
        if found["open"]:
            self.token = _Token("", "", match.start("open"))
            self._fail(f"expected another {found['open']} after the one")
        return _Token("word", found["quoted"].strip(), match.start("quote"))

    def _fail(self, problem: str) -> NoReturn:
        """Raise a UserError at the token that is next."""
        shown = re.sub(r"\s", " ", self.text)
        rest = shown[self.token.start :]
        place = f"character {self.token.start + 1} ({rest!r})" if rest else "the end"
        raise UserError(f"--cluster={shown}: {problem} at {place}")
