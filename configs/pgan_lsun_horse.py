r"""PGAN on LSUN horse: the whole horse or its head (the paper's supplementary Figure 2).

    python -m converters pgan --src=pggan_horse256.pth --dst=weights/pgan_horse256
    python -m cgjax.main --config=configs/pgan_lsun_horse.py \
      --config.generator.weights=weights/pgan_horse256

Download the file from genforce's model zoo by hand: its links carry no hash. The paper does not say
which layer or how many clusters it used; four clusters of `layer1_pn` are a starting point: vary
--config.layer and --config.cluster.num_clusters.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    return common.pgan_lsun("horse", arg)
