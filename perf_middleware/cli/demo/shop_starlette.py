"""The shop behind Starlette, served by uvicorn. The last line is all that measuring it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from perf_middleware.asgi import PerfMiddleware
from perf_middleware.cli.demo import shop

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request


def page(make: Callable[..., Any]) -> Callable[[Request], JSONResponse]:
    """An endpoint of a page; a plain function, which Starlette runs on a thread: its queries block no other request."""

    def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(make(**request.path_params))

    return endpoint


front = Starlette(
    routes=[
        Route("/orders", page(shop.orders)),
        Route("/orders/fixed", page(shop.orders_fixed)),
        Route("/basket", page(shop.basket)),
        Route("/products/{number:int}", page(shop.product)),
        Route("/turnover", page(shop.turnover)),
    ]
)

app = PerfMiddleware(front, service="shop", headers="full")
