"""Addresses of the site."""

from django.contrib import admin
from django.urls import include, path, register_converter
from django.urls.converters import StringConverter

from arena import views
from generation.admin import progress_page
from generation.upload_pages import upload_page, uploads_page


class Side(StringConverter):
    regex = "left|right"


register_converter(Side, "side")

urlpatterns = [
    path("vote/", views.vote_page, name="vote"),
    path("vote/<slug:stream>/next/", views.next_pair, name="next_battle"),
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
    path("healthz", views.healthz, name="healthz"),
    path("admin/progress/", admin.site.admin_view(progress_page), name="progress"),
    path("admin/uploads/", admin.site.admin_view(uploads_page), name="uploads"),
    path("admin/uploads/<uuid:upload_id>/", admin.site.admin_view(upload_page), name="upload"),
    path("admin/", admin.site.urls),
    path("", include("ratings.urls")),
]
