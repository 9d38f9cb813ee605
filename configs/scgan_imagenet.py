r"""Self-Conditioned GAN and its rivals on ImageNet or Places [Liu et al. 2020, Table 3].

    python -m cgjax.main --config=configs/scgan_imagenet.py --config.data.path=FOLDER

FOLDER holds the images, in subfolders of any depth. These are the paper's settings [Liu et al.
2020]: 200,000 iterations of 128 images, days on several GPUs. An image takes 49 kB; if all of them
exceed --config.data.memory_mb, they are read from their files during training: pip install
'.[stream]'. The scores are not the paper's, which compares 50,000 samples with the whole training
set: this config compares 10,000 samples with 10,000 images, which fit in memory, and a Frechet
distance falls with their number. For the paper's baselines without clusters also set
--config.train.penalty=10.
"""

from ml_collections import config_dict

from configs import scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.images(scgan_common.get_config())
    config.data.name = "folder"
    config.data.num = 1_200_000
    config.data.size = 128
    config.data.flip = True
    config.network.name = "residual"
    config.network.latent_dim = 256
    config.train.iterations = 200_000
    config.train.batch = 128
    config.train.penalty = 0.1
    config.train.average = 0.999
    config.labels.every = 75_000
    config.labels.num = 50_000
    config.score.num = 10_000
    config.score.every = 25_000
    return scgan_common.image_variant(config, arg)
