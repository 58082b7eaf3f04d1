"""Counts of compiled programs: small ones by hand, and XLA's own of others."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from experiments.bench import hlo

ROW = 4 * 128
ARRAY = 1000 * ROW
X = "f32[1000,128]{1,0}"
ROWS = "f32[1,128]{1,0}"


def program(*entry, **computations):
    """A program's text; the last line of each computation is its result."""
    text = ["HloModule example, is_scheduled=true", ""]
    for name, lines in {**computations, "ENTRY": entry}.items():
        head = "ENTRY %main" if name == "ENTRY" else f"%{name}"
        text += [f"{head} (x: f32[1000,128]) -> f32[1000,128] {{"]
        text += [f"  %{line}" for line in lines[:-1]] + [f"  ROOT %{lines[-1]}", "}", ""]
    return "\n".join(text)


def moved(text, way="ordinary"):
    return hlo.moved(hlo.kernels(text, way))


# Main memory


def test_a_kernel_reads_its_operands_once_and_writes_its_results():
    text = program(
        f"x = {X} parameter(0), sharding={{replicated}}",
        f"both = ({X}, /*index=1*/bf16[1000,128]{{1,0}}) fusion(%x, %x), kind=kLoop, calls=%f",
        f"got = {X} get-tuple-element(%both), index=0",
        f'y = {X} add(%x, %got), metadata={{op_name="jit(f)/add(x, calls=%f"}}',
        f=(f"p = {X} parameter(0)", f"q = {X} parameter(1)", f"r = ({X}, {X}) tuple(%p, %q)"),
    )
    ran = hlo.kernels(text)
    assert [kernel.operation for kernel in ran] == ["fusion", "add"]
    assert moved(text) == 2.5 * ARRAY + 3 * ARRAY
    assert hlo.launched(ran) == 2
    assert hlo.written(ran, "f32", 128_000) == 2
    assert hlo.written(ran, "bf16", 128_000) == 1
    assert hlo.written(ran, "f32", 128_001) == 0


def test_on_chip_arrays_are_free_and_what_is_fetched_counts_once():
    chip, ten = (f"f32[{rows},128]{{1,0:T(8,128)S(1)}}" for rows in (1000, 10))
    text = program(
        f"x = {X} parameter(0)",
        f"fetch = ({chip}, {X}, u32[]{{:S(2)}}) copy-start(%x)",
        f"there = {chip} copy-done(%fetch)",
        f"double = {chip} add(%there, %there)",
        f"part = (({X}), {ten}, s32[]{{:S(2)}}) slice-start(%x), slice={{[0:10], [0:128]}}",
        f"got = {ten} slice-done(%part)",
        f"y = {X} negate(%double)",
    )
    assert moved(text) == ARRAY + 10 * ROW + ARRAY
    assert hlo.launched(hlo.kernels(text)) == 2


def test_of_what_is_sliced_the_slice_is_read():
    text = program(
        f"x = {X} parameter(0)",
        f"row = {ROWS} slice(%x), slice={{[3:4], [0:128]}}",
        f"rows = {ROWS} fusion(%x, %row), kind=kLoop, calls=%slices",
        f"whole = {ROWS} fusion(%x, %row), kind=kLoop, calls=%sums",
        slices=(
            f"p = {X} parameter(0)",
            f"q = {ROWS} parameter(1)",
            "same = f32[1000,128]{1,0} bitcast(%p)",
            f"a = {ROWS} slice(%same), slice={{[3:4], [0:128]}}",
            f"b = {ROWS} slice(%p), slice={{[7:8], [0:128]}}",
            f"c = {ROWS} add(%a, %b)",
            f"d = {ROWS} add(%c, %q)",
        ),
        sums=(
            f"p = {X} parameter(0)",
            f"q = {ROWS} parameter(1)",
            f"a = {ROWS} slice(%p), slice={{[3:4], [0:128]}}",
            f"b = {ROWS} reduce(%p, %q), dimensions={{0}}, to_apply=%add",
            f"c = {ROWS} add(%a, %b)",
        ),
    )
    read = [kernel.read for kernel in hlo.kernels(text)]
    assert read == [ROW, 3 * ROW, ARRAY + ROW]


def test_of_what_is_updated_in_place_the_update_is_written():
    fused = (
        f"p = {X} parameter(0)",
        f"q = {ROWS} parameter(1)",
        "i = s32[] parameter(2)",
        f"double = {ROWS} add(%q, %q)",
        f"new = {X} dynamic-update-slice(%p, %double, %i, %i)",
    )
    text = program(
        f"x = {X} parameter(0)",
        f"row = {ROWS} parameter(1)",
        "i = s32[] parameter(2)",
        f"y = {X} dynamic-update-slice(%x, %row, %i, %i)",
        f"z = {X} fusion(%y, %row, %i), kind=kLoop, calls=%fused",
        fused=fused,
    )
    assert moved(text) == 2 * (ROW + ROW + 4)


# What depends on the data

BRANCHES = {
    "stays": (f"p = {X} parameter(0)", f"q = {X} negate(%p)"),
    "sweeps": (f"p = {X} parameter(0)", f"q = {X} negate(%p)", f"r = {X} negate(%q)"),
}


@pytest.mark.parametrize(
    "attributes",
    [
        "branch_computations={%sweeps, %stays}",
        "true_computation=%sweeps, false_computation=%stays",
    ],
)
def test_a_conditional_takes_its_cheapest_branch_or_the_dearest(attributes):
    text = program(
        f"x = {X} parameter(0)",
        "bad = pred[] parameter(1)",
        f"y = {X} conditional(%bad, %x, %x), {attributes}",
        **BRANCHES,
    )
    assert moved(text) == 2 * ARRAY
    assert moved(text, "other") == 4 * ARRAY
    assert hlo.launched(hlo.kernels(text, "other")) == 2


