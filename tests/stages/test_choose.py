"""`--mode=choose` says how many clusters a layer has and why, and writes nothing."""

import pytest

from cgjax.config.plain import to_plain
from cgjax.errors import UserError
from cgjax.stages.choose import describe_choice, what_to_type
from configs import tiny


def config_of(num: int, layer: str = "layer1") -> dict:
    config = tiny.get_config()
    config.generator.name = "cgjax.testing.planted:make_planted"
    config.layer, config.latents.num = layer, num
    return to_plain(config)


def test_planted_sides_are_found_with_the_reason_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = describe_choice(config_of(1200), 4)
    first, *rest = text.splitlines()
    assert first.startswith("layer1: 2 clusters: valleys lie between them")
    assert "three independent sets of 360, 360 and 480 rows" in rest[0]
    assert rest[-1] == "to use it: --config.cluster.num_clusters=2"
    assert not list(tmp_path.iterdir())


def test_one_cluster_and_too_few_to_choose_among_say_what_to_type():
    assert what_to_type("one cluster", 1).endswith("--config.cluster.num_clusters=2")
    assert what_to_type("more clusters than asked for", 4).endswith("--max_clusters=8")


def test_the_number_is_chosen_in_the_space_that_will_be_clustered():
    config = config_of(400)
    config["cluster"]["space"] = "spherical"
    text = describe_choice(config, 3)
    assert text.startswith("layer1: ")
    assert text != describe_choice(config_of(400), 3)


def test_the_same_seed_gives_the_same_text():
    assert describe_choice(config_of(400), 3) == describe_choice(config_of(400), 3)


@pytest.mark.parametrize(
    ("config", "most", "message"),
    [
        (
            config_of(200),
            4,
            r"needs at least 300 latents, not 200; give --config\.latents\.num=300 or more$",
        ),
        (
            config_of(400),
            16,
            r"not 400; give --config\.latents\.num=960 or more, or choose among fewer, "
            r"--max_clusters=6$",
        ),
        (config_of(400, "layer9"), 4, "layer9"),
    ],
)
def test_an_impossible_choice_is_reported_in_one_line(config, most, message):
    with pytest.raises(UserError, match=message):
        describe_choice(config, most)
