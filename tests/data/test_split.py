"""The split by package."""

import hashlib

import pytest

from metaembed.data.split import HELD_OUT, IN_TRAINING, is_held_out, unit


def test_named_packages_go_where_they_are_named():
    assert all(is_held_out(package) for package in HELD_OUT)
    assert not any(is_held_out(package) for package in IN_TRAINING)


def test_other_packages_go_by_hash():
    for package in ["numpy", "PIL", "beartype", "h11", "wave", "enum", "queue"]:
        digest = hashlib.sha256(package.lower().encode()).hexdigest()
        assert is_held_out(package) == (int(digest, 16) % 8 == 0)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("_pydecimal", "decimal"),
        ("_csv", "csv"),
        ("_pytest", "pytest"),
        ("sre_compile", "re"),
        ("collections.abc", "collections"),
        ("_collections_abc", "collections"),
        ("pydantic_core", "pydantic"),
        ("__future__", "future__"),
        ("pyarrow", "pyarrow"),
    ],
)
def test_related_names_are_one_package(name, package):
    assert unit(name) == package
    assert is_held_out(name) == is_held_out(package)
