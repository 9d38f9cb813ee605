r"""Self-Conditioned GAN and its rivals on CIFAR-10 [Liu et al. 2020, Table 2].

    python -m cgjax.main --config=configs/scgan_cifar10.py --config.data.path=FOLDER

FOLDER holds CIFAR-10's binary version, data_batch_1.bin to data_batch_5.bin. These are the paper's
settings, 400 epochs [Liu et al. 2020], which take a GPU, except for the scores: the paper compares
50,000 samples with all 50,000 training images, this config 10,000 samples with 10,000 images, so
that other images remain to tell what a perfect sampler scores. A Frechet distance falls with the
number of images, so compare it with the perfect sampler's, not with the paper's.
"""

from ml_collections import config_dict

from configs import scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.images(scgan_common.get_config())
    config.data.name = "cifar10"
    config.data.num = 50_000
    config.data.flip = True
    config.network.name = "sngan"
    config.train.iterations = 312_400
    config.score.num = 10_000
    config.score.every = 10_000
    return scgan_common.image_variant(config, arg)
