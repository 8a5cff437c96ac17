"""The same shop, with an order that is a gift in a table of its own."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    notes: Mapped[str] = mapped_column(String(40), default="", deferred=True)
    customer: Mapped[Customer] = relationship(back_populates="orders")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "order"}  # noqa: RUF012 - as SQLAlchemy has it


class Gift(Order):
    __tablename__ = "gift"
    id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    card: Mapped[str] = mapped_column(String(40), default="")
    ribbon: Mapped[str] = mapped_column(String(40), default="")
    __mapper_args__ = {"polymorphic_identity": "gift"}  # noqa: RUF012 - as SQLAlchemy has it
