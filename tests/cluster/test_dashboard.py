"""The secret path of the dashboard."""

import asyncio
from collections.abc import Callable

import pytest
from distributed import Scheduler

from hpcxrf.cluster.dashboard import guarded_scheduler, new_token
from tests.samples.doors import request


async def answer_of_new(make: Callable[..., Scheduler], target: str, **options: object) -> str:
    """Headers and body that a scheduler's HTTP server sends, before any worker exists."""
    address = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    scheduler = make(**address, **options)
    answer = await asyncio.to_thread(request, scheduler.http_server.port, target)
    async with scheduler:
        return answer.headers + answer.body.decode()


@pytest.mark.parametrize(("target", "with_bokeh"), [("/", True), ("/sitemap.json", False)])
def test_a_prefix_alone_would_reveal_the_secret(
    capfd: pytest.CaptureFixture[str], target: str, with_bokeh: bool
) -> None:
    """Why the guard exists; once this fails, distributed has closed its doors by itself."""
    secret = new_token()
    bare = asyncio.run(answer_of_new(Scheduler, target, http_prefix=secret, dashboard=with_bokeh))
    guarded = asyncio.run(answer_of_new(guarded_scheduler, target, token=secret, dashboard=with_bokeh))
    assert secret in bare
    assert secret not in guarded
    assert secret not in "".join(capfd.readouterr())


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 22
