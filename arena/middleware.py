"""What every answer passes through."""

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
NUL = "A text that you sent holds a NUL character, which can't be kept: take it out and send again."
NULS = ("\0", "\\u0000")  # as itself, and as JSON writes it
AWAY = "The database does not answer right now. Nothing you sent is counted twice: try again."
ERRORS = {
    400: "The request can't be read, or is too large.",
    404: "There is nothing at this address.",
    405: "This address does not take the method; the header Allow says which it takes.",
    500: "The site failed on this request; its log says why.",
    503: AWAY,
}


def content_security_policy(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware


def errors_of_the_api_as_json(get_response: Handler) -> Handler:
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


class say_when_the_database_is_away:  # noqa: N801  named as its neighbours in MIDDLEWARE
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
            raise Http404("No address holds a NUL character.")
        given = [*request.GET.lists(), *request.POST.lists()]
        if not any(nul in text for _, texts in given for text in texts for nul in NULS):
            return None
        if request.accepts("text/html"):
            return render(request, "400.html", {"message": NUL}, status=400)
        return JsonResponse({"error": NUL}, status=400)
