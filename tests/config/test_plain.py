"""Configs as plain dicts are compared and hashed by content."""

import importlib

import pytest

from cgjax.config import plain as configuration


def plain(name="dcgan_pose", arg=""):
    return configuration.to_plain(importlib.import_module(f"configs.{name}").get_config(arg))


def test_differences_name_the_leaves():
    a, b = plain(), plain()
    b["cluster"]["num_clusters"] = 4
    assert configuration.differences(a, b) == ["cluster.num_clusters: 2 -> 4"]
    assert configuration.differences(a, b, "cluster.num_clusters".__eq__) == []
    assert configuration.differences({"a": 1}, {"b": 2}) == ["a: 1 -> None", "b: None -> 2"]


def test_settings_read_back_from_json_do_not_differ():
    assert configuration.differences({"a": [1, 2]}, {"a": (1, 2)}) == []


def test_a_digest_depends_on_content_not_on_order_or_type():
    a = {"x": 1, "y": [1.5, None, "é"], "z": {"a": True, "b": False}}
    b = {"z": {"b": False, "a": True}, "y": (1.5, None, "é"), "x": 1}
    assert configuration.digest(a) == configuration.digest(b)
    assert len(configuration.digest(a)) == 64
    others = [a | {"x": 2}, a | {"x": "1"}, a | {"x": True}, a | {"x": None}, {"x": 1}, [a], None]
    assert len({configuration.digest(value) for value in [a, *others]}) == 8


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, object(), {1, 2}])
def test_a_value_that_json_cannot_hold_has_no_digest(value):
    with pytest.raises((TypeError, ValueError)):
        configuration.digest(value)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="quick"):
        plain("dcgan_pose", "fast")
