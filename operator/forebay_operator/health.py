"""Liveness and metrics. That the loop answers is all; a follower is healthy too."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from forebay_operator.metrics import REGISTRY


async def serve(port: int) -> web.AppRunner:
    """Answer GET /healthz and /metrics on all addresses."""
    app = web.Application()

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
