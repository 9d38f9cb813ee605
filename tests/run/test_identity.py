"""A folder recognises the generator that it was made with, and no other."""

import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.torch_module import from_torch
from cgjax.run.folder import Provenance, RunFolder, save_config
from cgjax.run.folder_checks import check_provenance
from cgjax.run.identity import identity_of, trace_of, weights_of
from cgjax.run.training import open_training
from tests.run.changes import small
from tests.run.test_edited_files import edit_json


def known(gen):
    one = ConditionedGenerator(gen, gen.layers[0], {}, 4)
    trace = trace_of(one)
    return Provenance(weights_of(one), trace, identity_of(one, "mine:make", trace))


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
    check_provenance(folder, own)
    with pytest.raises(UserError, match="other features or images of the same latents"):
        check_provenance(folder, other._replace(weights_sha256=own.weights_sha256))
    assert other.identity != own.identity


class Loud:
    """A generator with features a thousand times larger than its images."""

    layers, latent_dim, image_size = ("a",), 4, 4

    def __init__(self, sign):
        self.sign = sign

    def sample_latents(self, key, n):
        return jax.random.normal(key, (n, 4), jnp.float32)

    def features(self, z, layer):
        return 3000.0 * jnp.tanh(z)

    def images(self, z):
        return jnp.tile(self.sign * jnp.tanh(z)[:, :, None, None], (1, 1, 4, 3))


def test_changed_images_are_noticed_beside_large_features(tmp_path):
    folder = RunFolder(tmp_path)
    save_config(folder, small(), known(Loud(1.0)))
    check_provenance(folder, known(Loud(1.0)))
    with pytest.raises(UserError, match="other features or images of the same latents"):
        check_provenance(folder, known(Loud(-1.0)))


def test_the_same_weights_in_another_architecture_are_another_generator(tmp_path):
    folder = RunFolder(tmp_path)
    save_config(folder, small(), Provenance("1" * 64, [], "of leak 0.2"))
    with pytest.raises(UserError, match=r"the same weights in another architecture"):
        check_provenance(folder, Provenance("1" * 64, [], "of leak 0.9"))


def test_a_run_with_an_edited_config_resumes_only_with_allow_change(whole, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "run")
    edit_json(root / "config.json", faster)
    with pytest.raises(UserError, match=r"config\.json was edited; put it back"):
        open_training(root, None)
    assert open_training(root, None, allow_change=True).config["train"]["learning_rate"] == 0.5


def faster(saved):
    saved["config"]["train"]["learning_rate"] = 0.5
    return saved


def test_a_folder_whose_name_is_not_utf8_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"/run\\xff: expected a name in UTF-8; rename it"):
        RunFolder(os.fsdecode(bytes(tmp_path) + b"/run\xff"))
    assert not list(tmp_path.iterdir())
