"""What operators see and do: one module for each subject."""

from django.contrib import admin

from arena.admin import battles, experiments, ledger, operators, panels, voters

admin.site.site_header = "Photofinish"
admin.site.site_title = "Photofinish operators"
admin.site.index_title = "Photofinish"

__all__ = ["battles", "experiments", "ledger", "operators", "panels", "voters"]
