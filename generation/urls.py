"""Addresses of the operators' pages beside admin: progress, and clips made elsewhere."""

from django.contrib import admin
from django.urls import path

from generation.imports.views import upload_page, uploads_page
from generation.rendering.views import progress_page

operators = admin.site.admin_view  # leads to the login

urlpatterns = [
    path("progress/", operators(progress_page), name="progress"),
    path("uploads/", operators(uploads_page), name="uploads"),
    path("uploads/<uuid:upload_id>/", operators(upload_page), name="upload"),
]
