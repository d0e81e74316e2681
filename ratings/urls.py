"""Addresses of the leaderboards."""

from django.urls import path

from ratings import views

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
]
