"""Head pose, in the second layer of the embedded face generator.

    python -m cgjax.main --config=configs/dcgan_pose.py

Two clusters of `layer2` (8x8x256): faces turned one way and the other.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.get_config()
    config.sample.sampler = "flow"
    return common.variant(config, arg)
