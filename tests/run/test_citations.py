"""`citations.bib`: every part that can be configured has complete entries."""

import re
from pathlib import Path

import pytest

from cgjax.config import leaves, training
from cgjax.config.plain import to_plain
from cgjax.evaluation.judges import JUDGES
from cgjax.generators.families import FAMILIES
from cgjax.run import citations
from cgjax.run.citations import bibliography, entries, works_of_run, works_of_training
from configs import common, scgan_cifar10, scgan_grid

REFERENCES = Path(__file__).resolve().parents[2] / "docs" / "references.md"


def keys_of(text):
    return re.findall(r"@\w+\{(\w+),", text)


@pytest.mark.parametrize(
    ("table", "known"),
    [
        (citations.GENERATORS, FAMILIES),
        (citations.SAMPLERS, leaves.SAMPLERS),
        (citations.SPACES, leaves.SPACES),
        (citations.JUDGES, JUDGES),
    ],
)
def test_the_tables_cover_exactly_the_parts_that_can_be_configured(table, known):
    assert set(table) == set(known)


def test_every_training_method_has_an_entry():
    assert set(training.METHODS) <= set(citations.METHODS)


@pytest.mark.parametrize("key", bibliography())
def test_every_entry_is_complete_and_in_the_references(key):
    entry = bibliography()[key]
    kind, fields = re.match(r"@(\w+)\{\w+,\n(.*)\n\}\n$", entry, re.DOTALL).groups()
    found = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", fields, re.MULTILINE))
    places = {"inproceedings": "booktitle", "article": "journal", "techreport": "institution"}
    place = places[kind]
    assert set(found) == {"title", "author", "year", place}
    assert all(value.count("{") == value.count("}") for value in found.values())
    assert re.fullmatch(r"(19|20)\d\d", found["year"])
    assert all(", " in author for author in found["author"].split(" and "))
    title = re.sub(r"[{}]", "", found["title"]).lower()
    flat = re.sub(r"\s+", " ", REFERENCES.read_text()).lower()
    assert title in flat
    assert found["year"] in key


def test_a_run_cites_exactly_what_it_used():
    config = to_plain(common.get_config())
    plain = keys_of(works_of_run(config, "dcgan"))
    assert {"georgopoulos2022cluster", "radford2016unsupervised", "lipman2023flow"} <= set(plain)
    assert plain == sorted(set(plain))
    config["cluster"]["space"] = "spherical"
    config["samplers"]["vae"]["fit"] = True
    config["cluster"]["backend"] = "faiss"
    held = {"swept": ["face_mesh", "my:judge"], "compared": True, "assigned": True}
    full = keys_of(works_of_run(config, "stylegan2", **held))
    assert set(full) - set(plain) == {
        *("karras2020analyzing", "dhillon2001concept", "kingma2014auto"),
        *("hennig2007cluster", "tibshirani2005cluster", "mourer2023selecting"),
        *("kynkaanniemi2019improved", "naeem2020reliable", "binkowski2018demystifying"),
        *("kartynnik2019real", "liu2020diverse", "douze2024faiss"),
        *("shen2021closed", "harkonen2020ganspace"),
    }
    config["assign"]["lpips"] = "lpips.safetensors"
    assert set(keys_of(works_of_run(config, "stylegan2", **held))) - set(full) == {
        "zhang2018unreasonable"
    }
    own = keys_of(works_of_run(config, "mine"))
    assert "radford2016unsupervised" not in own


def test_a_training_run_cites_its_method():
    config = to_plain(scgan_grid.get_config())
    assert "liu2020diverse" in keys_of(works_of_training(config))
    config["train"]["method"] = "mgan"
    assert "hoang2018mgan" in keys_of(works_of_training(config))
    config = to_plain(scgan_cifar10.get_config())
    own = {"krizhevsky2009learning", "miyato2018spectral", "liu2020diverse"}
    assert own <= set(keys_of(works_of_training(config)))


def test_an_unknown_key_raises():
    with pytest.raises(KeyError):
        entries(["nobody2000"])
