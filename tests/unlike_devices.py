"""Batches spread over devices of which one alone holds the data that need a second look.

A collective that only some devices reach waits for ever, so this is a program for a test to run
with a time limit: `python tests/unlike_devices.py {vma,no-vma}`. It prints what is wrong.
"""

import os
import sys

if __name__ == "__main__":  # before JAX is imported
    # The tests' own where they start it.
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import variant_reference
from bound import BOUND, TINY
from families import LARGEST
from jax import P
from jax.sharding import NamedSharding

import jbn

ROWS, FEATURES, ODD = 64, 4, 2  # rows on a device, and the device that is unlike the others
GROUPS = {
    "all": None,
    "pairs": [[0, 1], [2, 3]],
    "uneven": [[0, 2, 3], [1]],
    "alone": [[0], [1], [2], [3]],
}
CASES = [
    *((jbn.Standard(), groups) for groups in GROUPS),
    (jbn.Ghost(16), "pairs"),
    (jbn.Ghost(16), "alone"),
    (jbn.Renorm(1.5, 0.5), "uneven"),
    (jbn.Uncentered(), "pairs"),
]
TOGETHER = [(jbn.Standard(), "pairs"), (jbn.Uncentered(), "pairs")]


def parts(rng) -> dict[str, np.ndarray]:
    """Arrays of shape (device, row, feature), by what is odd about one device."""
    normal = rng.standard_normal((4, ROWS, FEATURES))
    odd = (np.arange(4) == ODD)[:, None, None]
    outlier = odd & (np.arange(ROWS) == 17)[:, None]
    found = {
        "none": normal,
        "its mean is 1e6": normal + 1e6 * odd,
        "its mean is -1e20": normal - 1e20 * odd,
        "its deviation is 1e13": normal * np.where(odd, 1e13, 1),
        "its deviation is 1e30": normal * np.where(odd, 1e30, 1),
        "an outlier of 1e5": np.where(outlier, 1e5, normal),
        "an outlier of 1e14": np.where(outlier, 1e14, normal),
        "an outlier of 3e19": np.where(outlier, 3e19, normal),
        "it is constant": np.where(odd, 12345.678, normal),
        "all but it have mean 1e6": normal + 1e6 * (1 - odd),
        "each has another mean": normal + 10.0 ** np.array([0, 2, 4, 6])[:, None, None],
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


def build(variant, groups, check_vma):
    """A function to y, new statistics and gradients of each device's part.

    Its x has an axis of models, over which `vmap` maps, and one of devices; so have its results.
    """

    def part(x, ct, affine, stats):
        def value(x, affine):
            return jbn.batch_norm(
                x, affine, stats, variant=variant, momentum=0.0,
                axis_name="data", axis_index_groups=groups,
            )  # fmt: skip

        # Of one's own, so that with and without check_vma the gradient is that of one's own part.
        affine = jax.lax.pcast(affine, "data", to="varying") if check_vma else affine
        y, pullback, new = jax.vjp(value, x[0], affine, has_aux=True)
        dx, (dscale, dbias) = pullback(ct[0])
        found = {"y": y, **new._asdict(), "dx": dx, "dscale": dscale, "dbias": dbias}
        return jax.tree.map(lambda leaf: leaf[None], found)

    mesh, rows, models = jax.make_mesh((4,), ("data",)), P("data"), P(None, "data")
    function = jax.jit(
        jax.shard_map(
            jax.vmap(part, in_axes=(0, None, None, None)),
            mesh=mesh,
            in_specs=(models, rows, P(), P()),
            out_specs=models,
            check_vma=check_vma,
        )
    )

    def run(x, ct, *vectors):
        split = (jax.device_put(a, NamedSharding(mesh, s)) for a, s in ((x, models), (ct, rows)))
        return jax.block_until_ready(function(*split, *vectors))

    return run


def wrong(variant, groups, found, x, ct, affine, stats) -> list[str]:
    """What is out of bounds, group by group."""
    over = []
    for group in groups or [[0, 1, 2, 3]]:
        ref = variant_reference.batch_norm(
            variant, np.concatenate(x[group]), affine, stats, np.concatenate(ct[group])
        )
        held = ref.var < LARGEST
        right = ref._asdict() | {
            "mean": np.where(held, ref.mean, stats.mean),
            "var": np.where(held, ref.var, stats.var),
        }
        for name, values in found.items():
            value = np.asarray(values)[group].astype(np.longdouble)
            if name in ("y", "dx"):
                value = np.concatenate(value)
            elif name in ("dscale", "dbias"):
                value = value.sum(0)
            error = np.abs(value - right[name]) - 4 * TINY
            worst = np.max(error / np.maximum(ref.bounds[name], TINY))
            if not worst <= BOUND[name]:
                over.append(f"{name} of {group} is off by {worst:.2g}")
    return over


def main(check_vma: bool) -> int:
    rng = np.random.default_rng(0)
    data = parts(rng)
    ct = rng.standard_normal((4, ROWS, FEATURES)).astype(np.float32)
    affine = jbn.Affine(*rng.normal(1, 1, (2, FEATURES)).astype(np.float32))
    stats = jbn.init(FEATURES)[1]
    failures = 0
    for variant, label in CASES:
        groups = GROUPS[label]
        function = build(variant, groups, check_vma)
        # By vmap, all models in one program: a device goes on for its own models alone.
        together = [list(data)] if (variant, label) in TOGETHER else []
        for names in [[name] for name in data] + together:
            where = f"{variant}, groups {label}, odd on a device: {', '.join(names)}"
            print(where, file=sys.stderr, flush=True)  # the last one is what hangs
            found = function(np.stack([data[name] for name in names]), ct, affine, stats)
            for model, name in enumerate(names):
                one = {quantity: value[model] for quantity, value in found.items()}
                over = wrong(variant, groups, one, data[name], ct, affine, stats)
                failures += bool(over)
                if over:
                    print(f"{where}; {name}: {', '.join(over)}", flush=True)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(check_vma=sys.argv[1] == "vma"))
