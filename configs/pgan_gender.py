"""Apparent gender, from the first layer of PGAN on CelebA-HQ (the paper's Figure 2, top row).

    python -m cgjax.main --config=configs/pgan_gender.py
    python -m cgjax.main --config=configs/pgan_gender.py --config.generator.weights=weights/FOLDER

The published weights are fetched by name on a machine with a network.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.variant(common.get_config(), arg)
    config.generator.name = "pgan_celebahq256"
    # The first layer, whatever the checkpoint's form calls it: `format` or `layer0`.
    config.layer = "1"
    config.generator.batch = 16
    return config
