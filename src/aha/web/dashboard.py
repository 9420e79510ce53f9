"""The dashboard's endpoints: pages and JSON about a folder of runs. The folder is only read."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import aha
from aha.core.control_characters import visible
from aha.core.errors import AhaError, DataError
from aha.store.guarded_files import number
from aha.store.run_folder import is_tuning
from aha.web.access import AccessControl
from aha.web.address_fields import finite_number, whole_number
from aha.web.chart_list import PHASES, charts_of, columns
from aha.web.chat_page import StreamCompletion, stream_answer
from aha.web.comparison_page import MOST_RUNS, ComparisonPage
from aha.web.completions import (
    ORDERS,
    VERDICTS,
    WHOLE_CHARS,
    CompletionFilter,
    CompletionIndex,
    IndexCache,
    completion_view,
    completions_page,
    groups_page,
)
from aha.web.curves import BehaviorCurves, Curves
from aha.web.event_spans import EVENT_KINDS, Row, token_values
from aha.web.file_reader import dumps
from aha.web.held_out_view import held_out_points, held_out_puzzle
from aha.web.prometheus import CONTENT_TYPE, metrics_text
from aha.web.report_page import POLICY as REPORT_POLICY
from aha.web.report_page import report_html
from aha.web.run_comparison import (
    compare_before_after,
    comparison_row,
    history_page,
    settings_of,
)
from aha.web.runs import (
    RunFolder,
    RunsFolder,
    damaged_card,
    newest_findings,
    section,
)
from aha.web.server_events import evaluation_view, files_of_events, places_of, run_events
from aha.web.turn_view import SEARCH_COLUMNS, turn_of_curves

STATIC = Path(__file__).parent / "static"
KEPT_RUNS = 32
LISTED_RUNS = 500
BEHAVIOR_POINTS, BEHAVIOR_SECONDS = 120, 0.3  # of one request
MAX_EVALS = 2_000
Cached = TypeVar("Cached")


class Json(Response):
    """A JSON response; NaN and broken text of a run's files become null and escapes."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return dumps(content)


