"""The defaults of every experiment. A leaf that may be unset is a placeholder, shown as null.

Any leaf can be set on the command line: --config.cluster.num_clusters=4. Types and ranges are in
`cgjax/config/leaves.py`. A sampler's leaf without a comment has the same meaning as in the samplers
above it.
"""

from __future__ import annotations

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict()

    # Root of all random numbers; stages, clusters and epochs derive theirs from it by name.
    config.seed = 0
    # The layer whose features are clustered: a name from gen.layers, or its number, from 1.
    config.layer = "layer2"

    config.generator = config_dict.ConfigDict()
    # "dcgan_faces" (embedded), a published name, a folder of converted weights, or
    # "package.module:function" for your own.
    config.generator.name = "dcgan_faces"
    # Folder of converted weights to use in place of those of the name.
    config.generator.weights = config_dict.placeholder(str)
    # Class of a conditional generator, by name or id.
    config.generator.condition = config_dict.placeholder(str)
    # StyleGAN's psi, or the truncation of BigGAN's prior.
    config.generator.truncation = config_dict.placeholder(float)
    # The number of layers on which StyleGAN's truncation acts.
    config.generator.truncation_layers = config_dict.placeholder(int)
    # StyleGAN's noise: "stored" or "zeros".
    config.generator.noise = config_dict.placeholder(str)
    # Latents per forward pass; affects memory and time only.
    config.generator.batch = 128

    config.latents = config_dict.ConfigDict()
    # The number of latents that are drawn, clustered and learnt from.
    config.latents.num = 10_000

    config.cluster = config_dict.ConfigDict()
    # Number of clusters; "auto" chooses it, as `--mode=choose` does, and gives the reasons in the
    # summary and on the page.
    config.cluster.num_clusters = config_dict.FieldReference(2, field_type=object)
    # The largest number of clusters that "auto" considers.
    config.cluster.max_clusters = 16
    # Restarts of k-means; the best is kept.
    config.cluster.num_init = 10
    # Maximum number of iterations per restart.
    config.cluster.max_iter = 100
    # Stop when no centroid has moved by more than this, squared, relative to the mean variance.
    config.cluster.tol = 1e-4
    # Starting centroids: "k-means++" or "random".
    config.cluster.init = "k-means++"
    # "jax", or "faiss" (needs the extra of that name).
    config.cluster.backend = "jax"
    # At most this many MB of features are held in memory. Larger features are kept in a temporary
    # file in the run's folder or recomputed at each read, whichever is measured to be faster; the
    # clusters are the same up to rounding.
    config.cluster.memory_mb = 4096
    # Find the clusters with only the first this many latents, and assign the rest; unset: with all
    # of them.
    config.cluster.max_samples = config_dict.placeholder(int)
    # The space in which features are clustered: "raw", unchanged; or, less sensitive to outliers
    # (docs/outliers.md), "standardised" gives every feature the same weight, "pooled" takes the
    # mean over positions, "spherical" the direction from the mean feature.
    config.cluster.space = "raw"
    # Trimmed k-means: share of the latents, those farthest from their centroid, that do not affect
    # the centroids. Starts from random centroids, with features in memory. 0: plain k-means.
    config.cluster.trimmed = 0.0

    config.samplers = config_dict.ConfigDict()
    # The exact reference: draws of the prior that the clustering assigns to the cluster.
    rejection = config.samplers.rejection = config_dict.ConfigDict()
    # Whether a sampler is trained, sampled and evaluated; every sampler has this leaf.
    rejection.fit = True

    # Latent flow matching, and its distillation into one call of the network (docs/methods.md).
    for name in ("flow", "flow_one_step"):
        is_one_step = name == "flow_one_step"
        flow = config.samplers[name] = config_dict.ConfigDict()
        flow.fit = not is_one_step
        # Passes over the cluster's members.
        flow.num_epochs = 100 if is_one_step else 60
        # Number of latents of the prior whose members are learnt from; beyond latents.num, more are
        # drawn and assigned. Unset: latents.num.
        flow.num_latents = 40_000
        # Members per training step, all clusters together.
        flow.batch = 512
        # Width of the two hidden layers; unset: 256, or 512 from 256 latent dimensions on.
        flow.hidden_dim = config_dict.placeholder(int)
        # Initial learning rate; it decays to zero along half a cosine.
        flow.learning_rate = 5e-3
        # Decay per step of the parameters' moving average, which draws the samples.
        flow.average = 0.999
        # Midpoint steps of sampling, each two calls of a small network; in flow_one_step the steps
        # that integrate the flow to make the targets of the distillation.
        flow.num_steps = 4 if is_one_step else 2
        # Factor on the velocity: 1 samples the cluster as it is, more exaggerates it.
        flow.guidance = 1.0
        # Length of the samples; see imle.output.
        flow.output = "raw"
    # Share of the epochs, at the end, in which the single step is learnt.
    config.samplers.flow_one_step.distilled = 0.4

    # The published sampler, with the paper's settings where stated and GLANN's elsewhere.
    imle = config.samplers.imle = config_dict.ConfigDict()
    imle.fit = True
    imle.num_epochs = 400
    # Members per training step and cluster.
    imle.batch = 128
    # Width of the code; unset: min(latent_dim, 64).
    imle.code_dim = config_dict.placeholder(int)
    # Width of the hidden layers; unset: 128, or 512 from 512 latent dimensions on.
    imle.hidden_dim = config_dict.placeholder(int)
    # Codes drawn per epoch, as a multiple of the members.
    imle.pool_factor = 2
    # Adam's learning rate.
    imle.learning_rate = 1e-3
    # Decay of Adam's first moment.
    imle.beta1 = 0.5
    # Decay of Adam's second moment.
    imle.beta2 = 0.999
    # Adam's weight decay.
    imle.weight_decay = 1e-5
    # The learning rate is halved each time this many epochs have passed; 0: never.
    imle.decay_epochs = 50
    # Whether Adam's moments are reset at every new matching.
    imle.reset_optimizer = True
    # The search for nearest codes: "jax" or "faiss" (extra of that name). Both are exact.
    imle.matcher = "jax"
    # "raw": latents are used as sampled; "sphere": scaled to the prior's typical norm. Unset:
    # sphere, unless the generator normalises its latents itself.
    imle.output = config_dict.placeholder(str)

    # Modern forms of IMLE.
    for name, matching in (
        ("imle_residual", "nearest"),
        ("imle_adaptive", "adaptive"),
        ("imle_rs", "rejection"),
    ):
        modern = config.samplers[name] = config_dict.ConfigDict()
        modern.fit = False
        # "nearest" matches as published, "adaptive" keeps a member's code until it is learnt,
        # "rejection" drops codes that are already close to a member.
        modern.matching = matching
        # Whether the covariance that the fit misses is added to samples.
        modern.residual = name == "imle_residual"
        modern.num_epochs = 150
        modern.batch = 128
        modern.code_dim = config_dict.placeholder(int)
        modern.hidden_dim = config_dict.placeholder(int)
        modern.pool_factor = 4
        modern.learning_rate = 1e-3
        # Epochs between two matchings.
        modern.match_epochs = 5
        # adaptive: a member is matched again once its distance is below this fraction of its
        # distance when it was matched.
        modern.threshold = 0.96
        # adaptive: a member is also matched again after this many epochs.
        modern.force_epochs = 30
        # rejection: quantile of the distances between members up to which a code is close.
        modern.quantile = 0.3
        modern.output = "raw"

    # Baselines: one Gaussian per cluster, and a mixture; covariances are shrunk.
    for name, components, epochs in (("gaussian", 1, 1), ("mixture", 8, 30)):
        gaussian = config.samplers[name] = config_dict.ConfigDict()
        gaussian.fit = False
        # Gaussians per cluster.
        gaussian.num_components = components
        # Iterations of EM; one is exact for one component.
        gaussian.num_epochs = epochs
        gaussian.num_latents = config_dict.placeholder(int)
        gaussian.output = "raw"

    # The ablation of the supplementary material: the same network trained as a GAN. Settings that
    # the paper does not state are ours.
    gan = config.samplers.gan = config_dict.ConfigDict()
    gan.fit = False
    gan.num_epochs = 400
    gan.num_latents = config_dict.placeholder(int)
    gan.batch = 128
    gan.code_dim = config_dict.placeholder(int)
    gan.hidden_dim = config_dict.placeholder(int)
    # Width of the critic's hidden layers.
    gan.critic_dim = 256
    gan.learning_rate = 2e-4
    gan.beta1 = 0.5
    gan.beta2 = 0.999
    # Weight of the R1 penalty.
    gan.penalty = 1.0
    gan.output = "raw"

    # The same network trained as a VAE.
    vae = config.samplers.vae = config_dict.ConfigDict()
    vae.fit = False
    vae.num_epochs = 400
    vae.num_latents = config_dict.placeholder(int)
    vae.batch = 128
    vae.code_dim = config_dict.placeholder(int)
    vae.hidden_dim = config_dict.placeholder(int)
    # Width of the encoder's hidden layers.
    vae.encoder_dim = 256
    vae.learning_rate = 1e-3
    # Weight of the KL divergence.
    vae.beta = 1.0
    # Epochs over which that weight rises from 0.
    vae.warmup_epochs = 20
    # Whether the output noise that the model assumes is added to samples.
    vae.output_noise = False
    vae.output = "raw"

    config.sample = config_dict.ConfigDict()
    # Images saved per sampler and cluster.
    config.sample.num = 64
    # The default sampler of --mode=sample, and that of clusters.png.
    config.sample.sampler = "imle"
    # Maximum number of proposals that are checked before a draw gives up.
    config.sample.max_draws = 1_000_000

    config.evaluate = config_dict.ConfigDict()
    # Samples per sampler and cluster, and held-out members per half.
    config.evaluate.num = 1000
    # The feature in which distances are measured: "pca_pixels" (principal components of the prior's
    # images), "random_cnn", "layer:NAME" (components of a layer of the generator),
    # "inception:FILE", the only one whose Frechet distance is an FID, or
    # "package.module:function" for your own (docs/choosing.md).
    config.evaluate.features = "pca_pixels"
    # Number of principal components.
    config.evaluate.components = 48
    # Images of the prior to which those components are fitted.
    config.evaluate.prior_images = 2000

    # --mode=compare: samplers and baselines side by side.
    compare = config.compare = config_dict.ConfigDict()
    # Samples per method, setting and cluster, and held-out members per half.
    compare.num = 2000
    # "face_mesh", "age_gender", "heuristic_brightness", "heuristic_hair_tone" or
    # "package.module:function". Unset: nothing is judged and there are no direction baselines.
    compare.judge = config_dict.placeholder(str)
    # One of the judge's attributes.
    compare.attribute = "yaw"
    # The attribute's neutral value (for yaw in degrees).
    compare.centre = 0.0
    # An image is right if it is on the cluster's side of the centre by at least this much.
    compare.threshold = 10.0
    # The judged accuracy at which the lines below the table compare the methods' distances.
    compare.accuracy = 0.97
    # Samplers that are also measured at the margins below: --config.compare.dialled=flow,imle.
    compare.dialled = ("rejection", "flow")
    # Quantiles of the margin above which to sample, or pairs of quantiles between which to sample:
    # (0.0, 0.6, (0.55, 0.8)). Without any, whole clusters.
    compare.margins = (0.0, 0.3, 0.6)
    # SeFa and GANSpace: number of directions that are tried, in both senses, at the middle alpha; 0
    # omits these baselines.
    compare.directions = 10
    # Images of the selection set on which the best direction is chosen.
    compare.selection = 200
    # Strengths of the best direction that are listed in the table.
    compare.alphas = (1.0, 1.5, 2.0, 3.0)
    # Latents to which GANSpace's components are fitted.
    compare.ganspace_latents = 10_000
    # Class-conditional generators to compare with, each class as a cluster: folders of converted
    # weights, such as RUN/generator of a run that trained Self-Conditioned GAN. Needs a judge.
    compare.conditional = ()

    # Transfer of a conditional generator's clusters and samplers to other classes; the class on
    # which they are learnt is generator.condition.
    transfer = config.transfer = config_dict.ConfigDict()
    # Names or ids of the classes to transfer to: --config.transfer.conditions=beagle,wood_rabbit,
    # =207,331, or "=('sea lion', 331)" for a name with a space instead of an underscore.
    transfer.conditions = ()
    # Latents scored per sampler and cluster.
    transfer.num = 500
    # Latents per cluster in figures/transfer.png.
    transfer.columns = 4

    # Clusters that are themselves clustered, by the features of any layer.
    hierarchy = config.hierarchy = config_dict.ConfigDict()
    # For example --config.hierarchy.splits=0/layer4-k2,0/1/layer3-k2: cluster 0 in two by layer4,
    # and the second of these in two by layer3. --cluster=0/1 draws from the second.
    hierarchy.splits = ()
    # Number of the cluster's latents to cluster; those that the run lacks are drawn by rejection.
    # Unset: the number of latents of the run.
    hierarchy.num = config_dict.placeholder(int)
    # The space of the features, as in cluster.space.
    hierarchy.space = "raw"
    # Samplers of the run that are also trained on each cluster inside a cluster separately:
    # --config.hierarchy.samplers=flow. Without them, the samplers of the whole clusters propose.
    hierarchy.samplers = ()

    # --mode=sweep: every layer is clustered into each of these numbers.
    sweep = config.sweep = config_dict.ConfigDict()
    # Layers, by name or number: --config.sweep.layers=layer1,layer4; empty: all of them.
    sweep.layers = ()
    # Numbers of clusters.
    sweep.numbers = (2, 3, 4, 6, 8)
    # Judges whose attributes the clusters should explain; empty: image_statistics and the face
    # judges that are installed.
    sweep.judges = ()
    # Number of images that they judge.
    sweep.judged = 2000
    # Images per cluster in a layer's figure.
    sweep.columns = 8

    # --mode=assign: the user's images are inverted and assigned to the clusters.
    config.assign = assigning()

    # Epochs between two checkpoints.
    config.checkpoint_epochs = 50
    return config


