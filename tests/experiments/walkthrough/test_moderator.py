"""The page teaches what jbn computes: its numbers, its Python, its network and its address."""

import base64
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from moderator import evaluate, script
from sklearn.datasets import load_digits

import jbn
from experiments.commands.walkthrough import main
from experiments.papers.catalogue import CLAIMS
from experiments.walkthrough import MEETING
from experiments.walkthrough.page import PAGE, address

STATES = [
    "",
    "people=14.5,0,3&gamma=-1.5&beta=0.25&count=64&batches=41&order=sorted&momentum=0.75"
    "&pair=5,5.01&loud=9&five=1,1.5,12,7,3&who=3&kind=batch&offset=100000",
    "people=4,4,4&gamma=0&count=2&batches=0&pair=3,3&loud=120&who=2&kind=group&offset=1000",
    "people=1,2,900&kind=rms&offset=0&momentum=0&batches=60"
    "&table=a%09b%09c%0AAnn%091.5%09-2e1%0ABen%090%097%0ACleo%094%094".replace(
        "a%09b", "%09a%09b"
    ).replace("%09c%0A", "%0A"),
]


@pytest.fixture(scope="module")
def states():
    """The numbers and the code of every step in every state, as the page has them."""
    found = evaluate(
        """addresses.map(text => {
            const {state, wrong} = readAddress(text);
            const each = make => Object.fromEntries(Object.keys(NUMBERS).map(s => [s, make(s)]));
            return {state, wrong, numbers: each(s => NUMBERS[s](state)),
                    code: each(s => CODE[s] ? code(s, state) : '')};
        })""",
        addresses=STATES,
    )
    assert [one["wrong"] for one in found] == [[]] * len(STATES)
    return found


def assert_shown(shown, right, name):
    """To four places, and to the last digits of float32 for large numbers."""
    shown, right = (np.asarray(v, np.float64).ravel() for v in (shown, right))
    np.testing.assert_allclose(shown, right, rtol=2e-6, atol=2e-5, err_msg=name)


def normed(x):
    return (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-5)


def beside(stop, state):
    """What a step shows beside the variables of its code."""
    if stop == "boss":
        people = state["people"]
        sigma = np.sqrt(np.var(people) + 1e-5)
        return {"voice": normed(people), "undo_gamma": sigma, "undo_beta": np.mean(people)}
    if stop == "divisor":
        count = state["count"][0]
        return {"quieter": np.std(range(count)) / np.std(range(count), ddof=1)}
    if stop == "inference":
        days = {
            "mixed": [[9, 5, 1], [8, 4, 3], [7, 6, 2]],
            "sorted": [[9, 8, 7], [6, 5, 4], [3, 2, 1]],
        }
        history, keep = [(0.0, 1.0)], state["momentum"][0]
        for i in range(state["batches"][0]):
            day = days[state["order"][0]][i % 3]
            new = np.mean(day), np.var(day)
            history.append(tuple(keep * h + (1 - keep) * n for h, n in zip(history[-1], new)))
        people = range(1, 10)
        return {
            "history": dict(zip(("mean", "variance"), np.transpose(history))),
            "all_mean": np.mean(people),
            "all_variance": np.var(people),
            "all_y": (8 - np.mean(people)) / np.sqrt(np.var(people) + 1e-5),
        }
    if stop == "outlier":
        seven = np.arange(2.0, 9)
        y = normed([*seven, *state["loud"]])
        return {"before": normed(seven), "range": np.ptp(y[:7]), "limit": np.sqrt(7)}
    if stop == "gradient":
        y = normed(state["five"])
        g = np.eye(5)[state["who"][0]] / np.sqrt(np.var(state["five"]) + 1e-5)
        return {"own": g, "level": np.full(5, -np.mean(g)), "voice": -y * np.mean(g * y)}
    if stop == "float32":
        x = np.array([8, 5, 2], np.float32) + np.float32(state["offset"][0])
        squares, square = np.mean(x * x), np.square(np.mean(x))
        both = {"mean_of_squares": squares, "square_of_mean": square}
        return {**both, "flax_variance": max(0, squares - square)}
    return {}


