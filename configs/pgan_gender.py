"""Apparent gender, in the first layer of PGAN on CelebA-HQ (the paper's Figure 2, top row).

    python -m cgjax.main --config=configs/pgan_gender.py
    python -m cgjax.main --config=configs/pgan_gender.py --config.generator.weights=weights/FOLDER

The published weights are downloaded by name.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.variant(common.get_config(), arg)
    config.generator.name = "pgan_celebahq256"
    # The first layer, which is called `format` or `layer0`, depending on the checkpoint's source.
    config.layer = "1"
    config.generator.batch = 16
    return config
