"""Addresses of the leaderboards."""

from django.contrib import admin
from django.urls import path

from ratings.boards import views
from ratings.experiments import views as experiment_pages
from ratings.pipeline.api import api

staff = admin.site.admin_view  # leads to the login

urlpatterns = [
    path("", views.home, name="home"),
    path("leaderboards/", views.leaderboards, name="leaderboards"),
    path("leaderboards/<slug:category>/", views.leaderboard, name="leaderboard"),
    path("leaderboards/<slug:category>.csv", views.leaderboard_csv, name="leaderboard_csv"),
    path("leaderboards/<slug:category>.json", views.leaderboard_json, name="leaderboard_json"),
    path("leaderboards/<slug:category>/robustness/", views.robustness, name="robustness"),
    path(
        "leaderboards/<slug:category>/robustness.json",
        views.robustness_json,
        name="robustness_json",
    ),
    path("models/", views.models_page, name="models"),
    path("models/<str:slug>/", views.model_page, name="model"),
    path("methodology/", views.methodology, name="methodology"),
    path("experiments/", staff(experiment_pages.experiments), name="experiments"),
    path("experiments/new/", staff(experiment_pages.new_experiment), name="new_experiment"),
    path(
        "experiments/<uuid:experiment_id>/", staff(experiment_pages.experiment), name="experiment"
    ),
    path(
        "experiments/<uuid:experiment_id>/exclude/",
        staff(experiment_pages.exclude_voter),
        name="exclude_voter",
    ),
    path(
        "experiments/<uuid:experiment_id>/cancel/",
        staff(experiment_pages.cancel_from_page),
        name="cancel_experiment",
    ),
    path(
        "experiments/<uuid:experiment_id>/snapshot.jsonl.gz",
        staff(experiment_pages.snapshot_file),
        name="experiment_snapshot",
    ),
    path("api/", api.urls),
]