@pytest.mark.parametrize("index", range(len(STATES)))
def test_the_copied_code_runs_and_every_number_is_right(states, index, capsys):
    for stop, numbers in states[index]["numbers"].items():
        code, namespace = states[index]["code"][stop], {}
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            exec(compile(code, stop, "exec"), namespace)
        assert not code or capsys.readouterr().out
        right = {**namespace, **beside(stop, states[index]["state"])}
        assert not code or "y" in namespace
        for name, shown in numbers.items():
            if name == "history":
                for part, values in shown.items():
                    assert_shown(values, right[name][part], f"{stop}: running {part}")
            else:
                assert_shown(shown, right[name], f"{stop}: {name}")


def test_the_parts_of_the_gradient_add_up_to_it(states):
    for one in states:
        parts = one["numbers"]["gradient"]
        total = np.sum([parts["own"], parts["level"], parts["voice"]], axis=0)
        np.testing.assert_allclose(parts["gradient"], total, atol=1e-12)
        assert sum(parts["gradient"]) == pytest.approx(0, abs=1e-12)


def test_the_article_and_the_short_cut_are_as_told(states):
    numbers = states[0]["numbers"]
    assert numbers["divisor"]["variance"] == pytest.approx(10.6667, abs=5e-5)
    assert numbers["divisor"]["y"][2] == pytest.approx(1.2247, abs=5e-5)
    assert numbers["divisor"]["sample_y"][2] == pytest.approx(1, abs=1e-6)
    assert numbers["float32"]["flax_variance"] == 8
    assert states[1]["numbers"]["float32"]["flax_y"][0] == pytest.approx(948.6833, abs=5e-5)
    assert numbers["outlier"]["range"] == pytest.approx(1 / 3, abs=0.01)
    assert numbers["two"]["y"] == pytest.approx([1, -1], abs=1e-6)


def test_no_other_number_is_written_to_four_places():
    page = PAGE.read_text(encoding="utf-8")
    prose = page[page.index("<main>") : page.index("</main>")]
    assert set(re.findall(r"\d+\.\d{4}\b", prose)) == {"1.2247", "5.9999", "948.6833"}


def test_what_it_says_of_one_example_is_what_jbn_says():
    quoted = re.search('<q id="refusal">(.*?)</q>', PAGE.read_text(encoding="utf-8"))
    assert quoted
    with pytest.raises(ValueError, match=re.escape(quoted[1])):
        jbn.batch_norm(jnp.ones((1, 1)), *jbn.init(1))


def test_the_state_is_in_the_address():
    kept, wrong = evaluate(
        """[addresses.map(text => writeAddress(readAddress(text).state, 'norms')),
            bad.map(text => readAddress(text).wrong.length)]""",
        addresses=STATES,
        bad=[
            "people=1,2", "people=1,2,x", "people=1,,2", "gamma=1e9", "count=2.5", "kind=none",
            "table=a,b", "table=1,2%0A3", "who=5", "momentum=NaN",
        ],
    )  # fmt: skip
    assert wrong == [1] * 10
    assert kept[0] == "at=norms"
    assert "people=14.5,0,3" in kept[1]
    again = evaluate("addresses.map(text => readAddress(text))", addresses=[*STATES, *kept])
    assert again[: len(STATES)] == again[len(STATES) :]


def test_the_table_is_that_of_the_command():
    table = evaluate("parseTable(TABLE)")
    frame = pd.DataFrame(table["x"], table["names"], table["columns"], dtype=np.float64)
    pd.testing.assert_frame_equal(frame, MEETING)


def loss_of(params, running, x, labels):
    """The mean cross-entropy of the page's network, and its running statistics moved."""
    moved = []
    for i, (weights, bias, gamma) in enumerate(params):
        x = x @ weights
        if running and i < 3:
            x, stats = jbn.batch_norm(x, jbn.Affine(gamma, bias), running[i], momentum=0.9)
            moved.append(stats)
        else:
            x = x + bias
        x = jax.nn.sigmoid(x) if i < 3 else x
    return (jax.nn.logsumexp(x, axis=1) - x[jnp.arange(len(x)), labels]).mean(), moved