class Dashboard:
    """The endpoints. Plain functions run in threads; only the two streams are asynchronous.

    `stream_completion` answers the chat; without it there is no chat.
    """

    def __init__(self, runs: RunsFolder, stream_completion: StreamCompletion | None = None):
        self.runs, self.stream_completion = runs, stream_completion
        self.indexes = IndexCache()
        self.comparisons = ComparisonPage(self.curves_of)
        self._curves: OrderedDict[str, Curves] = OrderedDict()
        self._behaviors: OrderedDict[str, BehaviorCurves] = OrderedDict()

    def routes(self) -> list[Route | Mount]:
        """Every address of the server."""
        run = "/api/runs/{run}"
        return [
            Route("/", self.page),
            Route("/api/runs", self.list_runs),
            Route(run, self.overview),
            Route(f"{run}/gain", self.gain),
            Route(f"{run}/behaviors", self.behaviors),
            Route(f"{run}/events", self.events),
            Route(f"{run}/files", self.files),
            Route(f"{run}/completions", self.completions),
            Route(f"{run}/completion", self.completion),
            Route(f"{run}/tokens", self.tokens),
            Route(f"{run}/groups", self.groups),
            Route(f"{run}/history", self.history),
            Route(f"{run}/puzzle", self.puzzle),
            Route(f"{run}/report", self.report),
            Route(f"{run}/chat", self.chat),
            Route("/api/compare", self.compare),
            Route("/metrics", self.metrics),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    def page(self, request: Request) -> Response:
        """The one HTML page; its JavaScript draws all views."""
        return FileResponse(STATIC / "index.html")

    # -- runs and curves ---------------------------------------------------------------------

    def list_runs(self, request: Request) -> Json:
        """The newest runs, and what every page needs: version, event kinds, whether there is a
        chat."""
        names = self.runs.names()
        return Json(
            {
                "version": aha.__version__,
                "folder": str(self.runs.path_from_here()),
                "total": len(names),
                "left_out": self.runs.left_out(),
                "runs": [card for card in map(self.card_of, names[:LISTED_RUNS]) if card],
                "chat": self.stream_completion is not None,
                "kinds": {kind.key: [kind.sign, kind.label] for kind in EVENT_KINDS},
            }
        )

    def card_of(self, name: str) -> Row | None:
        """A run's row in the list. Nothing in one run's folder keeps the others from the list."""
        try:
            run = self.runs.find(name)
            return run.card() if run else None
        except Exception as error:
            return damaged_card(name, f"{type(error).__name__}: {error}")

    def overview(self, request: Request) -> Json:
        """Everything about one run but its completions; `events` continues from `offsets`."""
        run = self.run_of(request)
        curves = self.curves_of(run)
        files = files_of_events(run)
        evals = [view for row in files["evals"].read_all() if (view := evaluation_view(row))]
        findings, damaged_findings = newest_findings(files["findings"])
        config = run.read("config")
        price = number(config.get("usd_per_hour"))
        faults = [*files["evals"].faults, *damaged_findings]
        notes = [*run.notes(), *curves.faults(), *faults, curves.grading_note()]
        return Json(
            {
                "card": run.card(),
                "usd_per_hour": price,
                "tuning": is_tuning(config),
                "max_new_tokens": number(section(config, "rollout").get("max_new_tokens")),
                "details": {
                    name.capitalize(): settings_of(run.read(name))
                    for name in ("config", "environment", "summary")
                },
                "notes": list(dict.fromkeys(note for note in notes if note)),
                "findings": findings,
                "evals": held_out_points(run, curves, evals[-MAX_EVALS:]),
                "steps": curves.rows,
                "last": curves.last(),
                "offsets": places_of(files | {"metrics": curves.lines}),
                "charts": charts_of(price, is_tuning(config)),
                "curves": curves.thinned(dict.fromkeys((*columns(), *SEARCH_COLUMNS)))
                | curves.thinned_together(column for _, column in PHASES),
            }
        )

    def gain(self, request: Request) -> Json:
        """The change of the solve rate by training; null if one of the tests is missing.

        Not part of the overview, because the two thousand draws of the bootstrap take too long.
        """
        faults: list[str] = []
        comparison = compare_before_after(self.run_of(request), faults)
        return Json(comparison and comparison_row(comparison, faults))

    def behaviors(self, request: Request) -> Json:
        """The behaviours by step, and the turn of the way of search. Counts for a short time; for
        `waiting` steps the page asks again."""
        run = self.run_of(request)
        behaviors = cached(self._behaviors, run.name, lambda: BehaviorCurves(run))
        counts = behaviors.count(BEHAVIOR_POINTS, BEHAVIOR_SECONDS)
        curves = self.curves_of(run)
        counts["turn"] = turn_of_curves(curves, running=run.status() == "running")
        return Json(counts | curves.axes_at(counts["step"]))

    async def events(self, request: Request) -> StreamingResponse:
        """New rows and the status as server-sent events, from `offsets` on."""
        run = self.run_of(request)
        start = request.headers.get("last-event-id") or request.query_params.get("offsets")
        stream = run_events(run, start)
        return StreamingResponse(stream, media_type="text/event-stream")

    # -- completions -------------------------------------------------------------------------

    def files(self, request: Request) -> Json:
        """The files of completions: numbers of steps and evaluations, names of the tests."""
        names = self.run_of(request).completion_files()
        numbered = {
            kind: sorted(int(name[5:]) for name in names if name.startswith(f"{kind}_"))
            for kind in ("step", "eval")
        }
        return Json({**numbered, "tests": [n for n in ("before", "after") if n in names]})

    def completions(self, request: Request) -> Json:
        """One page of a file's completions, filtered by verdict, group, text and reward."""
        index, fields = self.index_of(request), request.query_params
        order = fields.get("order", "")
        chosen = CompletionFilter(
            VERDICTS.get(fields.get("verdict", "")),
            whole_number(fields.get("group"), None),
            fields.get("text", "")[:200],
            finite_number(fields.get("low")),
            finite_number(fields.get("high")),
            order if order in ORDERS else "",
        )
        return Json(completions_page(index, chosen, whole_number(fields.get("start"), 0)))

    def completion(self, request: Request) -> Json:
        """One completion with all its text."""
        return Json(completion_view(*self.row_of(request), WHOLE_CHARS))

    def tokens(self, request: Request) -> Json:
        """One completion token by token."""
        return Json(token_values(self.row_of(request)[0]))

    def groups(self, request: Request) -> Json:
        """One page of a file's groups."""
        start = whole_number(request.query_params.get("start"), 0)
        return Json(groups_page(self.index_of(request), start))

    def history(self, request: Request) -> Json:
        """One page of held-out problems with the verdict at every evaluation."""
        run, fields = self.run_of(request), request.query_params
        family = fields.get("family", "test")
        start = whole_number(fields.get("start"), 0)
        return Json(history_page(run, self.indexes, family, fields.get("change", ""), start))

    def puzzle(self, request: Request) -> Json:
        """A held-out puzzle of the run, by chance. Raises HTTPException (404) without one."""
        return Json(held_out_puzzle(self.run_of(request), self.indexes))

    # -- chat --------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """The answer of the model before or after training to a puzzle, streamed as JSON lines."""
        run = self.run_of(request)
        if self.stream_completion is None:
            raise HTTPException(404, "this server shows runs and has no model to ask")
        # A foreign page cannot make a browser send this header, so it cannot start a generation.
        if request.headers.get("x-aha") != "chat":
            raise HTTPException(403, "aha answers its own page alone: wanted x-aha: chat")
        lines = stream_answer(self.stream_completion, run, request.query_params)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    # -- comparison and report ---------------------------------------------------------------

    def compare(self, request: Request) -> Json:
        """Up to twelve runs: their curves, and each of the others against the first."""
        names = request.query_params.getlist("run")[:MOST_RUNS]
        return Json(self.comparisons.page([self.find(name) for name in names]))

    def report(self, request: Request) -> Response:
        """The report with the pins of the address; with `save` as a file to download."""
        run = self.run_of(request)
        headers = {"content-security-policy": REPORT_POLICY}
        if "save" in request.query_params:
            file_name = "".join(
                c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in run.name
            )
            headers["content-disposition"] = f'attachment; filename="{file_name}.html"'
        try:
            page = report_html(run, request.query_params.getlist("pin"))
        except DataError as error:
            raise HTTPException(404, str(error)) from error
        return HTMLResponse(page.encode("utf-8", "replace"), headers=headers)

    def metrics(self, request: Request) -> Response:
        """The last numbers of every run as Prometheus text."""
        return Response(metrics_text(self.runs), headers={"content-type": CONTENT_TYPE})

    # -- look-ups ----------------------------------------------------------------------------

    def run_of(self, request: Request) -> RunFolder:
        """The run of the address. Raises HTTPException (404) where there is none."""
        return self.find(request.path_params["run"])

    def find(self, name: str) -> RunFolder:
        """A run by name. Raises HTTPException (404) where there is none."""
        run = self.runs.find(name)
        if run is None:
            raise HTTPException(404, f"no run {name!r} here")
        return run

    def index_of(self, request: Request) -> CompletionIndex:
        """The index of the file in the address. Raises HTTPException (404) where there is none."""
        name = request.query_params.get("file", "")
        path = self.run_of(request).completion_file(name)
        if path is None:
            raise HTTPException(404, f"no completions {name!r} in this run")
        return self.indexes.index(path)

    def row_of(self, request: Request) -> tuple[Row, int]:
        """(row, place) of the completion in the address. Raises HTTPException (404)."""
        index = self.index_of(request)
        place = whole_number(request.query_params.get("place"), 0)
        if place >= len(index.entries):
            raise HTTPException(404, f"no completion {place} here")
        return index.rows([index.entries[place]])[0], place

    def curves_of(self, run: RunFolder) -> Curves:
        """The curves of a run, up to date."""
        curves = cached(self._curves, run.name, lambda: Curves(run))
        curves.refresh()
        return curves


def cached(store: OrderedDict[str, Cached], key: str, make: Callable[[], Cached]) -> Cached:
    """The value of a key, made if it is missing; the least recently used one is dropped."""
    value = store.pop(key, None) or make()
    store[key] = value
    while len(store) > KEPT_RUNS:
        store.popitem(last=False)
    return value


async def _error_response(request: Request, error: Exception) -> Json:
    if isinstance(error, HTTPException):
        return Json({"error": error.detail}, error.status_code)
    if isinstance(error, ClientDisconnect):
        return Json({"error": "the client has gone"}, 400)
    if isinstance(error, AhaError):
        return Json({"error": visible(str(error))}, 404)
    if isinstance(error, FileNotFoundError):
        return Json({"error": "that file is gone"}, 404)
    return Json({"error": f"{type(error).__name__}: {error}"}, 500)


def make_app(
    root: Path,
    host: str = "127.0.0.1",
    token: str | None = None,
    stream_completion: StreamCompletion | None = None,
) -> Starlette:
    """The dashboard's application for a folder of runs, or for one run folder.

    `host` and `token` as for `AccessControl`. `stream_completion` answers the chat, because this
    room cannot run a model.
    """
    return Starlette(
        routes=Dashboard(RunsFolder(root), stream_completion).routes(),
        middleware=[Middleware(AccessControl, host=host, token=token)],
        exception_handlers=dict.fromkeys(
            (HTTPException, OSError, AhaError, ClientDisconnect, Exception), _error_response
        ),
    )
