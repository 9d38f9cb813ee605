"""One cluster: is a sampler of the whole prior as good as the prior?

    python -m cgjax.main --mode=compare --config=configs/domain_gap.py

The test of the domain gap in the supplementary material: the Frechet distance of each sampler's
images to a reference set, divided by that of the prior's images; the paper's 9.85 / 8.79 is printed
beside it. The reference here is another draw of the generator's own images, so 1 is perfect.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.get_config()
    config.cluster.num_clusters = 1
    config.cluster.num_init = 1
    config.sample.sampler = "flow"
    config.samplers.rejection.fit = False
    # Even a perfect flow has the mean of the n latents from which it learnt: for 10,000 images that
    # alone makes the ratio 1 + 5,000 / n.
    config.samplers.flow.num_latents = 200_000
    config.samplers.flow.num_epochs = 12
    config.samplers.gaussian.fit = True
    config.samplers.imle_residual.fit = True
    # The same number of images as in the paper.
    config.compare.num = 10_000
    config.compare.margins = (0.0,)
    config.compare.directions = 0
    return common.variant(config, arg)
