"""A query's terms are looked up in the run's clusterings, and unknown ones are refused."""

import re
import shlex

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.regions.query import AllOf, AnyOf, Not, Term, parse_query
from cgjax.regions.region import ClusterRegion, MarginRange
from cgjax.regions.resolve import Resolver
from tests.regions.planted import clustering, held

MAIN = "layer2-k2"


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    sizes = [("layer2", 2), ("layer2", 5), ("layer4", 3), ("b.16", 4), ("b.16", 2)]
    names = {
        (MAIN, 0): "left",
        ("layer2-k5", 1): "left",
        ("layer2-k5", 2): "odd",
        ("layer4-k3", 0): "dark",
        ("layer4-k3", 2): "dark",
        ("layer4-k3", 1): "smile (wide)",
        ("b.16-k4", 0): "odd",
        (MAIN, 1): "black & white",
    }
    clusterings = [clustering(layer, rng.integers(0, k, 300), k) for layer, k in sizes]
    return held(*clusterings, names=names)


def labels(run, key):
    return run[key][0].labels


@pytest.mark.parametrize(
    ("text", "key", "cluster"),
    [
        ("0", MAIN, 0),
        ("layer2=1", MAIN, 1),  # the main one of the layer's two clusterings
        ("layer2-k5=4", "layer2-k5", 4),
        ("layer4=1", "layer4-k3", 1),
        ("b.16-k4=3", "b.16-k4", 3),
        ("left", MAIN, 0),
        ("layer2-k5=left", "layer2-k5", 1),
        ("layer4='smile (wide)'", "layer4-k3", 1),
        ("'smile (wide)'", "layer4-k3", 1),  # no other clustering has it
        ("black & white", MAIN, 1),  # a name, whatever it contains
        (1, MAIN, 1),
    ],
)
def test_a_term_is_a_cluster_of_the_clustering_meant(run, text, key, cluster):
    region = Resolver(run, MAIN).region(text)
    assert isinstance(region, ClusterRegion)
    assert (region.clustering.id, region.cluster) == (key, cluster)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2", "no cluster '2' in layer2-k2; it has: 0 (left), 1 (black & white); try --cluster="),
        ("layer4=3", "no cluster '3' in layer4-k3; it has: 0 (dark), 1 (smile (wide)), 2 (dark);"),
        ("layer4=left", "no cluster 'left' in layer4-k3; it has: "),
        ("0/1", "no cluster '0/1' in layer2-k2; it has: "),
        ("smiling", "no cluster 'smiling' in layer2-k2; it has: "),
        (
            "layer9=0",
            "no clustering 'layer9' in this run; it has: layer2-k2, layer2-k5, layer4-k3, "
            "b.16-k4, b.16-k2; try --cluster=layer2-k2=0",
        ),
        ("layer4-k2=0", "no clustering 'layer4-k2' in this run; it has: layer2-k2, "),
        ("b.16=0", "'b.16' could be b.16-k4 or b.16-k2; specify one, as in --cluster=b.16-k4=0"),
        (
            "odd",
            "several clusterings have a cluster named 'odd': layer2-k5, b.16-k4; specify one, "
            "as in --cluster=layer2-k5=odd",
        ),
    ],
)  # fmt: skip
def test_an_unknown_clustering_or_cluster_is_refused_and_the_known_ones_listed(run, text, problem):
    for query in (text, f"0 & !({text})"):
        with pytest.raises(UserError) as error:
            Resolver(run, MAIN).region(query)
        assert problem in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("main", [MAIN, None])
@pytest.mark.parametrize(
    "text", ["9", "4", "0", "dim", "odd", "b.16=3", "b.16=9", "b.16=dim", "layer2=4", "layer9=dim"]
)
def test_what_a_message_suggests_can_be_typed(run, text, main):
    resolver = Resolver(run, main)
    try:
        resolver.region(text)
    except UserError as error:
        suggested = re.search(r"(?:try|as in) (\S.*)$", str(error)).group(1)
        resolver.region(shlex.split(suggested)[0].removeprefix("--cluster="))


def test_a_cluster_that_no_clustering_has_is_not_called_ambiguous(run):
    with pytest.raises(UserError, match=r"^--cluster=dim: no clustering has such a cluster; "):
        Resolver(run, None).region("dim")


