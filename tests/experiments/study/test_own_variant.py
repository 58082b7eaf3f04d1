"""A config that brings a variant of its own: trained and evaluated as that variant."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study.load import load_studies
from experiments.study.model import find_model
from experiments.study.train import make_run
from jbn import Ghost, Standard

CONFIG = '''
from dataclasses import dataclass

import jax.numpy as jnp

from experiments.study import MLP, Study
from jbn import Ghost


@dataclass(frozen=True)
class Largest:
    """Divides by nearly the largest deviation."""

    def __call__(self, batch, affine, stats, *, epsilon):
        moments = batch.measure().moments()
        deviations = batch.mean(jnp.abs(batch.centre(moments)) ** 8) ** (1 / 4)
        moments = moments._replace(var=deviations)
        return batch.normalize(moments, affine, epsilon), moments

    def population(self):
        return self


study = Study(
    name="own", claim="none", data="digits",
    norms={"own": Largest(), "groups": Ghost(8, Largest())},
    network=MLP((6,), "sigmoid"), init_std=0.3, optimizer="sgd", learning_rates=(0.1,),
    seeds=(0,), batch_size=16, steps=4, evaluate_every=2,
)
'''


def test_a_study_evaluates_a_variant_of_its_config_as_itself(tmp_path, digits):
    path = tmp_path / "own.py"
    path.write_text(CONFIG)
    study = load_studies(path)[""]
    own, groups = study.norms.values()
    assert groups == Ghost(8, own)

    def run(norm):
        return make_run(study, find_model(study, norm, (8, 8, 1), 10))

    start = run(own).init(digits, jnp.uint32(0), jnp.float32(0.1), {})
    loss = {
        name: jax.jit(run(norm).evaluate)(digits, start)["test_loss"]
        for name, norm in {"own": own, "groups": groups, "standard": Standard()}.items()
    }
    np.testing.assert_allclose(loss["groups"], loss["own"], rtol=1e-5)
    assert abs(loss["standard"] - loss["own"]) > 1e-4
