"""Where static files are collected for production."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):
    """Hashed names also inside our ES modules, so that an old module never meets a new one."""

    support_js_module_import_aggregation = True
