"""The programs that the fuzzer runs: a function, a type, a mask, a variant, a transformation."""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import fuzz_data
import jax
import jax.numpy as jnp
import numpy as np
from bound import BOUND
from fuzz_data import Arguments, Datum, Expected
from jax import P, lax
from jax.sharding import NamedSharding
from matrix_programs import LAYERS

import jbn

KEY = jax.random.key(11)
VARIANTS = {
    "Standard": jbn.Standard(),
    "Renorm": jbn.Renorm(1.5, 0.5),
    "Running": jbn.Running(),
    "Uncentered": jbn.Uncentered(),
    "Detached": jbn.Detached(),
    "Detached mean": jbn.Detached(var=False),
    "Noisy": jbn.Noisy(KEY),
    "Ghost": jbn.Ghost(8),
    "Ghost of Ghost": jbn.Ghost(8, jbn.Ghost(4)),
    "Ghost of Ghost of Renorm": jbn.Ghost(8, jbn.Ghost(4, jbn.Renorm(2.0, 1.0))),
    "Ghost of Uncentered": jbn.Ghost(8, jbn.Uncentered()),
    "Ghost of Running": jbn.Ghost(8, jbn.Running()),
    "Ghost of Noisy": jbn.Ghost(8, jbn.Noisy(KEY, base=jbn.Detached())),
    "Noisy of Ghost": jbn.Noisy(KEY, base=jbn.Ghost(8)),
    "Noisy of Renorm": jbn.Noisy(KEY, base=jbn.Renorm(1.5, 0.5)),
}
POLICIES = {
    "remat": None,
    "remat of everything": jax.checkpoint_policies.nothing_saveable,
    "remat of nothing": jax.checkpoint_policies.everything_saveable,
    "remat but for products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
CHOICES = {
    "function": ("batch_norm", "linen", "nnx", "batch_moments"),
    "shape": ((2, 3), (24, 3), (5, 7), (96, 4), (8, 6, 5, 4), (2048, 20)),
    "dtype": ("float32", "float32", "float32", "bfloat16", "float16", "float64"),
    "mask": ("none", "example", "element"),
    "variant": (*VARIANTS, "-"),
    "transformation": (
        "jit", "vmap", "vjp of vmap", "scan", "jvp", "donate", "compiled ahead", "while_loop",
        "switch", "devices by hand", "devices by types", *POLICIES,
    ),
}  # fmt: skip
DEVICES = 4


class Program(NamedTuple):
    function: str
    shape: tuple[int, ...]
    dtype: str
    mask: str
    variant: str
    transformation: str

    def __str__(self):
        return " ".join(str(value) for value in self).replace(", ", "x")


def is_sound(program: Program) -> bool:
    """Whether a program means something.

    Groups must divide the batch, and a device's part of it; a tangent goes through noise as no
    symmetric map; moments know no variant; layers are of the type of their parameters, so float64
    is the function's.
    """
    spread = program.transformation.startswith("devices")
    part = program.shape[0] / DEVICES if spread else program.shape[0]
    moments, layer = program.function == "batch_moments", program.function in ("linen", "nnx")
    noisy = "Noisy" in program.variant
    return not (
        ("Ghost" in program.variant and part % 8)
        or part % 1
        or (noisy and program.transformation in ("jvp", "devices by hand"))
        or moments != (program.variant == "-")
        or (moments and program.transformation == "jvp")
        or (layer and program.dtype == "float64")
    )


def programs(seed: int) -> Iterator[Program]:
    """Random programs for ever, of each kind all choices before one comes again."""
    rng = random.Random(seed)
    decks = {name: [] for name in CHOICES}
    while True:
        for name, deck in decks.items():
            if not deck:
                deck += rng.sample(CHOICES[name], len(CHOICES[name]))
        candidates = (Program(*map(rng.choice, CHOICES.values())) for _ in itertools.count())
        best = max(
            itertools.islice(filter(is_sound, candidates), 100),
            key=lambda program: sum(v in decks[n] for n, v in program._asdict().items()),
        )
        for name, value in best._asdict().items():
            if value in decks[name]:
                decks[name].remove(value)
        yield best


def forward(program: Program, axis_name: str | None = None) -> Callable:
    """From x, affine, stats and mask to y and statistics, or to a mean and a variance."""

    def moments(x, affine, stats, mask):
        found = jbn.batch_moments(x, mask=mask)
        found = jbn.sync_moments(found, axis_name) if axis_name else found
        return (found.mean, found.var), ()

    def layer(x, affine, stats, mask):
        options = {} if program.function == "batch_norm" else {"dtype": x.dtype}
        options |= {"variant": VARIANTS[program.variant], "momentum": 0.0, "mask": mask}
        function = LAYERS[program.function]
        return function(x, affine, stats, axis_name=axis_name, **options)

    return moments if program.function == "batch_moments" else layer


def differentiate(program: Program, function: Callable) -> Callable:
    """Values, new statistics and derivatives by name, from `Arguments`."""

    def run(given: Arguments):
        def value(x, affine):
            return function(x, affine, given.stats, given.mask)

        if program.transformation in POLICIES:
            value = jax.checkpoint(value, policy=POLICIES[program.transformation])
        if program.transformation == "jvp":
            (y, new), (dy, _) = jax.jvp(lambda x: value(x, given.affine), (given.x,), (given.ct,))
            return {"y": y, **new._asdict(), "dy": dy}
        y, pullback, new = jax.vjp(value, given.x, given.affine, has_aux=True)
        if program.function == "batch_moments":
            dx, _ = pullback(tuple(given.affine))
            return {"mean": y[0], "var": y[1], "dx": dx}
        dx, daffine = pullback(given.ct)
        found = {"y": y, **new._asdict(), "dx": dx}
        return found | {"dscale": daffine.scale, "dbias": daffine.bias}

    return run


def _loop(step):
    def run(given):
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(step, given))
        return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, step(given)), (0, zeros))[1]

    return run


