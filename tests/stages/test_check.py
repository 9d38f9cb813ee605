"""`--mode=check` prints the findings for any config's generator, and writes nothing."""

import pytest

from cgjax.config.plain import to_plain
from cgjax.errors import ForeignError, UserError
from cgjax.stages.check import describe_generator
from configs import tiny


def config_of(name: str) -> dict:
    config = tiny.get_config()
    config.generator.name = name
    config.generator.batch = 4
    return to_plain(config)


def test_the_table_has_a_line_for_every_layer_and_marks_the_config_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = describe_generator(config_of("cgjax.testing.planted:make_planted")).splitlines()
    assert lines[0] == "cgjax.testing.planted:make_planted: no fault found"
    assert lines[1].startswith("latents of 6 numbers; images 16 x 16 x 3, from -0.")
    assert "in passes of 4" in lines[2]
    rows = [line.split() for line in lines[4:]]
    assert rows[0] == ["layer", "shape", "MB", "ms", "resume"]
    assert [row[0] for row in rows[1:]] == ["layer1*", "layer2", "images"]
    assert rows[1][1:6] == ["1", "x", "1", "x", "4"]
    assert rows[1][-1] == rows[2][-1] == "yes"
    assert float(rows[2][6]) == pytest.approx(1000 * 256 * 4 / 2**20, abs=0.1)
    assert not list(tmp_path.iterdir())


def test_a_generator_without_the_config_s_layer_lists_its_layers():
    text = describe_generator(config_of("tests.generators.objects:Good"))
    assert "early  " in text
    first = text.splitlines()[0]
    assert "has no layer 'layer1', which the config asks for" in first
    assert first.endswith("give one of these, such as --config.layer=late")
    assert "*" not in text


def test_a_layer_given_by_number_is_marked():
    config = config_of("tests.generators.objects:Good") | {"layer": "2"}
    assert "late*" in describe_generator(config)


def test_a_faulty_generator_is_reported_in_one_line():
    with pytest.raises(UserError, match=r"objects:ImagesUint8\.images returned .* / 127\.5 - 1"):
        describe_generator(config_of("tests.generators.objects:ImagesUint8"))
    with pytest.raises(ForeignError, match="objects:Raises raised OSError: no weights"):
        describe_generator(config_of("tests.generators.objects:Raises"))