def test_a_run_of_one_clustering_does_not_name_it_in_messages():
    alone = held(clustering("layer1", [0, 1], 2))
    with pytest.raises(
        UserError, match=r"^no cluster '7' in this run; it has: 0, 1; try --cluster=0$"
    ):
        Resolver(alone, "layer1-k2").region("7")


def test_clusters_that_share_a_name_are_matched_and_excluded_together(run):
    dark = np.isin(labels(run, "layer4-k3"), [0, 2])
    for text, expected in {"dark": dark, "layer4=dark": dark, "!dark": ~dark}.items():
        np.testing.assert_array_equal(Resolver(run, MAIN).region(text).members(), expected)
    both = Resolver(run, MAIN).region("dark & left")
    np.testing.assert_array_equal(both.members(), dark & (labels(run, MAIN) == 0))


def test_a_query_has_the_members_of_the_boolean_combination_of_the_label_arrays(run):
    two, four, b = (labels(run, key) for key in (MAIN, "layer4-k3", "b.16-k4"))
    cases = {
        "layer2=0 & layer4=1": (two == 0) & (four == 1),
        "layer2=0 & layer4!=1": (two == 0) & (four != 1),
        "0 | layer4=1 & b.16-k4=3": (two == 0) | ((four == 1) & (b == 3)),
        "(0 | layer4=1) & b.16-k4=3": ((two == 0) | (four == 1)) & (b == 3),
        "!(0 | layer4=1)": ~((two == 0) | (four == 1)),
        "!(0 & !(b.16-k4=3 | layer4!=2))": ~((two == 0) & ~((b == 3) | (four != 2))),
    }
    for text, expected in cases.items():
        np.testing.assert_array_equal(Resolver(run, MAIN).region(text).members(), expected, text)


@pytest.mark.parametrize(
    "query", ["0 & 1", "!0 & 0", "!0 & !1", "layer4=0 & !(0 | 1)", "dark & layer4=1", "0 & !left"]
)
def test_a_query_that_nothing_can_match_is_refused_in_one_line(run, query):
    with pytest.raises(UserError, match=r"^--cluster=.* matches nothing: .*; use \| to match any"):
        Resolver(run, MAIN).region(query)


def random_query(rng, run, depth):
    """A tree of random terms, and the booleans it must equal."""
    kind = rng.choice(["term", "not", "all", "any"]) if depth else "term"
    if kind == "term":
        key = str(rng.choice(list(run)))
        c = int(rng.integers(run[key][0].num))
        return Term(str(c), key), labels(run, key) == c
    parts = [random_query(rng, run, depth - 1) for _ in range(1 if kind == "not" else 3)]
    if kind == "not":
        return Not(parts[0][0]), ~parts[0][1]
    both = np.stack([members for _, members in parts])
    queries = tuple(query for query, _ in parts)
    return (AllOf(queries), both.all(0)) if kind == "all" else (AnyOf(queries), both.any(0))


@pytest.mark.parametrize("seed", range(60))
def test_any_tree_matches_its_booleans_and_prints_as_an_equal_query(run, seed):
    query, expected = random_query(np.random.default_rng(seed), run, depth=4)
    region = Resolver(run, MAIN).resolve(query)
    np.testing.assert_array_equal(region.members(), expected)
    if not isinstance(region, ClusterRegion):  # a single cluster prints as its id
        again = Resolver(run, MAIN).resolve(parse_query(str(region)))
        np.testing.assert_array_equal(again.members(), expected)


@pytest.mark.parametrize(
    ("text", "has_margin"),
    [("0 & layer4!=1", [True]), ("!(!0 | layer4=1)", [True]), ("0 & !!layer4=1", [True, True])],
)
def test_a_margin_applies_to_terms_under_an_even_number_of_negations(run, text, has_margin):
    region = Resolver(run, MAIN).region(text, MarginRange(0.5))
    dialled = [part.margin.low == 0.5 for part in region.parts if isinstance(part, ClusterRegion)]
    assert dialled == has_margin


@pytest.mark.parametrize("text", ["!0", "layer4!=1", "!0 & layer4!=1", "!(0 | layer4=1)", "!!!0"])
def test_a_margin_is_refused_if_the_query_only_excludes(run, text):
    with pytest.raises(UserError, match=r"^--margin=0.5 .*--cluster=.* only excludes"):
        Resolver(run, MAIN).region(text, MarginRange(0.5))
