"""Every sampler and the direction baselines on the embedded face generator, side by side.

    python -m cgjax.main --mode=compare --config=configs/compare_faces.py

The clusters are those of configs/dcgan_pose.py. The judge is the face mesh (extra `judges`): is a
face turned the cluster's way by at least 10 degrees?
"""

from ml_collections import config_dict

from configs import common

TRAINED = (
    "flow_one_step",
    "imle_residual",
    "imle_adaptive",
    "imle_rs",
    "gaussian",
    "mixture",
    "gan",
    "vae",
)


def get_config(arg: str = "") -> config_dict.ConfigDict:
    config = common.get_config()
    config.sample.sampler = "flow"
    config.compare.judge = "face_mesh"
    above = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8)
    below_0_8 = ((0.55, 0.8), (0.6, 0.8))
    below_0_95 = ((0.7, 0.9), (0.75, 0.9), (0.8, 0.9), (0.82, 0.92), (0.8, 0.95))
    config.compare.margins = above + below_0_8 + below_0_95
    config.compare.alphas = (1.0, 1.25, 1.3, 1.5, 1.6, 1.7, 1.75, 2.0, 3.0)
    for name in TRAINED:
        config.samplers[name].fit = True
    # A quarter of the default's 400: enough for an ablation.
    config.samplers.gan.num_epochs = 100
    config.samplers.vae.num_epochs = 100
    return common.variant(config, arg)
