"""The liveness endpoint: the loop runs. Whether we lead is not asked, a follower is healthy too."""

from aiohttp import web


async def serve(port: int) -> web.AppRunner:
    """Answer GET /healthz on all addresses."""
    app = web.Application()

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
