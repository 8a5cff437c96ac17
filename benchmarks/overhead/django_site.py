"""A Django project of one view; its ORM's models too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpResponse
from django.urls import path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.overhead.workload import Workload

_workloads: list[Workload] = []


def orders(_: Any) -> HttpResponse:
    """The view; in HTML, which is what debug-toolbar waits for."""
    return HttpResponse(b"<html><body>" + _workloads[0].view() + b"</body></html>")


urlpatterns: list[Any] = [path("orders", orders)]


def configure(*, apps: Sequence[str] = (), middleware: Sequence[str] = (), **more: Any) -> None:
    """Set Django up; once, the first call counts."""
    if settings.configured:
        return
    import django

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of a benchmark",
        INSTALLED_APPS=list(apps),
        MIDDLEWARE=list(middleware),
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        **more,
    )
    django.setup()


def application(workload: Workload) -> Any:
    """The WSGI application."""
    from django.core.wsgi import get_wsgi_application

    configure()
    _workloads[:] = [workload]
    return get_wsgi_application()


class Orders:
    """The statement of the workload as the ORM says it, with a cursor's methods."""

    def __init__(self) -> None:
        from django.db import connection, models

        class Order(models.Model):
            customer_id = models.IntegerField()
            status = models.CharField(max_length=20)
            currency = models.CharField(max_length=3)
            total_cents = models.IntegerField()
            created_at = models.CharField(max_length=30)
            updated_at = models.CharField(max_length=30)

            class Meta:
                app_label = "shop"
                db_table = "orders"

        with connection.schema_editor() as editor:
            editor.create_model(Order)
        self.wanted = Order.objects.exclude(status="cancelled").order_by("-created_at")

    def cursor(self) -> Orders:
        return self

    def execute(self, _: str, values: tuple[int]) -> None:
        list(self.wanted.filter(customer_id=values[0])[:20])