def _branch(step):
    def run(given, index):
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(step, given))
        return lax.switch(index, [lambda given: nothing, step], given)

    return run


def _split(program: Program):
    """A mesh of four devices, and how `Arguments` and results lie on it."""
    rows = P("data")
    mask = None if program.mask == "none" else rows
    whole = (jbn.Affine(P(), P()), jbn.RunningStats(P(), P()))
    names = ("mean", "var", "dx") if program.function == "batch_moments" else (
        "y", "mean", "var", "dx", "dscale", "dbias"
    )  # fmt: skip
    out = {name: rows if name in ("y", "dx") else P() for name in names}
    return jax.make_mesh((DEVICES,), ("data",)), Arguments(rows, *whole, rows, mask), out


@cache
def runner(program: Program) -> Callable[[list[Arguments]], Any]:
    """What runs some models' arguments as the program says; results along a first axis."""
    step = differentiate(program, forward(program))

    def alone(function, prepare=lambda given: given):
        def run(models):
            found = [function(prepare(given)) for given in models]
            return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

        return run

    def together(function):
        compiled = jax.jit(function)
        return lambda models: compiled(jax.tree.map(lambda *leaves: np.stack(leaves), *models))

    match program.transformation:
        case "vmap":
            return together(jax.vmap(step))
        case "vjp of vmap":
            return together(differentiate(program, jax.vmap(forward(program))))
        case "scan":
            return together(lambda models: lax.map(step, models))
        case "while_loop":
            return alone(jax.jit(_loop(step)))
        case "switch":
            return alone(partial(jax.jit(_branch(step)), index=np.int32(1)))
        case "donate":
            copied = partial(jax.tree.map, partial(jnp.array, copy=True))
            donating = jax.jit(lambda x, rest: step(rest._replace(x=x)), donate_argnums=0)
            return alone(lambda given: donating(given.x, given._replace(x=None)), copied)
        case "compiled ahead":
            compiled = []

            def ahead(given):
                if not compiled:
                    shapes = jax.tree.map(jax.typeof, given)
                    compiled.append(jax.jit(step).lower(shapes).compile())
                return compiled[0](given)

            return alone(ahead)
        case "devices by hand" | "devices by types":
            mesh, specs, out = _split(program)
            split = partial(jax.tree.map, lambda a, s: jax.device_put(a, NamedSharding(mesh, s)))
            if program.transformation == "devices by types":
                function = jax.jit(step)
            else:
                by_hand = differentiate(program, forward(program, "data"))
                function = jax.jit(
                    jax.shard_map(by_hand, mesh=mesh, in_specs=(specs,), out_specs=out)
                )
            return alone(
                lambda given: jax.block_until_ready(function(given)),
                lambda given: split(given, specs),
            )
    return alone(jax.jit(step))


