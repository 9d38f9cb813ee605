r"""PGAN on LSUN chair: chairs by orientation and kind (the paper's Figure 5).

    python -m converters pgan --src=pggan_chair256.pth --dst=weights/pgan_chair256
    python -m cgjax.main --config=configs/pgan_lsun_chair.py \
      --config.generator.weights=weights/pgan_chair256

Download the file from genforce's model zoo by hand: its links carry no hash. The paper does not say
which layer or how many clusters it used; four clusters of `layer1_pn` are a starting point: vary
--config.layer and --config.cluster.num_clusters.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    return common.pgan_lsun("chair", arg)
