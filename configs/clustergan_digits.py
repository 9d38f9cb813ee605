r"""ClusterGAN on 8 x 8 handwritten digits, with its clusters compared with k-means on the pixels.

    pip install '.[digits]'
    python -m cgjax.main --config=configs/clustergan_digits.py:cpu

These are the paper's settings for vectors [Mukherjee et al. 2019]; its 500,000 iterations take
hours on two cores. `:cpu` has five times the learning rate and stops after 40,000 iterations.
docs/endtoend_images.md has the numbers.
"""

from ml_collections import config_dict

from configs import common, scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.get_config()
    config.data.name = "digits8"
    config.data.num = 1797
    config.network.name = "encoding"
    config.network.latent_dim = 30
    config.network.width = 256
    config.train.method = "clustergan"
    config.train.iterations = 500_000
    config.train.batch = 64
    config.train.learning_rate = 1e-4
    config.train.beta1 = 0.5
    config.train.beta2 = 0.9
    config.labels.num_clusters = 10
    config.labels.num = 1797
    config.score.num = 2_000
    if arg == "cpu":
        config.train.learning_rate = 5e-4
        config.train.iterations = 40_000
    common.refuse_unknown(arg, "quick", "cpu")
    if arg == "quick":
        config = scgan_common.quick(config)
        config.data.num = 1797
    return config
