r"""Eyes in paintings, learnt in one colour and applied to seven others (the paper's Figure 6).

    python -m cgjax.main --config=configs/dcgan_eyes.py

A class-conditional DCGAN of 128x128 pixels from the wheel omniart-eye-generator 0.1 (MIT). It is
fetched by name, with `pip download --no-deps omniart-eye-generator==0.1`, and converted, but not
installed. On a machine without a network, do the same by hand:

    pip download --no-deps omniart-eye-generator==0.1
    python -m converters dcgan --src=omniart_eye_generator-0.1-py3-none-any.whl \
        --dst=weights/dcgan_eyes --set num_classes=8 \
        --set class_names=amber,blue,brown,gray,grayscale,green,hazel,red --verify=torch
    python -m cgjax.main --config=configs/dcgan_eyes.py \
        --config.generator.weights=weights/dcgan_eyes

The colour is fixed for the clustering, because a conditional generator's features depend on it.
`figures/transfer.png` and the agreement in `summary.json` show how well the clusters of brown eyes
transfer to the other colours: 0.83 to 0.87 with the flow, 0.84 to 0.93 with exact draws, where
chance is 0.35, in 168 s on two cores (docs/experiments.md). The clusters separate how sharp the
paint is.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.get_config()
    config.generator.name = "dcgan_eyes"
    config.generator.condition = "brown"
    config.transfer.conditions = ("amber", "blue", "gray", "grayscale", "green", "hazel", "red")
    # 4x4. From layer2 on, one cluster holds nine latents in ten and the others are rare textures.
    config.layer = "layer1"
    config.cluster.num_clusters = 3
    config.latents.num = 4_000
    config.evaluate.num = 300
    config.evaluate.prior_images = 1_000
    config.sample.sampler = "flow"
    config.samplers.flow.num_latents = 20_000
    config.samplers.imle.fit = False
    return common.variant(config, arg)
