"""Every array of every fixture is reproduced by the converted network."""

import json

import numpy as np
import pytest

from tests.golden_cases import GOLDEN, TOLERANCE
from tests.parity import FAMILIES, parity

pytestmark = pytest.mark.torch

FIXTURES = sorted(p.parent.name for p in GOLDEN.glob("*/meta.json"))


@pytest.mark.parametrize("name", FIXTURES)
def test_every_array_equals_the_reference(name):
    errors = parity(GOLDEN / name)
    assert len(errors) > 4
    assert not [n for n, e in errors.items() if np.isnan(e)], "not compared"
    assert {n: e for n, e in errors.items() if e >= TOLERANCE} == {}


def test_every_known_layout_has_a_fixture():
    metas = [json.loads((GOLDEN / name / "meta.json").read_text()) for name in FIXTURES]
    assert {meta["family"] for meta in metas} == FAMILIES.keys()
