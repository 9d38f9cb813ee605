r"""Self-Conditioned GAN on unlabelled faces: images of the embedded generator.

    python -m cgjax.main --config=configs/scgan_faces.py
    python -m cgjax.main --config=configs/scgan_faces.py --config.labels.num_clusters=4
    python -m cgjax.main --config=configs/scgan_faces.py --config.data.name=folder \
        --config.data.path=FOLDER

For the rows of Self-Conditioned GAN in Tables 1 and 2 of [Georgopoulos et al. 2022], which gives
neither its networks nor the length of its training. These settings take half an hour on two cores;
on a GPU set --config.network.width=64 --config.train.iterations=100000. Images are not mirrored, as
clusters may be about where a face looks. The trained generator is saved in WORKDIR/generator, for
--config.generator.weights and --config.compare.conditional.
docs/endtoend_images.md has the numbers.
"""

from ml_collections import config_dict

from configs import scgan_common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = scgan_common.images(scgan_common.get_config())
    config.data.name = "generated"
    config.data.path = "dcgan_faces"
    config.data.num = 20_000
    config.network.width = 32
    config.train.learning_rate = 2e-4
    config.train.beta1 = 0.5
    config.train.beta2 = 0.999
    config.train.iterations = 3_000
    config.train.checkpoint_every = 500
    config.labels.num_clusters = 2
    config.labels.every = 500
    config.labels.num = 10_000
    config.score.num = 2_000
    config.score.every = 500
    return scgan_common.image_variant(config, arg)
