"""Addresses of the site."""

from django.contrib import admin
from django.urls import include, path, register_converter
from django.urls.converters import StringConverter

from arena.probes import healthz
from arena.voting import views


class Side(StringConverter):
    regex = "a|b"


register_converter(Side, "side")

handler400 = "arena.middleware.bad_request"
handler404 = "arena.middleware.not_found"
urlpatterns = [
    path("vote/", views.vote_page, name="vote"),
    path("vote/<slug:stream>/next/", views.next_pair, name="next_battle"),
    path("vote/<slug:stream>/keep/", views.keep, name="keep_battles"),
    path("vote/<slug:stream>/", views.vote_page, name="vote_category"),
    path("battles/<uuid:battle_id>/", views.battle_page, name="battle"),
    path("battles/<uuid:battle_id>/vote/", views.vote, name="cast_vote"),
    path("battles/<uuid:battle_id>/defects/", views.mark, name="mark_defect"),
    path("battles/<uuid:battle_id>/defects/take-back/", views.take_back, name="take_back_defect"),
    path("battles/<uuid:battle_id>/skip/", views.skip, name="skip"),
    path(
        "battles/<uuid:battle_id>/reference.webp", views.battle_reference, name="battle_reference"
    ),
    path("battles/<uuid:battle_id>/<side:side>.mp4", views.battle_video, name="battle_video"),
    path("battles/<uuid:battle_id>/<side:side>.jpg", views.battle_poster, name="battle_poster"),
    path("panel/<slug:token>/", views.panel_page, name="panel"),
    path("robots.txt", views.robots, name="robots"),
    path("healthz", healthz, name="healthz"),
    path("admin/", include("generation.urls")),
    path("admin/", admin.site.urls),
    path("", include("ratings.urls")),
]
