"""Addresses of the site."""

from django.contrib import admin
from django.urls import include, path, re_path

from arena import views

SIDE = "(?P<side>left|right)"
BATTLE = "battles/(?P<battle_id>[0-9a-f-]{36})"

urlpatterns = [
    path("vote/", views.vote_page, name="vote"),
    path("vote/<slug:stream>/next/", views.next_pair, name="next_battle"),
    path("vote/<slug:stream>/", views.vote_page, name="vote_category"),
    path("battles/<uuid:battle_id>/", views.battle_page, name="battle"),
    path("battles/<uuid:battle_id>/vote/", views.vote, name="cast_vote"),
    path("battles/<uuid:battle_id>/skip/", views.skip, name="skip"),
    path(
        "battles/<uuid:battle_id>/reference.webp", views.battle_reference, name="battle_reference"
    ),
    re_path(rf"^{BATTLE}/{SIDE}\.mp4$", views.battle_video, name="battle_video"),
    re_path(rf"^{BATTLE}/{SIDE}\.jpg$", views.battle_poster, name="battle_poster"),
    path("healthz", views.healthz, name="healthz"),
    path("admin/", admin.site.urls),
    path("", include("ratings.urls")),
]
