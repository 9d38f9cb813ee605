r"""Pose of dogs in BigGAN-deep, learnt on one class and applied to others (the paper's Figure 6).

    python -m cgjax.main --config=configs/biggan_dog_pose.py
    python -m cgjax.main --config=configs/biggan_dog_pose.py --config.generator.condition=beagle \
        --config.transfer.conditions=red_fox,kit_fox

The paper's figure shows other breeds, a rabbit and a seal below the dogs on which the clusters were
learnt; the ImageNet class closest to a seal is the sea lion. The class is fixed for the clustering,
because a conditional generator's features depend on it. The published weights are downloaded by
name. The paper does not state the truncation; 0.4 is that of the reference's own example.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.variant(common.get_config(), arg)
    config.generator.name = "biggan_deep_256"
    config.generator.condition = "golden retriever"
    config.generator.truncation = 0.4
    config.generator.batch = 8
    config.transfer.conditions = (
        "Labrador retriever",
        "beagle",
        "Persian cat",
        "wood rabbit",
        "sea lion",
    )
    # The output of the third block, 8x8.
    config.layer = "layers_02"
    return config
