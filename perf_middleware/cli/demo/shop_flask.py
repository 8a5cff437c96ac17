"""The shop behind Flask, served by gunicorn. The last line is all that measuring it takes."""

from __future__ import annotations

from flask import Flask

from perf_middleware.cli.demo import shop
from perf_middleware.wsgi import PerfMiddleware

front = Flask("shop")
front.add_url_rule("/orders", view_func=shop.orders)
front.add_url_rule("/orders/fixed", view_func=shop.orders_fixed)
front.add_url_rule("/basket", view_func=shop.basket)
front.add_url_rule("/products/<int:number>", view_func=shop.product)
front.add_url_rule("/turnover", view_func=shop.turnover)

app = PerfMiddleware(front, service="shop", headers="full")
