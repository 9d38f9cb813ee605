"""Queries are parsed as typed, and syntax errors state their position."""

import pytest

from cgjax.errors import UserError
from cgjax.regions.query import MAX_DEPTH, AllOf, AnyOf, Not, Term, parse_query, quoted

A, B, C = Term("a"), Term("b"), Term("c")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        # One cluster: any text without an operator.
        ("0", Term("0")),
        ("-1", Term("-1")),
        ("facing left", Term("facing left")),
        ("  facing left ", Term("facing left")),
        ("turned left, -17 degrees", Term("turned left, -17 degrees")),
        ("women's hair", Term("women's hair")),
        ("0/1", Term("0/1")),
        # A cluster of a named clustering.
        ("layer2=0", Term("0", "layer2")),
        ("layer2-k2 = facing left", Term("facing left", "layer2-k2")),
        ("synthesis.b16-k4=3", Term("3", "synthesis.b16-k4")),
        ("net/block_3:0=0/1/2", Term("0/1/2", "net/block_3:0")),
        ("layer4!=1", Not(Term("1", "layer4"))),
        ("layer4 != 1", Not(Term("1", "layer4"))),
        # Operators.
        ("!a", Not(A)),
        ("!!a", Not(Not(A))),
        ("!a=b", Not(Term("b", "a"))),
        ("!a!=b", Not(Not(Term("b", "a")))),
        ("a&b", AllOf((A, B))),
        ("a | b | c", AnyOf((A, B, C))),
        ("a & b & c", AllOf((A, B, C))),
        ("facing left & b=dark hair", AllOf((Term("facing left"), Term("dark hair", "b")))),
        # Precedence and parentheses.
        ("a | b & c", AnyOf((A, AllOf((B, C))))),
        ("a & b | c", AnyOf((AllOf((A, B)), C))),
        ("(a | b) & c", AllOf((AnyOf((A, B)), C))),
        ("!a & b", AllOf((Not(A), B))),
        ("!(a & b)", Not(AllOf((A, B)))),
        ("(a | b) | c", AnyOf((AnyOf((A, B)), C))),
        ("((a))", A),
        # Quotes.
        ('"black & white"', Term("black & white")),
        ("'smile (wide)' & !\"it's\"", AllOf((Term("smile (wide)"), Not(Term("it's"))))),
        ("'a=b'='c!=d'", Term("c!=d", "a=b")),
        ("'a'&'b'", AllOf((A, B))),
    ],
)
def test_a_query_is_parsed_by_the_grammar(text, query):
    assert parse_query(text) == query


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer2=0 & & layer4=1", "expected a cluster at character 12 ('& layer4=1')"),
        ("", "expected a cluster at the end"),
        ("   ", "expected a cluster at the end"),
        ("a &", "expected a cluster at the end"),
        ("a | ", "expected a cluster at the end"),
        ("| a", "expected a cluster at character 1 ('| a')"),
        ("!", "expected a cluster at the end"),
        ("a & !| b", "expected a cluster at character 6 ('| b')"),
        ("()", "expected a cluster at character 2 (')')"),
        ("=1", "expected a cluster at character 1 ('=1')"),
        ("layer2=", "expected a cluster at the end"),
        ("layer2==0", "expected a cluster at character 8 ('=0')"),
        ("layer2=!0", "expected a cluster at character 8 ('!0')"),
        ("layer2!=(0|1)", "expected a cluster at character 9 ('(0|1)')"),
        ("'' & a", "expected a cluster at character 1 (\"'' & a\")"),
        ("a=b=c", "expected & or | or the end at character 4 ('=c')"),
        ("a ! b", "expected & or | or the end at character 3 ('! b')"),
        ("a (b)", "expected & or | or the end at character 3 ('(b)')"),
        ("(a) b", "expected & or | or the end at character 5 ('b')"),
        ("'a' b", "expected & or | or the end at character 5 ('b')"),
        ("a)", "expected & or | or the end at character 2 (')')"),
        ("(a | b", "expected & or | or ) at the end"),
        ("(a | (b & c) d", "expected & or | or ) at character 14 ('d')"),
        ("a & 'b", "unclosed ' at character 5 (\"'b\")"),
        ("a & \"b' | c", "unclosed \" at character 5 ('\"b\\' | c')"),
    ],
)
def test_a_syntax_error_is_one_line_with_its_position(text, message):
    with pytest.raises(UserError) as error:
        parse_query(text)
    assert str(error.value) == f"--cluster={text}: {message}"


def test_line_breaks_keep_the_message_on_one_line_and_the_position():
    with pytest.raises(UserError, match=r"^--cluster=a &  \| b: .* at character 6 \('\| b'\)$"):
        parse_query("a &\n | b")


@pytest.mark.parametrize("opening", ["!", "("])
def test_extreme_nesting_is_refused_and_does_not_crash(opening):
    closing = ")" if opening == "(" else ""
    deep = MAX_DEPTH - 1
    parse_query(opening * deep + "a" + closing * deep)
    with pytest.raises(UserError, match=f"nested more than {MAX_DEPTH} deep at character"):
        parse_query(opening * 10_000 + "a")


def test_many_terms_in_a_row_do_not_count_as_nesting():
    assert len(parse_query(" & ".join(["(a | b)"] * 1000)).parts) == 1000


@pytest.mark.parametrize(
    "word",
    ["layer2-k2", "facing left", "it's", "'90s", 'the "best"', "a & b", "(x)", "wow!", "a=b"],
)
def test_a_quoted_word_is_parsed_back_as_one_word(word):
    assert parse_query(f"{quoted(word)} & {quoted(word)}={quoted(word)}") == AllOf(
        (Term(word), Term(word, word))
    )
