"""StyleGAN on FFHQ in several clusters: hats, baldness, pose, age (the paper's Figure 3).

    python -m cgjax.main --config=configs/stylegan_ffhq.py
    python -m cgjax.main --config=configs/stylegan_ffhq.py --config.layer=s2_a1

The paper uses pytorch_GAN_zoo's StyleGAN, whose weights are downloaded by name. The reference draws
new noise at every call; here it is zero, so that the cluster depends on the latent alone. The
truncation is the one stored in the file (0.5).
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.variant(common.get_config(), arg)
    config.generator.name = "stylegan_ffhq"
    # 8x8, after the second style.
    config.layer = "s1_a1"
    config.generator.noise = "zeros"
    config.generator.batch = 4
    config.cluster.num_clusters = 4
    return config
