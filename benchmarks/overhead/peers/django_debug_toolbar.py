"""django-debug-toolbar with its default panels, shown to everybody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from benchmarks.overhead import django_site
from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    django_site.configure(
        apps=("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles", "debug_toolbar"),
        middleware=("debug_toolbar.middleware.DebugToolbarMiddleware",),
        DEBUG=True,
        STATIC_URL="/static/",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda _: True},
    )
    from django.urls import include, path

    django_site.urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))
    return Tool(build(), seen=_seen)


def _seen(headers: dict[str, str]) -> int:
    found = re.search(r"SQL (\d+) quer", headers.get("server-timing", ""))
    return int(found[1]) if found else 0
