r"""Self-Conditioned GAN and its rivals on a ring of 8 Gaussians [Liu et al. 2020, Table 1].

    python -m cgjax.main --config=configs/scgan_ring.py
    python -m cgjax.main --config=configs/scgan_ring.py --config.train.method=gan \
        --config.train.iterations=30000 --workdir=runs/gan_ring

These are the paper's settings; `--config=configs/scgan_ring.py:code` has those of its reference
code. The paper's 400,000 iterations take hours on two cores. `:modulated` is ours and takes five to
ten minutes: a generator whose latents stay in use, and a cooldown. docs/endtoend_plane.md has the
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
