"""What every answer passes through."""

import codecs
from collections.abc import Callable

from django.db import DataError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from psycopg_pool import PoolTimeout

Handler = Callable[[HttpRequest], HttpResponse]

# No inline code, nothing from elsewhere; blob: for clips that were fetched ahead.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NUL = "A text that you sent contains a NUL character. Remove it and send the text again."
NULS = ("\0", "\\u0000")  # as itself, and as JSON writes it
CHARSET = "Send forms in UTF-8: this one names the charset {}."
UNREADABLE = "The request can't be read or is too large."
AWAY = "The site can't reach its database. Try again: nothing you send is counted twice."
ERRORS = {
    400: UNREADABLE,
    404: "There is nothing at this address.",
    405: "This address does not accept that method. The Allow header lists those it accepts.",
    500: "Something went wrong on our side. The log of the site has the details.",
    503: AWAY,
}


def content_security_policy(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """The site's page for 400. Django's own asks for the CSRF token first: where the form can't be
    read that fails again, and nothing of the site answers."""
    return _refused(request, UNREADABLE)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """The site's page for 404; Django's own asks for the CSRF token, too."""
    return render(request, "404.html", status=404)


def _refused(request: HttpRequest, sentence: str) -> HttpResponse:
    if request.accepts("text/html"):
        return render(request, "400.html", {"message": sentence}, status=400)
    return JsonResponse({"error": sentence}, status=400)


def utf8_alone(get_response: Handler) -> Handler:
    """Addresses are read as UTF-8, whatever charset a request names, and a form in another one is
    refused."""

    def middleware(request: HttpRequest) -> HttpResponse:
        named = request.encoding
        if named:  # one that Python knows, or Django has ignored it
            request.encoding = "utf-8"
            if request.method == "POST" and codecs.lookup(named).name != "utf-8":
                return _refused(request, CHARSET.format(named))
        return get_response(request)

    return middleware


def api_errors_as_json(get_response: Handler) -> Handler:
    """Under /api/ an error is {"error": sentence}, also where a page of the site answered it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        kind = response.headers.get("Content-Type", "")
        if response.status_code < 400 or not request.path.startswith("/api/") or "json" in kind:
            return response
        sentence = ERRORS.get(response.status_code, "The request was not answered.")
        said = JsonResponse({"error": sentence}, status=response.status_code)
        for name in ("Allow", "Retry-After"):
            if name in response.headers:
                said.headers[name] = response.headers[name]
        return said

    return middleware


class unreachable_database_as_503:  # noqa: N801  named as its neighbours in MIDDLEWARE
    """Turns a lost database into 503 and a sentence, so that a voter's page can try again."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | PoolTimeout):
            return None
        if request.accepts("text/html"):
            # Without the request: the site's own context would ask the database again.
            response = HttpResponse(render_to_string("503.html", {"message": AWAY}), status=503)
        else:
            response = JsonResponse({"error": AWAY}, status=503)
        response.headers["Retry-After"] = "2"
        return response


class refuse_nul:  # noqa: N801  named as its neighbours in MIDDLEWARE
    """PostgreSQL keeps no NUL in a text. Where one of the request's came to it, an address is of
    nothing (404), and anything else is refused (400). A cookie with one is none of ours."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.COOKIES = {name: text for name, text in request.COOKIES.items() if "\0" not in text}
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, DataError):
            return None
        if "\0" in request.path:
            raise Http404("An address can't contain a NUL character.")
        given = [*request.GET.lists(), *request.POST.lists()]
        if not any(nul in text for _, texts in given for text in texts for nul in NULS):
            return None
        return _refused(request, NUL)
