"""The draw that a page asks for is untrusted, and is checked."""

import pytest

from cgjax.errors import UserError
from cgjax.serve.wanted import Wanted, wanted_of


def test_fields_left_out_have_the_defaults_of_the_command_line():
    assert wanted_of({"cluster": "left"}) == Wanted("left", 64, "0", 0, None, True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "expected a JSON object with a cluster"),
        ({"num": 3}, "expected a JSON object with a cluster"),
        ({"cluster": 0}, "cluster=0"),
        ({"cluster": "0", "out": "/etc"}, "unknown field 'out'; expected cluster, num,"),
        ({"cluster": "0", "x" * 5000: 1}, "unknown field 'xxx"),
        ({"cluster": "0", "num": True}, "num=True"),
        ({"cluster": "0", "num": 0}, "expected 1 to 4096; --mode=sample draws more"),
        ({"cluster": "0", "num": 10**9}, "expected 1 to 4096"),
        ({"cluster": "0", "num": 10**4000}, "expected 1 to 4096"),
        ({"cluster": "0", "num": 1.5}, "num=1.5: expected a whole number"),
        ({"cluster": "0", "num": "x" * 5000}, "expected a whole number"),
        ({"cluster": "0", "seed": -1}, "seed -1"),
        ({"cluster": "0", "seed": 2**32}, "seed 4294967296"),
        ({"cluster": "0", "seed": -(10**4000)}, "expected 0 to 4294967295"),
        ({"cluster": "0", "verify": 1}, "verify=1: expected true or false"),
        ({"cluster": "0", "margin": 0.5}, "margin=0.5"),
        ({"cluster": "0", "sampler": ["flow"]}, "sampler="),
        ({"cluster": "x" * 200_000}, "cluster is too long"),
        ({"cluster": "0", "margin": "0" * 200_000}, "margin is too long"),
    ],
)
def test_anything_else_is_refused_in_one_short_line(body, said):
    with pytest.raises(UserError) as refused:
        wanted_of(body)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
