"""Werkzeug and Flask: the rule that matched, never the path."""

from __future__ import annotations

import flask
import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from perf_middleware import frameworks
from perf_middleware.wsgi import PerfMiddleware


def shop():
    app = flask.Flask("shop")
    blueprint = flask.Blueprint("items", "items", url_prefix="/shop/<tenant>")

    @app.get("/orders/<int:number>/")
    def orders(number):
        return str(number)

    @app.get("/broken")
    def broken():
        raise ZeroDivisionError

    @app.get("/file")
    def file():
        return flask.send_file(__file__)

    @app.get("/stream")
    def stream():
        return flask.Response(str(number) for number in range(3))

    @blueprint.get("/items/<number>")
    def item(tenant, number):
        return number

    app.register_blueprint(blueprint)
    return app


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [
        ("/nothing", "GET (unmatched)", 404),
        ("/orders/seven/", "GET (unmatched)", 404),
        ("/orders/7", "GET (unmatched)", 308),
        ("/orders/7/", "GET /orders/<int:number>/", 200),
        ("/shop/ada/items/9", "GET /shop/<tenant>/items/<number>", 200),
        ("/broken", "GET /broken", 500),
        ("/file", "GET /file", 200),
        ("/stream", "GET /stream", 200),
    ],
)
def test_flask(profiled, path, name, status):
    app = shop()
    app.wsgi_app = profiled(PerfMiddleware, app.wsgi_app)
    response = app.test_client().get(path)
    assert response.status_code == status
    assert response.data or status == 308
    assert response.headers["X-Perf-Id"]
    response.close()
    (profile,) = profiled.profiles
    assert (profile.name, profile.status, profile.error) == (name, status, None)


def test_a_mount_from_the_path_is_no_part_of_the_route(profiled):
    app = DispatcherMiddleware(Response("none", 404), {"/mounted": shop()})
    Client(profiled(PerfMiddleware, app)).get("/mounted/orders/7/").close()
    assert profiled.profiles[0].route == "/orders/<int:number>/"


@pytest.mark.parametrize("return_rule", [True, False])
def test_a_bare_map_answers_as_before(profiled, return_rule):
    rule = Rule("/x/<int:n>", endpoint="end")
    found = []

    def app(environ, start_response):
        adapter = Map([rule]).bind_to_environ(environ)
        try:
            found.append(adapter.match(return_rule=return_rule))
            found.append(adapter.match("/x/8"))
        except HTTPException as error:
            return error(environ, start_response)
        return Response(Request(environ).path)(environ, start_response)

    response = Client(profiled(PerfMiddleware, app)).get("/x/7")
    assert found[1] == ("end", {"n": 8})
    assert found[0][1] == {"n": 7}
    assert (found[0][0].rule if return_rule else found[0][0]) == ("/x/<int:n>" if return_rule else "end")
    assert response.data == b"/x/7"
    response.close()
    assert [profile.route for profile in profiled.profiles] == ["/x/<int:n>"]


def test_uninstalling_restores_the_very_attribute(profiled):
    profiled(PerfMiddleware, None)
    hooked = MapAdapter.match
    frameworks.uninstall()
    try:
        assert MapAdapter.match is hooked.__wrapped__
    finally:
        frameworks.install()
