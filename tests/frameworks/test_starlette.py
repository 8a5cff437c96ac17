"""Starlette and FastAPI: the template of the route that answered, under the templates of its mounts."""

from __future__ import annotations

import warnings

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from perf_middleware.asgi import PerfMiddleware

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


def view(request):
    return PlainTextResponse("x")


async def between(request, call_next):
    return await call_next(request)


def routes(profiled, app, *paths, **options):
    """The routes reported for each path, wrapped from outside."""
    with TestClient(profiled(PerfMiddleware, app), raise_server_exceptions=False, **options) as client:
        for path in paths:
            client.get(path)
    return [profile.route for profile in profiled.profiles]


NESTED = [
    Route("/", view),
    Route("/orders/{id:int}", view, methods=["GET"]),
    Mount(
        "/shop/{tenant}",
        routes=[Route("/", view), Route("/items/{id}", view), Mount("/deep/{x}", routes=[Route("/end", view)])],
    ),
    Mount("/files", app=PlainTextResponse("x")),
]


@pytest.mark.parametrize("path", ["/nothing", "/orders/seven"])
def test_what_no_route_matched_has_none(profiled, path):
    assert routes(profiled, Starlette(routes=NESTED), path) == [None]
    assert profiled.profiles[0].name == "GET (unmatched)"
    assert profiled.profiles[0].status == 404


@pytest.mark.parametrize("middleware", [[], [Middleware(BaseHTTPMiddleware, dispatch=between)] * 2])
@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/orders/7", "/orders/{id:int}"),
        ("/shop/ada/", "/shop/{tenant}/"),
        ("/shop/ada/items/9", "/shop/{tenant}/items/{id}"),
        ("/shop/ada/deep/5/end", "/shop/{tenant}/deep/{x}/end"),
        ("/files/etc/passwd", "/files"),
    ],
)
def test_mounts_give_their_templates(profiled, middleware, path, route):
    assert routes(profiled, Starlette(routes=NESTED, middleware=middleware), path) == [route]


def test_a_router_mounted_twice_is_told_apart(profiled):
    router = Router(routes=[Route("/items/{id}", view)])
    app = Starlette(routes=[Mount("/a", app=router), Mount("/b/{x}", app=router)])
    assert routes(profiled, app, "/a/items/1", "/b/2/items/1", "/a/items/2") == [
        "/a/items/{id}",
        "/b/{x}/items/{id}",
        "/a/items/{id}",
    ]


def test_hosts_and_middleware_in_mounts_are_looked_through(profiled):
    inner = Mount("/m", routes=[Route("/x", view)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=between)])
    assert routes(profiled, Starlette(routes=[Host("testserver", app=Router(routes=[inner]))]), "/m/x") == ["/m/x"]


def test_added_as_the_applications_own_middleware(profiled):
    app = Starlette(routes=NESTED, middleware=[Middleware(PerfMiddleware, log=False, sinks=[profiled.profiles.append])])
    with TestClient(app) as client:
        assert client.get("/shop/ada/items/9").headers["x-perf-queries"] == "0"
    assert [profile.name for profile in profiled.profiles] == ["GET /shop/{tenant}/items/{id}"]
    layer = app.middleware_stack
    while not isinstance(layer, PerfMiddleware):
        layer = layer.app
    layer.close()


def test_where_the_server_mounted_the_application_is_no_part_of_its_routes(profiled):
    assert routes(profiled, Starlette(routes=NESTED), "/prefix/shop/ada/items/9", root_path="/prefix") == [
        "/shop/{tenant}/items/{id}"
    ]


def test_fastapi_with_included_routers_and_mounted_applications(profiled):
    def read(number: int):
        return number

    router = APIRouter(prefix="/v1/{tenant}")
    router.get("/items/{number}")(read)
    outer = APIRouter(prefix="/api")
    outer.include_router(router)
    sub = FastAPI()
    sub.get("/things/{number}")(read)
    app = FastAPI()
    app.get("/plain/{number}")(read)
    app.include_router(outer)
    app.include_router(router, prefix="/other")
    app.mount("/sub/{name}", sub)
    got = routes(
        profiled, app, "/plain/1", "/api/v1/t/items/1", "/other/v1/t/items/1", "/sub/n/things/1", "/sub/n/nothing"
    )
    assert got[:4] == [
        "/plain/{number}",
        "/api/v1/{tenant}/items/{number}",
        "/other/v1/{tenant}/items/{number}",
        "/sub/{name}/things/{number}",
    ]
    assert got[4] in (None, "/sub/{name}")


def test_a_failing_view_and_a_wrong_method_keep_their_route(profiled):
    def broken(request):
        raise ZeroDivisionError

    assert routes(profiled, Starlette(routes=[Route("/b/{id}", broken)]), "/b/1") == ["/b/{id}"]
    assert (profiled.profiles[0].status, profiled.profiles[0].error) == (500, "ZeroDivisionError")
