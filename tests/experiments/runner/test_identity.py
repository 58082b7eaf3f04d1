"""A folder goes on with its own data and programs, and with no others."""

import pytest

from experiments.runner import folder
from experiments.runner.folder import FolderError, check, claim

KNOWN = {
    "networks": ["no norm", "batch norm"],
    "data": "a" * 64,
    "programs": {"no norm": "1", "batch norm": "2"},
    "lowered": "JAX 1 for cpu",
}


@pytest.fixture
def begun(small, tmp_path):
    claim(small(), KNOWN, tmp_path)
    return tmp_path


def test_the_same_study_goes_on(small, begun):
    check(small(), begun)
    claim(small(), KNOWN, begun)
    assert folder.read_config(begun)["identity"] == KNOWN


def test_other_data_is_refused(small, begun):
    with pytest.raises(
        FolderError, match=r"was begun with other data, .*bbbbbbbbbbbb\.\., was aaa"
    ):
        claim(small(), KNOWN | {"data": "b" * 64}, begun)


def test_another_program_is_refused_where_it_can_be_told(small, begun):
    other = KNOWN | {"programs": {"no norm": "1", "batch norm": "3"}}
    with pytest.raises(FolderError, match=r"norms\['batch norm'\] was begun as another program"):
        claim(small(), other, begun)
    claim(small(), other | {"lowered": "JAX 2 for cpu"}, begun)


def test_another_config_is_refused_with_the_fields_that_differ(small, begun):
    with pytest.raises(
        FolderError, match=r'another study\'s: network="MLP.*steps=40; not network='
    ):
        check(small(widths=(3,), steps=20), begun)
