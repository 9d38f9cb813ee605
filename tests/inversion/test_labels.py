"""A label in the latent is learnt, stays one-hot during the search, and is found again."""

import jax
import jax.numpy as jnp
import numpy as np

from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.families import build_network
from cgjax.generators.foreign import checked
from cgjax.generators.labelled import Labelled, num_labels_of
from cgjax.inversion.encoder import Encoder
from cgjax.inversion.inverter import Inverter
from cgjax.inversion.learning import EncoderTraining, learn
from cgjax.inversion.prior import prior_of
from cgjax.inversion.search import Search
from cgjax.stages.groups import Labels
from tests.generators.objects import Good

DIM, NUM = 4, 3


def conditional():
    architecture = {"latent_dim": DIM, "widths": [8], "num_classes": NUM}
    network = build_network("dcgan", architecture)
    network.first[...] = 10 * network.first[...]  # as after training, images are not all grey
    network.output[...] = 10 * network.output[...]
    return PretrainedGenerator(network)


def labelled():
    return ConditionedGenerator(Labelled(conditional(), NUM), "label", {}, 64)


def test_every_row_has_its_own_class():
    gen, generator = conditional(), labelled()
    z = np.asarray(generator.sample_latents(jax.random.key(1), 40))
    inner, label = z[:, :DIM], z[:, DIM:].argmax(axis=1)
    np.testing.assert_array_equal(z[:, DIM:], np.eye(NUM)[label])
    assert len(np.unique(label)) == NUM
    expected = gen.images(jnp.asarray(inner), condition=label.tolist())
    np.testing.assert_allclose(generator.images(z), expected, atol=1e-6)
    np.testing.assert_array_equal(generator.features(jnp.asarray(z)), z[:, DIM:])


def test_only_a_labelled_generator_s_latents_end_in_a_label():
    class Own(Good):
        num_labels = 3  # a name of its own, which says nothing of its latents

    assert num_labels_of(labelled().gen) == NUM
    assert num_labels_of(checked(Own())) == num_labels_of(conditional()) == 0


def test_the_prior_covers_the_latent_and_the_likeliest_label_stays():
    sample = np.asarray(labelled().sample_latents(jax.random.key(1), 100))
    prior = prior_of(jnp.asarray(sample), only_direction=False, num_labels=NUM)
    assert prior.low.shape == (DIM,)
    far = jnp.asarray([[50.0, 0, 0, 0, 0.2, 0.5, 0.3]])
    within, projected = np.asarray(prior.within(far)), np.asarray(prior.project(far))
    np.testing.assert_allclose(within[0, :DIM], projected[0, :DIM])
    assert within[0, 0] <= sample[:, 0].max()
    np.testing.assert_allclose(within[0, DIM:], [0.2, 0.5, 0.3])
    np.testing.assert_array_equal(projected[0, DIM:], [0, 1, 0])


def test_an_encoder_learns_labels_and_the_search_improves_the_latents_of_these():
    generator = labelled()
    sample = generator.sample_latents(jax.random.key(2), 256)
    prior = prior_of(sample, only_direction=False, num_labels=NUM)
    encoder = Encoder(DIM + NUM, generator.gen.image_size, 3, 8, num_labels=NUM)
    training = EncoderTraining(encoder, 150, 5e-3)
    state, losses = training.init(jax.random.key(3)), []
    for i in range(training.num_steps):
        z = generator.sample_latents(jax.random.key(100 + i), 64)
        state, loss = learn(
            state, z, jnp.asarray(generator.images(np.asarray(z))), training=training
        )
        losses.append(float(loss))
    # A guess without knowledge has a loss of 1 for the latents and log 3 for the labels.
    assert losses[0] > 1.5
    assert losses[-1] < 1.0
    inverter = Inverter(generator, Search(encoder, 60, 0.1, 0.0), state["params"], prior)
    assert inverter.function is not None
    truth = np.asarray(generator.sample_latents(jax.random.key(5), 64))
    found = inverter.invert(generator.images(truth))
    np.testing.assert_array_equal(np.sort(found.latents[:, DIM:], axis=1), [[0, 0, 1]] * 64)
    np.testing.assert_allclose(found.guesses[:, DIM:].sum(axis=1), 1, atol=1e-5)
    right = found.latents[:, DIM:].argmax(axis=1) == truth[:, DIM:].argmax(axis=1)
    assert right.mean() > 0.9
    known = np.abs(found.latents - truth)[right, :DIM].mean()
    guessed = np.abs(found.guesses - truth)[right, :DIM].mean()
    assert known < guessed / 2


def test_a_label_s_margin_is_the_encoder_s_probability_less_the_next():
    latents = np.array([[9, 1, 0, 0], [9, 0, 0, 1]], np.float32)
    guesses = np.array([[9, 0.7, 0.2, 0.1], [9, 0.6, 0.1, 0.3]], np.float32)
    labels, margins = Labels(3).of(latents, guesses)
    np.testing.assert_array_equal(labels, [0, 2])
    np.testing.assert_allclose(margins, [0.5, -0.3], atol=1e-6)


def test_without_labels_all_images_have_the_same_one():
    labels, margins = Labels(0).of(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(labels, [0, 0, 0])
    np.testing.assert_array_equal(margins, [1, 1, 1])
    assert Labels(0).names == [""]


def test_a_label_s_margin_is_its_probability_less_that_of_the_likeliest_other():
    latents = np.array([[9, 0, 1, 0], [9, 0, 1, 0], [9, 1, 0, 0]], np.float32)
    guesses = np.array([[9, 0.1, 0.7, 0.2], [9, 0.6, 0.3, 0.1], [9, 0.5, 0.5, 0]], np.float32)
    labels, margins = Labels(3).of(latents, guesses)
    assert labels.tolist() == [1, 1, 0]
    np.testing.assert_allclose(margins, [0.5, -0.3, 0.0], atol=1e-6)
    assert guesses[0, 2] == np.float32(0.7)  # the argument is not modified
