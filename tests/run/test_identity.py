"""What a folder was made with is known again, and nothing else is taken for it."""

import pytest

from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.torch_module import from_torch
from cgjax.run.folder import Known, RunFolder, check_generator_is, save_config
from cgjax.run.identity import identity_of, trace_of, weights_of
from cgjax.run.training import open_training
from tests.endtoend import tiny_runs
from tests.run.changes import small
from tests.run.test_edited_files import edit_json


def known(gen):
    one = ConditionedGenerator(gen, gen.layers[0], {}, 4)
    trace = trace_of(one)
    return Known(weights_of(one), trace, identity_of(one, "mine:make", trace))


@pytest.mark.torch
def test_the_same_weights_in_other_code_are_another_generator(tmp_path):
    torch = pytest.importorskip("torch")
    from tests.generators.torch_models import Decoder, from_decoder

    module = Decoder()
    own = known(from_decoder(module))
    other = known(
        from_torch(
            module,
            layers={"hidden": "fc"},
            latent_dim=8,
            call=lambda m, z: m.decode(0.3 * torch.roll(z, 3, 1))[0],
            image_range=(0, 1),
        )
    )
    folder = RunFolder(tmp_path)
    save_config(folder, small(), own)
    check_generator_is(folder, own)
    with pytest.raises(UserError, match="other features or images of the same latents"):
        check_generator_is(folder, other._replace(weights_sha256=own.weights_sha256))
    assert other.identity != own.identity


def test_the_same_weights_in_another_architecture_are_another_generator(tmp_path):
    folder = RunFolder(tmp_path)
    save_config(folder, small(), Known("1" * 64, [], "of leak 0.2"))
    with pytest.raises(UserError, match=r"the same weights in another architecture"):
        check_generator_is(folder, Known("1" * 64, [], "of leak 0.9"))


def test_a_run_whose_saved_config_was_edited_goes_on_only_if_that_is_said(tmp_path):
    root = tmp_path / "run"
    tiny_runs.train(root, tiny_runs.settings())
    edit_json(root / "config.json", faster)
    with pytest.raises(UserError, match=r"config\.json was edited; put it back"):
        open_training(root, None)
    assert open_training(root, None, allow_change=True).config["train"]["learning_rate"] == 0.5


def faster(saved):
    saved["config"]["train"]["learning_rate"] = 0.5
    return saved
