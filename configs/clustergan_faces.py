r"""ClusterGAN on faces: images of the embedded generator.

    python -m cgjax.main --config=configs/clustergan_faces.py
    python -m cgjax.main --config=configs/clustergan_faces.py --config.labels.num_clusters=4

For the rows of ClusterGAN in Tables 1 and 2 of [Georgopoulos et al. 2022], whose networks and
length of training are not published. The losses are those of [Mukherjee et al. 2019]. Latents have
the standard deviation of its PyTorch port, 0.75: with the 0.1 used for digits, each label soon
makes only one image. To take half an hour on two cores, three discriminator steps on 32 images
precede each generator step, not five on 64, at five times the learning rate. On a GPU set
--config.train.batch=64 --config.train.learning_rate=1e-4 --config.clustergan.critic_steps=5
--config.network.width=64 --config.train.iterations=100000.
"""

from ml_collections import config_dict

from configs import scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.images(scgan_common.get_config())
    config.data.name = "generated"
    config.data.path = "dcgan_faces"
    config.data.num = 20_000
    config.network.name = "encoding_dcgan"
    config.network.width = 32
    config.train.method = "clustergan"
    config.train.learning_rate = 5e-4
    config.train.beta1 = 0.5
    config.train.beta2 = 0.9
    config.train.iterations = 1_000
    config.train.batch = 32
    config.train.checkpoint_every = 500
    config.labels.num_clusters = 2
    config.labels.num = 10_000
    config.clustergan.critic_steps = 3
    config.clustergan.sigma = 0.75
    config.score.num = 2_000
    config.score.every = 500
    return scgan_common.image_variant(config, arg)
