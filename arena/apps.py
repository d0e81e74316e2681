from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate


class ArenaConfig(AppConfig):
    name = "arena"
    verbose_name = "Arena"

    def ready(self) -> None:
        from arena import checks  # noqa: F401  registers them
        from arena.ledger import grant_site_role

        post_migrate.connect(grant_site_role, sender=self)


class OperatorsAdmin(admin_apps.AdminConfig):
    """Django's admin with our sign-in; not the app `arena`."""

    default = False
    default_site = "arena.operators.OperatorsSite"
