"""A generator of 16-pixel discs with a planted attribute, on which the tests run in seconds.

python -m cgjax.main --config=configs/tiny.py
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.quick(common.variant(common.get_config(), arg))
    config.generator.name = "cgjax.testing.planted:make_planted"
    config.layer = "layer1"
    config.samplers.imle.num_epochs = 40
    config.checkpoint_epochs = 10
    config.evaluate.components = 8
    if arg == "quick":
        config.samplers.imle.num_epochs = 6
        config.checkpoint_epochs = 2
        config.assign.samples = 512
        config.assign.held_out = 4
        config.assign.restarts = 0
    return config
