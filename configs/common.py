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
    # Features of more than so many MB are not held in memory: they are kept in a temporary file in
    # the run's folder or computed again when they are read, whichever is measured faster. The
    # clusters are the same up to rounding.
    config.cluster.memory_mb = 4096
    # Find the clusters with the first so many latents only and assign the others; unset: with all.
    config.cluster.max_samples = config_dict.placeholder(int)

    # Every sampler named here with fit=True is trained, sampled and evaluated.
    config.samplers = config_dict.ConfigDict()
    # The exact reference: prior draws that the clustering assigns to the cluster.
    config.samplers.rejection = config_dict.ConfigDict({"fit": True})

    # Latent flow matching: the whole cluster, few-step sampling (docs/methods.md).
    flow = config.samplers.flow = config_dict.ConfigDict()
    flow.fit = True
    flow.num_epochs = 60
    # Prior latents whose members are learnt from; those beyond latents.num are drawn and assigned.
    flow.num_latents = 40_000
    # Rows a step, all clusters together.
    flow.batch = 512
    # Width of the two hidden layers; unset takes 256, or 512 from 256 latent dimensions on.
    flow.hidden_dim = config_dict.placeholder(int)
    # Falls to zero along a half cosine.
    flow.learning_rate = 5e-3
    # Decay per step of the moving average of the parameters, with which samples are drawn.
    flow.average = 0.999
    # Midpoint steps of sampling, two calls of a small network each.
    flow.num_steps = 2
    # Factor on the velocity: 1 is the cluster as it is, more overstates it.
    flow.guidance = 1.0
    # As imle.output below.
    flow.output = "raw"

    # The flow distilled into one call of the network; settings as above.
    one_step = config.samplers.flow_one_step = config_dict.ConfigDict(
        flow.copy_and_resolve_references()
    )
    one_step.fit = False
    one_step.num_epochs = 100
    # Midpoint steps in which the flow is followed to learn where it leads.
    one_step.num_steps = 4
    # Share of the epochs, the last ones, in which the one step is learnt.
    one_step.distilled = 0.4

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
    # What finds the nearest codes: "jax", or "faiss" with the extra of that name. Both are exact.
    imle.matcher = "jax"
    # "raw", or "sphere" to scale every latent to the prior's typical norm; unset takes sphere
    # unless the generator normalises its latent anyway.
    imle.output = config_dict.placeholder(str)

    # IMLE's modern forms. "nearest" matches as published, "adaptive" keeps a member's code until
    # it is learnt, "rejection" leaves out what already lies near a member.
    for name, matching in (
        ("imle_residual", "nearest"),
        ("imle_adaptive", "adaptive"),
        ("imle_rs", "rejection"),
    ):
        modern = config.samplers[name] = config_dict.ConfigDict()
        modern.fit = False
        modern.matching = matching
        # Whether samples get back the covariance that the fit left out.
        modern.residual = name == "imle_residual"
        modern.num_epochs = 150
        modern.batch = 128
        modern.code_dim = config_dict.placeholder(int)
        modern.hidden_dim = config_dict.placeholder(int)
        modern.pool_factor = 4
        modern.learning_rate = 1e-3
        # Epochs between two matches.
        modern.match_epochs = 5
        # adaptive: a member is matched again once its distance fell below its threshold, this
        # share of what it was at its match, or after so many epochs.
        modern.threshold = 0.96
        modern.force_epochs = 30
        # rejection: quantile of the members' distances to each other that counts as near.
        modern.quantile = 0.3
        modern.output = "raw"

    # The baselines: one Gaussian a cluster, and several; covariances shrunk.
    for name, components, epochs in (("gaussian", 1, 1), ("mixture", 8, 30)):
        gaussian = config.samplers[name] = config_dict.ConfigDict()
        gaussian.fit = False
        gaussian.num_components = components
        # Iterations; one is exact for one component.
        gaussian.num_epochs = epochs
        gaussian.num_latents = config_dict.placeholder(int)
        gaussian.output = "raw"

    # The supplementary's ablation: the same network trained as a GAN or as a VAE. Settings are
    # ours where the paper states none. Sizes and num_latents as above.
    gan = config.samplers.gan = config_dict.ConfigDict()
    gan.fit = False
    gan.num_epochs = 400
    gan.num_latents = config_dict.placeholder(int)
    gan.batch = 128
    gan.code_dim = config_dict.placeholder(int)
    gan.hidden_dim = config_dict.placeholder(int)
    gan.critic_dim = 256
    gan.learning_rate = 2e-4
    gan.beta1 = 0.5
    gan.beta2 = 0.999
    # Weight of the R1 penalty.
    gan.penalty = 1.0
    gan.output = "raw"

    vae = config.samplers.vae = config_dict.ConfigDict()
    vae.fit = False
    vae.num_epochs = 400
    vae.num_latents = config_dict.placeholder(int)
    vae.batch = 128
    vae.code_dim = config_dict.placeholder(int)
    vae.hidden_dim = config_dict.placeholder(int)
    vae.encoder_dim = 256
    vae.learning_rate = 1e-3
    # Weight of the divergence, and the epochs over which it rises from 0.
    vae.beta = 1.0
    vae.warmup_epochs = 20
    # Whether samples get the output noise that the model says is there.
    vae.output_noise = False
    vae.output = "raw"

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
    # The feature in which distances are measured: "pca_pixels" (principal components of the prior's
    # images), "random_cnn", "layer:NAME" (components of a layer of the generator), or
    # "inception:FILE", the only one whose Frechet distance is an FID.
    config.evaluate.features = "pca_pixels"
    # How many principal components.
    config.evaluate.components = 48
    # Images of the prior that those components are fitted to.
    config.evaluate.prior_images = 2000

    # --mode=compare: samplers and baselines side by side.
    compare = config.compare = config_dict.ConfigDict()
    # Samples per method, setting and cluster, and held-out members per half.
    compare.num = 2000
    # "face_mesh", "age_gender", "heuristic_brightness", "heuristic_hair_tone" or
    # "package.module:function"; unset, nothing is judged and there are no direction baselines.
    compare.judge = config_dict.placeholder(str)
    # One of the judge's attributes; an image is right if it lies on the cluster's side of the
    # centre by the threshold (yaw in degrees: 0 and 10).
    compare.attribute = "yaw"
    compare.centre = 0.0
    compare.threshold = 10.0
    # At which judged accuracy the methods' distances are compared beneath the table.
    compare.accuracy = 0.97
    # Samplers that are also measured above these quantiles of the margin, or between two of them:
    # (0.0, 0.6, (0.55, 0.8)).
    compare.dialled = ("rejection", "flow")
    compare.margins = (0.0, 0.3, 0.6)
    # SeFa and GANSpace: directions tried, each way, at the middle alpha, on so many images of a
    # selection set; and the strengths at which the best is put in the table. 0 leaves them out.
    compare.directions = 10
    compare.selection = 200
    compare.alphas = (1.0, 1.5, 2.0, 3.0)
    compare.ganspace_latents = 10_000

    # Cross-class transfer of a conditional generator's clusters and samplers; needs the class they
    # are learnt on in generator.condition.
    transfer = config.transfer = config_dict.ConfigDict()
    # Ids or names of the classes to try them on: --config.transfer.conditions=beagle,wood_rabbit,
    # =207,331, or "=('sea lion', 331)" where a name has a space instead of an underscore.
    transfer.conditions = ()
    # Latents a sampler and cluster that are scored.
    transfer.num = 500
    # Latents a cluster in figures/transfer.png.
    transfer.columns = 4

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
    config.samplers.flow_one_step.num_epochs = 4
    config.samplers.flow_one_step.num_latents = 1024
    for name in ("imle_residual", "imle_adaptive", "imle_rs", "gan", "vae", "mixture"):
        config.samplers[name].num_epochs = 4
    config.sample.num = 4
    config.evaluate.num = 64
    config.compare.num = 64
    config.compare.selection = 16
    config.compare.directions = 2
    config.compare.alphas = (1.0, 2.0)
    config.compare.margins = (0.0, 0.5)
    config.compare.ganspace_latents = 256
    config.evaluate.prior_images = 256
    config.transfer.num = 32
    config.checkpoint_epochs = 2
    return config


def variant(config: config_dict.ConfigDict, arg: str) -> config_dict.ConfigDict:
    """Apply what stands behind the colon of --config=FILE:ARG: nothing, or quick."""
    if arg not in ("", "quick"):
        raise ValueError(f"config variant {arg!r} is not known; expected none or :quick")
    return quick(config) if arg == "quick" else config
