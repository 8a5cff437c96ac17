"""django-silk: it stores requests and queries in the application's own database, here in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.overhead import django_site
from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    apps = ("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "silk")
    django_site.configure(apps=apps, middleware=("silk.middleware.SilkyMiddleware",), USE_TZ=True)
    from django.core.management import call_command
    from django.urls import include, path

    django_site.urlpatterns.append(path("silk/", include("silk.urls", namespace="silk")))
    call_command("migrate", verbosity=0)
    return Tool(build(), seen=_seen)


def _seen(_: object) -> int:
    from silk.models import Request

    return int(Request.objects.order_by("-start_time").first().num_sql_queries)