ORDINARY = Datum("normal", 0.5, 0.0, frozenset(), False, 0.0, True, "good", 0.7, seed=0)


def check(program: Program, datum: Datum) -> list[str]:
    """What is out of bounds in the results of a program, next to an ordinary batch."""
    x64 = jax.enable_x64(True) if program.dtype == "float64" else nullcontext()
    batched = program.transformation in ("vmap", "vjp of vmap", "scan")
    with x64:
        models, right = zip(*(prepare(program, d) for d in ([ORDINARY] * batched + [datum])))
        found = jax.block_until_ready(runner(program)(list(models)))
        found = {name: np.asarray(value).astype(np.longdouble) for name, value in found.items()}
    over = []
    for index, (given, expected) in enumerate(zip(models, right)):
        for name, value in found.items():
            worst = error(program, given, expected, name, value[index])
            if not worst <= (limit := bound(program, name)):
                over.append(f"{name} of batch {index} is off by {worst:.2g}, allowed is {limit:g}")
    return over


def prepare(program: Program, datum: Datum) -> tuple[Arguments, Expected]:
    """Arguments, NaN where their mask excludes, and what is right."""
    rows = program.shape[:1] if program.function in ("linen", "nnx") else program.shape[:-1]
    mask = {"none": None, "example": rows, "element": program.shape}[program.mask]
    if "Running" in program.variant and datum.statistics == "at the largest":
        datum = datum._replace(statistics="far")  # nothing is left of x beside such a mean
    given = fuzz_data.arguments(datum, program.shape, program.dtype, mask)
    if program.function == "batch_moments":
        right = fuzz_data.expected_moments(given)
    else:
        right = fuzz_data.expected(VARIANTS[program.variant], given)
    where = fuzz_data.widen(given.mask, program.shape)
    return given._replace(x=np.where(where, given.x, given.x.dtype.type(np.nan))), right


def bound(program: Program, name: str) -> float:
    """The bound of docs/math.md, in double precision as many of its units."""
    allowed = BOUND["dx" if name == "dy" else name]
    unit = float(jnp.finfo(program.dtype).eps)
    if program.dtype == "float64":
        return allowed * unit / float(np.finfo(np.float32).eps)
    return max(allowed, unit) if name in ("y", "dx", "dy") else allowed


def error(program: Program, given: Arguments, expected: Expected, name: str, value) -> float:
    """The largest error in units of the quantity's scale."""
    # Terms below the smallest normal number may be flushed to zero; float16 keeps them.
    tiny = float(jnp.finfo(np.float64 if program.dtype == "float64" else np.float32).tiny)
    if program.dtype == "float16" and name in ("y", "dx", "dy"):
        tiny = float(jnp.finfo(np.float16).smallest_subnormal)
    off = np.abs(value - expected.right[name])
    if name in expected.other:
        off = np.fmin(off, np.abs(value - expected.other[name]))
    off = np.maximum(np.where(np.isnan(off), np.inf, off) - 4 * tiny, 0)
    off = np.where(np.isnan(expected.right[name]), 0, off) / np.maximum(expected.units[name], tiny)
    if name in ("y", "dx", "dy"):
        off = off[fuzz_data.widen(given.mask, program.shape)]
    return float(np.max(off))
