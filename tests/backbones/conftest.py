"""One tiny model a family, made once."""

import pytest

GROUPS = ("1x1", "2x4", "4x8")


@pytest.fixture(scope="session")
def create(checkpoint):
    """A function from a family's name to a new model; items may have 16 to 64 visual tokens."""
    from metaembed.model import MetaEmbed

    def model_of(name, **kwargs):
        kwargs = {"dim": 16, "groups": GROUPS, "max_visual_tokens": 64} | kwargs
        return MetaEmbed.create(
            checkpoint(name), num_query_tokens=4, num_candidate_tokens=8, **kwargs
        ).eval()

    return model_of
