"""Clips made elsewhere that operators send through the site, row by row."""

import uuid

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("generation", "0006_blind_sizes")]
    operations = [
        migrations.CreateModel(
            name="Upload",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("by", models.CharField(max_length=150, help_text="The operator's name.")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "state",
                    models.CharField(
                        max_length=8,
                        default="arriving",
                        choices=[("arriving", "Arriving"), ("open", "Open"), ("done", "Done")],
                    ),
                ),
                (
                    "files",
                    models.JSONField(
                        default=dict,
                        help_text="Where each file lies in the media storage, by its own name.",
                    ),
                ),
                ("fence", models.PositiveIntegerField(default=0)),
                ("lease_expires_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ("-created_at",),
                "indexes": [
                    models.Index(
                        fields=["created_at"],
                        name="upload_unfinished",
                        condition=~Q(state="done"),
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="UploadRow",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("line", models.PositiveIntegerField()),
                ("cells", models.JSONField(help_text="By column.")),
                ("whole", models.BooleanField(help_text="As many cells as the header.")),
                ("attempts", models.PositiveIntegerField(default=0)),
                (
                    "what",
                    models.CharField(
                        max_length=13,
                        blank=True,
                        choices=[
                            ("imported", "Imported"),
                            ("already there", "Already there"),
                            ("refused", "Refused"),
                        ],
                    ),
                ),
                ("sentence", models.TextField(blank=True)),
                (
                    "upload",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="rows",
                        to="generation.upload",
                    ),
                ),
            ],
            options={
                "ordering": ("line",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=["upload", "line"], name="upload_line_once"
                    ),
                    models.CheckConstraint(
                        name="upload_row_says_why", condition=Q(what="") | ~Q(sentence="")
                    ),
                ],
            },
        ),
    ]
