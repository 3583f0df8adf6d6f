import pytest

from deployment.filtering import FilterRequest, shards_of
from tamis.errors import UsageError


def test_the_embedded_pool_lies_on_one_machine(tmp_path):
    request = FilterRequest(
        inputs=("packages",), output="o", version="1", engine="ray", ray_address="auto"
    )
    with pytest.raises(UsageError, match="--input: given 'packages', which lies on this machine"):
        shards_of(request, tmp_path)
    assert not list(tmp_path.iterdir())
