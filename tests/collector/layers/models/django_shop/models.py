"""A shop with every kind of relation, and a column worth deferring."""

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Remark(models.Model):
    content_type = models.ForeignKey(ContentType, models.CASCADE, related_name="+")
    object_id = models.PositiveIntegerField()
    about = GenericForeignKey()


class Customer(models.Model):
    name = models.CharField(max_length=40, unique=True)
    remarks = GenericRelation(Remark)


class Tag(models.Model):
    word = models.CharField(max_length=40)


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    notes = models.TextField(default="")
    tags = models.ManyToManyField(Tag, related_name="tagged")


class Card(models.Model):
    customer = models.OneToOneField(Customer, models.CASCADE)


MODELS = (Customer, Tag, Order, Card, Remark)
