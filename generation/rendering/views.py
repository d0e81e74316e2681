"""The page of workers and progress."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from generation.catalogue.categories import Category
from generation.rendering.progress import read_progress


def progress_page(request: HttpRequest) -> HttpResponse:
    """What the workers do; with ?fragment only the part that changes, for progress.js."""
    if not request.user.has_perm("generation.view_clip"):
        raise PermissionDenied
    context: dict[str, Any] = {"progress": read_progress(), "categories": list(Category)}
    if "fragment" in request.GET:
        return render(request, "admin/_progress.html", context)
    context |= {**admin.site.each_context(request), "title": "Workers and progress"}
    return render(request, "admin/progress.html", context)