def loop(condition, attributes="", start="constant(2)"):
    """A loop whose body negates x."""
    carry = f"(s32[], {X})"
    return program(
        f"x = {X} parameter(0)",
        "given = s32[] parameter(1)",
        f"start = s32[] {start}",
        "copied = s32[] copy(%start)",
        f"begin = {carry} tuple(%copied, %x)",
        f"end = {carry} while(%begin), condition=%condition, body=%body{attributes}",
        f"y = {X} get-tuple-element(%end), index=1",
        condition=(
            f"c = {carry} parameter(0)",
            "i = s32[] get-tuple-element(%c), index=0",
            "five = s32[] constant(5)",
            f"go = pred[] {condition}",
        ),
        body=(
            f"c = {carry} parameter(0)",
            "i = s32[] get-tuple-element(%c), index=0",
            f"x = {X} get-tuple-element(%c), index=1",
            f"y = {X} negate(%x)",
            f"d = {carry} tuple(%i, %y)",
        ),
    )


COUNTS = "compare(%i, %five), direction=LT"


@pytest.mark.parametrize(
    ("text", "ordinary", "other"),
    [
        (loop("custom-call(%i)"), 0, 1),
        (loop(COUNTS), 3, 3),
        (loop(COUNTS, start="copy(%given)"), 0, 1),
        (loop("compare(%i, %i), direction=LT"), 0, 1),
        (loop("compare(%i, %five), direction=NE"), 0, 1),
        (loop(COUNTS, start="constant(9)"), 0, 0),
        (loop(COUNTS, ', backend_config={"known_trip_count":{"n":"7"}}'), 7, 7),
    ],
    ids=["asks", "counts", "starts anywhere", "no end", "not below", "none", "known"],
)
def test_a_loop_runs_as_often_as_is_known_or_else_never_or_once(text, ordinary, other):
    def bodies(way):
        ran = [kernel for kernel in hlo.kernels(text, way) if kernel.operation == "negate"]
        return hlo.moved(ran) / (2 * ARRAY)

    assert (bodies("ordinary"), bodies("other")) == (ordinary, other)


def test_a_condition_runs_once_more_than_its_loop():
    asked = [k.times for k in hlo.kernels(loop(COUNTS)) if k.operation == "compare"]
    assert asked == [3 + 1]


def test_what_xla_compiles_is_counted_the_same():
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    size = 4 * 2**20

    def sweep(x):
        return lax.optimization_barrier(jnp.sin(x))

    def compiled(function):
        return jax.jit(function).lower(x).compile().as_text()

    once = moved(compiled(sweep))
    assert once == 2 * size
    counted = compiled(lambda x: lax.fori_loop(0, 6, lambda _, x: sweep(x), x))
    assert 6 * once <= moved(counted) <= 6 * once + 2 * size + 4096  # x may be copied
    asks = compiled(lambda x: lax.while_loop(lambda x: x[0, 0] > 0, sweep, x))
    assert moved(asks) <= 2 * size + 4096
    assert moved(asks, "other") - moved(asks) == pytest.approx(once, abs=4096)
    chooses = compiled(
        lambda x: lax.cond(x[0, 0] > 0, lambda x: jnp.sum(sweep(x)), lambda x: x[1, 1], x)
    )
    assert moved(chooses) <= 4096
    assert moved(chooses, "other") >= size


# Collectives


def test_collectives_are_told_by_kind_and_size():
    vector = "f32[128]{0:S(1)}"
    text = program(
        f"x = {X} parameter(0)",
        f"v = {vector} parameter(1)",
        f"a = {vector} all-reduce(%v), replica_groups={{}}, to_apply=%add",
        f"b = ({vector}, {vector}) all-reduce-start(%v, %a), to_apply=%add",
        f"c = ({vector}, {vector}) all-reduce-done(%b)",
        "d = (f32[1000,128]{1,0}, f32[4000,128]{1,0}) all-gather-start(%x), dimensions={0}",
        "e = f32[4000,128]{1,0} all-gather-done(%d)",
        f"f = {vector} collective-permute(%v), source_target_pairs={{{{0,1}}}}",
        f"y = {X} negate(%x)",
    )
    ran = hlo.kernels(text)
    assert hlo.collectives(ran) == Counter(
        {
            ("all-reduce", ROW): 1,
            ("all-reduce", 2 * ROW): 1,
            ("all-gather", ARRAY): 1,
            ("collective-permute", ROW): 1,
        }
    )
    assert hlo.launched(ran) == 1
    assert hlo.moved(ran) == (1 + 4) * ARRAY + 2 * ARRAY


def test_the_collectives_of_a_rare_branch_are_the_other_ways():
    text = program(
        f"x = {X} parameter(0)",
        "bad = pred[] parameter(1)",
        f"y = {X} conditional(%bad, %x, %x), branch_computations={{%stays, %asks}}",
        stays=(f"p = {X} parameter(0)", f"q = {X} bitcast(%p)"),
        asks=(f"p = {X} parameter(0)", f"q = {X} all-reduce(%p), to_apply=%add"),
    )
    assert hlo.collectives(hlo.kernels(text)) == Counter()
    assert hlo.collectives(hlo.kernels(text, "other")) == Counter({("all-reduce", ARRAY): 1})


def test_an_asynchronous_call_counts_as_what_it_calls():
    text = program(
        f"x = {X} parameter(0)",
        f"a = (({X}), {X}, s32[]) async-start(%x), calls=%wrapped",
        f"y = {X} async-done(%a)",
        wrapped=(f"p = {X} parameter(0)", f"q = {X} negate(%p)"),
    )
    assert moved(text) == 2 * ARRAY
