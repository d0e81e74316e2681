"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")
# One pool per web process, with a connection for each of gunicorn's threads and some to spare.
# Workers have none: they fork, and use one connection at a time.
os.environ.setdefault("DATABASE_POOL_SIZE", "8")

application = get_wsgi_application()
