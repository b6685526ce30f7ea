"""Models with every kind of field that SQLite and PostgreSQL store differently."""

import uuid

from django.contrib.auth.models import User
from django.db import models


class Author(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=20, unique=True)
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE)
    spent = models.DurationField(null=True)
    born = models.DateField(null=True)


class Book(models.Model):
    title = models.CharField(max_length=50)
    authors = models.ManyToManyField(Author)
    sequel = models.OneToOneField("self", null=True, on_delete=models.SET_NULL)
    price = models.DecimalField(max_digits=10, decimal_places=3)
    rating = models.FloatField(null=True)
    stock = models.PositiveSmallIntegerField(default=0)
    printed = models.BooleanField(default=False)
    made = models.DateTimeField()
    opens = models.TimeField(null=True)
    data = models.JSONField(null=True)
    cover = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    slug = models.SlugField(null=True, db_index=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(price__gte=0), name="price_is_positive")]
        indexes = [models.Index(fields=["made", "-price"])]
