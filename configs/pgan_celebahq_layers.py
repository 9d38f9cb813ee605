"""One clustering per layer of PGAN on CelebA-HQ (the paper's Figure 2).

    python -m cgjax.main --config=configs/pgan_celebahq_layers.py:s1_c1
    for layer in format s0_c0 s1_c0 s1_c1 s2_c0 s2_c1 s3_c0 s3_c1; do
      python -m cgjax.main --config=configs/pgan_celebahq_layers.py:$layer --workdir=runs/$layer
    done

Figure 2 shows two clusters per layer: early layers separate pose and gender, later ones hair and
background. After the colon, give a layer's name, `quick`, or `quick-LAYER`. The published weights
are downloaded by name.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    first, _, remainder = arg.partition("-")
    is_quick = first == "quick"
    layer = remainder if is_quick else arg
    config = common.variant(common.get_config(), "quick" if is_quick else "")
    config.generator.name = "pgan_celebahq256"
    config.layer = layer or "1"
    config.generator.batch = 16
    return config
