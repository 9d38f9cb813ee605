r"""Self-Conditioned GAN and its rivals on a ring of 8 Gaussians [Liu et al. 2020, Table 1].

    python -m cgjax.main --config=configs/scgan_ring.py
    python -m cgjax.main --config=configs/scgan_ring.py --config.train.method=gan \
        --config.train.iterations=30000 --workdir=runs/gan_ring

The paper's settings; those of its reference code with `--config=configs/scgan_ring.py:code`. At the
paper's 400,000 iterations a run takes hours on two cores. `:modulated` is ours, of five to ten
minutes: a generator whose latents stay in use, and a cooldown. docs/endtoend_plane.md has the
numbers.
"""

from ml_collections import config_dict

from configs import scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.get_config()
    config.data.name = "ring"
    if arg == "modulated":
        return scgan_common.modulated(config, labels=64)
    return scgan_common.variant(config, arg, "modulated")
