import pytest

from tests.deployment.releasing.stand import Stand, nginx_there


@pytest.fixture
def make_stand(tmp_path):
    if not nginx_there():
        pytest.skip("nginx is not installed")
    made = []

    def make(**settings):
        stand = Stand(tmp_path, **settings)
        made.append(stand)
        return stand

    yield make
    for stand in made:
        stand.target.end()