@pytest.mark.parametrize("norm", [True, False])
def test_a_step_of_the_network_is_a_step_of_gradient_descent(norm):
    x = np.random.default_rng(0).random((32, 64))
    labels = np.arange(32) % 10
    before, loss, after = evaluate(
        """(() => {
            const layers = network(norm, 0.3, 7);
            const plain = () => layers.map(({W, bias, gamma, mean, variance}) =>
                [W, bias, gamma, mean, variance].map(v => Array.from(v)));
            for (const {norm, gamma, bias} of layers) for (const j of gamma.keys()) {
                if (norm) gamma[j] = 1 + j / 100;
                bias[j] = j / 50 - 1;
            }
            const before = plain(), loss = step(layers, Float64Array.from(x), labels, 0.7);
            return [before, loss, plain()];
        })()""",
        norm=norm,
        x=x.ravel().tolist(),
        labels=labels.tolist(),
    )  # fmt: skip
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        arrays = [[jnp.asarray(v, float) for v in layer] for layer in before]
        params = [(w.reshape(-1, len(b)), b, g) for w, b, g, *_ in arrays]
        running = [jbn.RunningStats(*layer[3:]) for layer in arrays[:3] if norm]
        step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
        (right, moved), slope = step(params, running, jnp.asarray(x), labels)
        assert loss == pytest.approx(float(right), rel=1e-12)
        for i, (old, new) in enumerate(zip(params, after)):
            for name, p, g, q in zip(("weights", "bias", "gamma"), old, slope[i], new):
                if name == "gamma" and not (norm and i < 3):
                    continue
                wanted = np.asarray(p - 0.7 * g).ravel()
                np.testing.assert_allclose(q, wanted, rtol=1e-9, atol=1e-12, err_msg=f"{i} {name}")
        for stats, new in zip(moved, after):
            np.testing.assert_allclose(new[3:], np.stack([*stats]), rtol=1e-9, atol=1e-12)


def test_the_digits_are_those_of_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    shown, pixels = script("digits").split()
    assert shown == "".join(map(str, labels))
    packed = np.minimum(images, 15).astype(np.uint8).reshape(len(images), 32, 2)
    assert base64.b64decode(pixels) == (packed[..., 0] << 4 | packed[..., 1]).tobytes()


def test_the_answer_about_the_network_is_what_it_does():
    digits = script("digits")
    with_norm, without = evaluate(
        """[true, false].map(norm => [...train(readDigits(digits),
            {norm, rate: 0.3, spread: 0.1, seed: 0, steps: norm ? 100 : 300})].at(-1).accuracy)""",
        digits=digits,
    )
    assert with_norm > 0.85
    assert without < 0.15


def test_what_is_often_said_is_what_was_measured():
    page = PAGE.read_text(encoding="utf-8")
    said = re.findall('data-claim="(.*?)" data-verdict="(.*?)".*?<code>papers (.*?)</code>', page)
    results = PAGE.parents[2] / "docs" / "results" / "papers.json"
    verdicts = {c["name"]: c["verdict"] for c in json.loads(results.read_text())["claims"]}
    assert len(said) == page.count("data-claim=") == 4
    for claim, verdict, command in said:
        assert claim == command
        assert verdict == verdicts[claim]
        assert claim in {c.name for c in CLAIMS}


def test_it_is_one_small_file_that_names_no_other():
    page = PAGE.read_text(encoding="utf-8")
    assert PAGE.stat().st_size <= 300_000
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|url)\s*[=(]\s*["']?\w+:""", page)
    assert set(re.findall(r"https?://[\w./]+", page)) == {
        "https://arxiv.org/abs/1502.03167",
        "https://arxiv.org/abs/1607.06450",
    }  # links of the last paragraph


def test_the_command_opens_it(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    main(["--page"])
    assert opened == [PAGE.as_uri()] == [capsys.readouterr().out.strip()]
    table = tmp_path / "mine.csv"
    table.write_text("who;a;b\nAnn;1,5;2\nBen, jr;3;4\n")
    main([str(table), "--page", "--no-open"])
    assert len(opened) == 1
    (line,) = capsys.readouterr().out.splitlines()
    read = evaluate("[readAddress(text).wrong, parseTable(readAddress(text).state.table[0])]",
                    text=line.partition("#")[2])  # fmt: skip
    assert read == [
        [],
        {"x": [[1.5, 2], [3, 4]], "columns": ["a", "b"], "names": ["Ann", "Ben, jr"]},
    ]


def test_a_table_too_large_for_the_page_is_refused():
    with pytest.raises(
        ValueError, match="2 to 12 rows and up to 8 columns, the table has 13 and 1"
    ):
        address(pd.DataFrame(np.ones((13, 1))))
    limits = script("maths")
    assert "x.length > 12" in limits
    assert "x[0].length > 8" in limits
