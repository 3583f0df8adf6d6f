"""What is replaced of BentoML and uvicorn is still what they take."""

import asyncio

from uvicorn import Config

from deployment.serving.bento import Untimed
from deployment.serving.connections import BoundedProtocol
from deployment.serving.guard import Guard


def test_the_service_keeps_no_timers_and_stands_behind_the_guard():
    from deployment.service import ScoreService

    classes = [each.cls for each in ScoreService.to_asgi().user_middleware]
    assert Untimed in classes
    assert Guard in classes
    assert "TimeoutMiddleware" not in {each.__name__ for each in classes}


def test_servers_of_this_process_bound_their_connections():
    import deployment.service  # noqa: F401

    config = Config(app="none:app")
    config.load_app = lambda: None
    config.load()
    assert config.http_protocol_class is BoundedProtocol


def test_a_request_passes_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    asyncio.run(Untimed(app, timeout=1)("scope", "receive", "send"))
    assert seen == [("scope", "receive", "send")]
