"""Defaults of every experiment. A leaf that may be unset is a placeholder, shown as null.

Any leaf can be given on the command line: --config.cluster.num_clusters=4
"""

from __future__ import annotations

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict()

    # Root of every random number; stages, clusters and epochs are folded in by name.
    config.seed = 0
    # The representation point to cluster: a name from gen.layers, or its number counted from 1.
    config.layer = "layer2"

    config.generator = config_dict.ConfigDict()
    # "dcgan_faces" (embedded), a published name, a folder of converted weights, or
    # "package.module:function" for your own.
    config.generator.name = "dcgan_faces"
    # Folder of converted weights to use instead of the name's.
    config.generator.weights = config_dict.placeholder(str)
    # What else the family's forward pass depends on (docs/methods.md): class of a conditional
    # generator; StyleGAN's psi, on how many layers it acts; "stored" or "zeros".
    config.generator.condition = config_dict.placeholder(str)
    config.generator.truncation = config_dict.placeholder(float)
    config.generator.truncation_layers = config_dict.placeholder(int)
    config.generator.noise = config_dict.placeholder(str)
    # Latents per forward pass.
    config.generator.batch = 128

    config.latents = config_dict.ConfigDict()
    # Latents drawn once, clustered, and learnt from.
    config.latents.num = 10_000

    config.cluster = config_dict.ConfigDict()
    config.cluster.num_clusters = 2
    # Restarts of k-means, of which the best is kept.
    config.cluster.num_init = 10
    config.cluster.max_iter = 100
    # Stop when no centroid moved by more than this, squared, relative to the mean variance.
    config.cluster.tol = 1e-4
    # "k-means++" or "random".
    config.cluster.init = "k-means++"
    # "jax", or "faiss" with the extra of that name.
    config.cluster.backend = "jax"

    # Every sampler named here with fit=True is trained, sampled and evaluated.
    config.samplers = config_dict.ConfigDict()
    # The exact reference: prior draws that the clustering assigns to the cluster.
    config.samplers.rejection = config_dict.ConfigDict({"fit": True})

    # Latent flow matching: the whole cluster, few-step sampling (docs/methods.md).
    flow = config.samplers.flow = config_dict.ConfigDict()
    flow.fit = True
    flow.num_epochs = 40
    # Prior latents whose members are learnt from; those beyond latents.num are drawn and assigned.
    flow.num_latents = 20_000
    # Rows a step, all clusters together.
    flow.batch = 512
    # Width of the two hidden layers; unset takes 256, or 512 from 256 latent dimensions on.
    flow.hidden_dim = config_dict.placeholder(int)
    # Falls to zero along a half cosine.
    flow.learning_rate = 5e-3
    # Decay per step of the moving average of the parameters, with which samples are drawn.
    flow.average = 0.995
    # Midpoint steps of sampling, two calls of a small network each.
    flow.num_steps = 2
    # Factor on the velocity: 1 is the cluster as it is, more overstates it.
    flow.guidance = 1.0
    # As imle.output below.
    flow.output = "raw"

    # The published sampler, with the paper's settings where it states them and GLANN's elsewhere.
    imle = config.samplers.imle = config_dict.ConfigDict()
    imle.fit = True
    imle.num_epochs = 400
    imle.batch = 128
    # Width of the code and of the hidden layers; unset takes min(latent_dim, 64) and 128 (512 from
    # 512 latent dimensions on).
    imle.code_dim = config_dict.placeholder(int)
    imle.hidden_dim = config_dict.placeholder(int)
    # Codes drawn per epoch, in multiples of the members.
    imle.pool_factor = 2
    imle.learning_rate = 1e-3
    imle.beta1 = 0.5
    imle.beta2 = 0.999
    imle.weight_decay = 1e-5
    # The learning rate is halved this often; 0 keeps it.
    imle.decay_epochs = 50
    # Whether Adam's moments restart at every re-match.
    imle.reset_optimizer = True
    # "raw", or "sphere" to scale every latent to the prior's typical norm; unset takes sphere
    # unless the generator normalises its latent anyway.
    imle.output = config_dict.placeholder(str)

    config.sample = config_dict.ConfigDict()
    # Images saved per sampler and cluster.
    config.sample.num = 64
    # The sampler of --mode=sample and of clusters.png when none is named.
    config.sample.sampler = "imle"
    # Proposals checked before a draw gives up.
    config.sample.max_draws = 1_000_000

    config.evaluate = config_dict.ConfigDict()
    # Samples per sampler and cluster, and held-out members per half.
    config.evaluate.num = 1000
    # Principal components of the prior's images in which the Frechet distance is measured.
    config.evaluate.components = 48
    # Images of the prior that those components are fitted to.
    config.evaluate.prior_images = 2000

    # Epochs between two checkpoints.
    config.checkpoint_epochs = 50
    return config


def quick(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Shrink an experiment to under a minute on two cores; its numbers mean nothing."""
    config.latents.num = 512
    config.cluster.num_init = 2
    config.samplers.imle.num_epochs = 4
    config.samplers.flow.num_epochs = 4
    config.samplers.flow.num_latents = 1024
    config.sample.num = 4
    config.evaluate.num = 64
    config.evaluate.prior_images = 256
    config.checkpoint_epochs = 2
    return config


def variant(config: config_dict.ConfigDict, arg: str) -> config_dict.ConfigDict:
    """Apply what stands behind the colon of --config=FILE:ARG: nothing, or quick."""
    if arg not in ("", "quick"):
        raise ValueError(f"config variant {arg!r} is not known; expected none or :quick")
    return quick(config) if arg == "quick" else config