def assigning() -> config_dict.ConfigDict:
    """Return the settings of --mode=assign, which inverts and assigns the user's images."""
    assign = config_dict.ConfigDict()
    # Generated images on which the encoder is trained, each used once.
    assign.samples = 40_000
    # Images per training step.
    assign.batch = 64
    # Channels of the encoder's first convolution.
    assign.width = 32
    # Its peak learning rate.
    assign.learning_rate = 2e-3
    # Steps that optimise the latents of an image, starting from the encoder's output.
    assign.steps = 100
    # Size of the first step, in units of the latent; it decays to zero along half a cosine.
    assign.step_size = 0.1
    # Weight of the difference in the encoder's features, relative to that in the pixels.
    assign.feature_weight = 0.05
    # Additional starts from the prior for an image whose reconstruction is poor.
    assign.restarts = 2
    # Generated images with which errors and margins are calibrated.
    assign.held_out = 256
    # An image whose error exceeds this quantile of theirs is reported as outside the generator's
    # range.
    assign.quantile = 0.99
    # A file of LPIPS's weights, to measure reconstructions by it too (docs/assign.md); or empty.
    assign.lpips = ""
    return assign


def quick(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Shrink an experiment to under a minute on two cores; its results mean nothing."""
    config.latents.num = 512
    config.sweep.judged = 256
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
    quick_assigning(config.assign)
    config.checkpoint_epochs = 2
    return config


def quick_assigning(assign: config_dict.ConfigDict) -> None:
    """Shrink the settings of --mode=assign likewise."""
    assign.samples = 2048
    assign.steps = 20
    assign.held_out = 32


def variant(config: config_dict.ConfigDict, arg: str) -> config_dict.ConfigDict:
    """Apply the variant in --config=FILE:VARIANT: nothing or quick."""
    refuse_unknown(arg, "quick")
    return quick(config) if arg == "quick" else config


def refuse_unknown(arg: str, *known: str) -> None:
    """Raise ValueError for an unknown variant, naming the known ones."""
    if arg and arg not in known:
        named = " or ".join(["none", *(f":{name}" for name in known)])
        raise ValueError(f"config variant {arg!r} is not known; expected {named}")


def pgan_lsun(category: str, arg: str) -> config_dict.ConfigDict:
    """Return the config of genforce's PGAN on a category of LSUN."""
    config = variant(get_config(), arg)
    config.generator.name = f"pgan_{category}256"
    # The second convolution at 4x4 after pixel norm: the input of the next layer.
    config.layer = "layer1_pn"
    config.cluster.num_clusters = 4
    config.generator.batch = 16
    return config
