"""One step of the distilled flow has the distribution of the flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.runtime.mesh import data_mesh
from cgjax.samplers import flow
from cgjax.samplers.flow import descend
from cgjax.samplers.flow_one_step import OneStepFlow, OneStepState
from cgjax.samplers.training import over_mesh
from tests.samplers.halves import half_spaces

D = 8


def train(sampler: OneStepFlow, num_devices: int = 1) -> OneStepState:
    members = half_spaces(8000, D, is_ordered=True)
    state = sampler.init(jax.random.key(0), members)
    epoch = over_mesh(data_mesh(num_devices), sampler)
    for number in range(sampler.num_epochs):
        key = jax.random.fold_in(jax.random.key(1), number)
        state, _ = epoch(state, members, key, number)
    return state


@pytest.fixture(scope="module")
def trained() -> tuple[OneStepFlow, OneStepState]:
    sampler = OneStepFlow(D, hidden_dim=64, num_epochs=100, batch=256)
    return sampler, train(sampler)


def test_one_step_has_the_distribution_of_the_cluster(trained):
    sampler, state = trained
    for cluster, side in ((0, 1), (1, -1)):
        x = np.asarray(sampler.sample(state, jax.random.key(2), cluster, 4000))
        assert np.mean(side * x[:, 0] > 0) > 0.95
        # The tolerances of the flow's own test.
        assert abs(side * x[:, 0].mean() - 0.798) < 0.08
        assert abs(x[:, 0].std() - 0.603) < 0.08
        np.testing.assert_allclose(x[:, 1:].std(axis=0), 1.0, atol=0.08)


def test_the_margin_controls_the_strength_here_too(trained):
    sampler, state = trained
    x = sampler.sample(state, jax.random.key(3), 0, 4000, margin=0.5)[:, 0]
    assert abs(float(x.mean()) - 1.27) < 0.12  # the mean of |x| above the half normal's median


def test_distilling_leaves_the_flow_unchanged():
    sampler = OneStepFlow(D, hidden_dim=16, num_epochs=2, distilled=0.5, batch=256)
    assert sampler.flow_epochs == 1
    members = half_spaces(1000, D, is_ordered=True)
    state, _ = sampler.epoch(
        sampler.init(jax.random.key(0), members), members, jax.random.key(1), 0
    )
    flow, student = jax.tree.map(np.asarray, state)
    after = jax.tree.map(np.asarray, sampler.epoch(state, members, jax.random.key(2), 1)[0])
    jax.tree.map(np.testing.assert_array_equal, flow, after.flow)
    assert not np.array_equal(student.params["inner"], after.student.params["inner"])


@pytest.mark.parametrize("distilled", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_epochs", [2, 3, 50])
def test_both_the_flow_and_the_student_get_an_epoch(num_epochs, distilled):
    sampler = OneStepFlow(D, num_epochs=num_epochs, distilled=distilled)
    assert 1 <= sampler.flow_epochs < num_epochs


def test_training_without_an_epoch_for_the_student_is_refused():
    with pytest.raises(UserError, match="num_epochs=1: expected at least 2"):
        OneStepFlow(D, num_epochs=1)


def test_three_devices_train_the_same_as_one():
    sampler = OneStepFlow(D, hidden_dim=16, num_epochs=2, distilled=0.5, batch=250)
    one, three = train(sampler), train(sampler, 3)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
        # Sums in another order; Adam's first steps divide by their own size.
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_the_student_learns_from_the_flows_average():
    sampler = OneStepFlow(D, hidden_dim=8, num_epochs=2, distilled=0.5, batch=50, num_steps=1)
    members = half_spaces(100, D, is_ordered=True)
    start = sampler.init(jax.random.key(0), members)

    def learnt(**changed):
        flow = start.flow._replace(**changed)
        state = jax.tree.map(jnp.copy, start._replace(flow=flow))
        state, metrics = sampler.epoch(state, members, jax.random.key(1), 1)
        return np.asarray(metrics["loss"])

    other = jax.tree.map(lambda leaf: leaf + 0.5, start.flow.params)
    np.testing.assert_array_equal(learnt(), learnt(params=other))
    # An untrained flow leaves codes unchanged, like the untrained student; the other flow moves
    # every coordinate.
    np.testing.assert_allclose(learnt(), 0, atol=1e-9)
    assert (learnt(average=other) > 0.1).all()


def test_the_student_s_learning_rate_falls_over_its_own_epochs(monkeypatch):
    sampler = OneStepFlow(D, hidden_dim=8, num_epochs=10, distilled=0.3, batch=50)
    members, totals = half_spaces(100, D, is_ordered=True), []

    def recorded(state, gradient, done, total, sampler):
        totals.append(total)
        return descend(state, gradient, done, total, sampler)

    monkeypatch.setattr(flow, "descend", recorded)
    state = sampler.init(jax.random.key(0), members)
    function, scalar, static = sampler.data_parallel_epoch(members, 8)
    assert float(scalar) == 1  # the second of the last three epochs
    jax.eval_shape(
        lambda state, key: function(state, members, key, scalar, **static), state, jax.random.key(1)
    )
    assert totals == [3 * static["num_steps"]]
