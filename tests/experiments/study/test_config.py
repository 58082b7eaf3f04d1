import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import pytest

from experiments.study import MLP, Classification, Digits
from experiments.study.config import as_json, networks_of
from experiments.study.load import load_studies, override
from experiments.study.values import ConfigError, show
from jbn import Ghost, Noisy, Standard

ROOT = Path(__file__).parents[3]

CONFIG = """
from experiments.study import MLP, Study, Standard

study = Study(
    name="n", claim="c", data="digits", norms={"none": None, "bn": Standard()},
    network=MLP((3,), "relu"), optimizer="sgd", learning_rates=(0.1,), seeds=(0,), batch_size=2,
    steps=4, evaluate_every=2,
)
"""


def config(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_config_file_defines_a_study(tmp_path):
    study = load_studies(config(tmp_path, CONFIG))[""]
    assert study.norms == {"none": None, "bn": Standard()}
    assert (study.network, study.schedule, study.init_std) == (MLP((3,), "relu"), "constant", None)


def test_json_holds_every_field(small):
    fields = json.loads(json.dumps(as_json(small(schedule="cosine"))))
    assert fields["norms"] == {"no norm": None, "batch norm": "Standard()"}
    assert fields["schedule"] == "cosine"
    assert fields["network"] == 'MLP((8, 6), "sigmoid")'
    assert fields["data"] == "Digits(validation=0)"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("claim", "  "),
        ("data", "cifar"),
        ("norms", {}),
        ("norms", {"": None}),
        ("norms", [None]),
        ("network", "mlp"),
        ("network", None),
        ("optimizer", "lion"),
        ("optimizer", 3),
        ("task", "ranking"),
        ("task", Classification),
        ("data", Digits),
        ("data", 3),
        ("schedule", "step"),
        ("warmup", -1),
        ("warmup", 40),
        ("warmup", 1.0),
        ("clip", 0.0),
        ("margin", 0.0),
        ("margin", "1"),
        ("clip", "1"),
        ("weight_decay", -0.1),
        ("steps", 2**32),
        ("learning_rates", (1e39,)),
        ("learning_rates", (1e-46,)),
        ("learning_rates", (0.1, 0.1 + 1e-12)),
        ("learning_rates", ()),
        ("learning_rates", (-1.0,)),
        ("learning_rates", (0.0,)),
        ("learning_rates", (float("nan"),)),
        ("learning_rates", (float("inf"),)),
        ("learning_rates", (0.1, 0.1)),
        ("learning_rates", ("0.1",)),
        ("learning_rates", 0.1),
        ("steps", 10**400),
        ("seeds", ()),
        ("seeds", (-1,)),
        ("seeds", (2**31,)),
        ("seeds", (1, 1)),
        ("seeds", (1.0,)),
        ("batch_size", 1),
        ("batch_size", 2.0),
        ("steps", 0),
        ("evaluate_every", 0),
        ("evaluate_every", 1),
        ("evaluate_every", 7),
        ("init_std", 0.0),
        ("init_std", "0.1"),
        ("momentum", 1.5),
        ("momentum", -0.1),
        ("momentum", float("nan")),
        ("momentum", "0.9"),
        ("epsilon", 0.0),
        ("epsilon", float("nan")),
        ("epsilon", ()),
        ("epsilon", (1e-5, -1.0)),
        ("epsilon", (0.1, 0.1)),
        ("momentum", (0.9, 1.5)),
        ("momentum", ["0.9"]),
        ("init_std", (None, 0.1)),
        ("init_std", (0.1, 0.0)),
        ("data_parallel", 1),
        ("data_parallel", None),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(small, field, value):
    with pytest.raises(ValueError, match="needs") as error:
        small(**{field: value})
    message = str(error.value)
    assert message.startswith(f"{field}={show(value)}: needs ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("norm", "says"),
    [
        (Standard, "norms: Standard: needs None, a variant"),
        ("batch_norm", 'norms: "batch_norm": needs None, a variant'),
        (nn.Dense, "norms: Dense: TypeError: "),
        (lambda: 3, "norms: .*<lambda>: needs None, a variant"),
    ],
)
def test_what_is_no_norm_is_named(small, norm, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        small(norms={"a": norm})


def test_a_field_that_its_owner_has_not_is_refused(small):
    with pytest.raises(ConfigError, match="needs a optimizer with such a field"):
        small(optimizer="adam", weight_decay=0.1)
    assert small(optimizer="adamw", weight_decay=(0.0, 0.1)).weight_decay == (0.0, 0.1)


def test_several_values_make_as_many_networks_of_those_that_notice_them(small):
    assert [*networks_of(small())] == ["no norm", "batch norm"]
    study = small(epsilon=(1e-5, 0.1), momentum=(0.5, 1), init_std=(0.25,))
    assert networks_of(study) == {
        "no norm, init_std=0.25": ("no norm", {"init_std": 0.25}),
        **{
            f"batch norm, init_std=0.25, momentum={m!r}, epsilon={e!r}": (
                "batch norm",
                {"init_std": 0.25, "momentum": m, "epsilon": e},
            )
            for m in (0.5, 1)
            for e in (1e-5, 0.1)
        },
    }


def test_a_label_that_is_the_name_of_a_network_is_refused(small):
    norms = {"bn": Standard(), "bn, epsilon=0.1": None}
    small(norms=norms)
    with pytest.raises(ConfigError, match="^norms=.* needs labels that no network has"):
        small(norms=norms, epsilon=(0.1, 1.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [("momentum", 0), ("momentum", 1), ("learning_rates", (1, 10)), ("init_std", None)],
)
def test_limits_and_whole_numbers_are_allowed(small, field, value):
    assert getattr(small(**{field: value}), field) == value


@pytest.mark.parametrize("wrap", [lambda noisy: noisy, lambda noisy: Ghost(2, base=noisy)])
def test_noise_is_not_spread_over_devices(small, wrap):
    norms = {"noisy": wrap(Noisy(jax.random.key(0)))}
    small(norms=norms)
    with pytest.raises(ValueError, match="^data_parallel=True: needs norms without a key"):
        small(norms=norms, data_parallel=True)


def said(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_studies(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_an_absent_config(tmp_path):
    assert "No such file" in said(tmp_path / "absent.py")


def test_a_folder_for_a_config(tmp_path):
    assert "directory" in said(tmp_path)


def test_an_empty_config(tmp_path):
    assert "is empty" in said(config(tmp_path, " \n"))


def test_a_config_that_is_not_utf8(tmp_path):
    assert "not UTF-8" in said(config(tmp_path, CONFIG.encode() + b"# \xff"))


def test_a_config_without_a_study(tmp_path):
    assert "found nothing of that name" in said(config(tmp_path, "x = 1"))


def test_a_study_that_is_something_else(tmp_path):
    assert "found a dict" in said(config(tmp_path, "study = {}"))


def test_a_misspelt_field_is_recognised(tmp_path):
    message = said(config(tmp_path, CONFIG.replace("network", "netwrok")))
    assert "unknown field 'netwrok'. Did you mean 'network'?" in message
    message = said(config(tmp_path, CONFIG.replace('"relu"', "activatoin='relu'")))
    assert ":6: MLP has no field 'activatoin'. Did you mean 'activation'?" in message


def test_an_unknown_field_lists_the_known(tmp_path):
    message = said(config(tmp_path, CONFIG.replace("seeds", "zzz")))
    assert "unknown field 'zzz'" in message
    assert "batch_size" in message


def test_a_missing_field_is_named(tmp_path):
    assert "'seeds'" in said(config(tmp_path, CONFIG.replace("seeds=(0,),", "")))


def test_a_bad_value_is_found_on_its_line(tmp_path):
    message = said(config(tmp_path, CONFIG.replace("(3,)", "(0,)")))
    assert message == f"{tmp_path}/study.py:6: widths=(0,): needs a tuple of whole numbers from 1."


def test_bad_syntax_is_found_on_its_line(tmp_path):
    assert said(config(tmp_path, "\nstudy = (")).startswith(f"{tmp_path}/study.py:2: SyntaxError")


def test_an_error_in_the_file_is_found_on_its_line(tmp_path):
    assert said(config(tmp_path, "x = 1\ny = z\n")).startswith(f"{tmp_path}/study.py:2: NameError")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=str)
def test_every_config_loads_and_says_what_it_is(path):
    load_studies(path)
    header = path.read_text(encoding="utf-8").split('"""')[1]
    for heading in ("Claim", "Command", "Cost", "Result"):
        assert f"\n{heading}" in header
    assert f"run {path.relative_to(ROOT).as_posix()} " in header


SEVERAL = (
    CONFIG.replace("study = Study(", "one = Study(")
    + """
import dataclasses
studies = {"a": one, "b, 5 wide": dataclasses.replace(one, network=MLP((5,), "relu"))}
"""
)


def test_several_studies_have_names(tmp_path):
    studies = load_studies(config(tmp_path, SEVERAL))
    widths = {name: study.network.widths for name, study in studies.items()}
    assert widths == {"a": (3,), "b, 5 wide": (5,)}


def test_what_is_overridden_is_so_in_all(tmp_path):
    studies = load_studies(config(tmp_path, SEVERAL))
    chosen = dataclasses.replace(studies["a"], steps=8)
    changed = override(studies, studies["a"], chosen)
    assert [(study.network.widths, study.steps) for study in changed.values()] == [
        ((3,), 8),
        ((5,), 8),
    ]
    longer = {**studies, "c": dataclasses.replace(studies["a"], evaluate_every=4)}
    with pytest.raises(ValueError, match="evaluate_every=4: needs a divisor of steps=6"):
        override(longer, studies["a"], dataclasses.replace(chosen, steps=6))


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", 3])
def test_a_name_is_a_folders(tmp_path, name):
    assert "a name is a folder's" in said(config(tmp_path, f"studies = {{{name!r}: 1}}"))


def test_something_else_by_a_name(tmp_path):
    needed = "needs studies['a'] to be a Study, found a int."
    assert said(config(tmp_path, "studies = {'a': 1}")) == f"{tmp_path}/study.py: {needed}"
