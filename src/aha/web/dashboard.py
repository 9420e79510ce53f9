"""The dashboard's server: pages and JSON over a folder of runs, which it reads and never writes."""

from collections import OrderedDict
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import aha
from aha.core.errors import DataError
from aha.web import behavior_curves
from aha.web.access import Guard
from aha.web.chat_page import StreamCompletion, answer_lines
from aha.web.completions import VERDICTS, WHOLE_CHARS, IndexCache, groups_of, page_of, shown
from aha.web.curves import DRAWN, Curves
from aha.web.event_spans import KINDS
from aha.web.file_reader import Lines, dumps
from aha.web.problem_history import FAMILIES, through_time
from aha.web.report_page import POLICY as REPORT_POLICY
from aha.web.report_page import report_html
from aha.web.run_comparison import (
    PairedComparison,
    compare_before_after,
    compare_runs,
    config_differences,
)
from aha.web.runs import RunFolder, RunsFolder
from aha.web.server_events import news, offsets_of
from aha.web.token_strip import strip_of

STATIC = Path(__file__).parent / "static"
KEPT_RUNS = 32
LISTED_RUNS = 500
HABIT_POINTS, HABIT_SECONDS = 120, 0.3
EVALS = 2_000


class Json(Response):
    """JSON that no content of a run can break."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return dumps(content)


class Dashboard:
    """The endpoints. All but the stream are plain functions, which run in threads."""

    def __init__(self, runs: RunsFolder, stream_completion: StreamCompletion | None = None):
        self.runs, self.shelf, self.stream_completion = runs, IndexCache(), stream_completion
        self._curves: OrderedDict[str, Curves] = OrderedDict()
        self._habits: OrderedDict[str, behavior_curves.BehaviorCurves] = OrderedDict()

    def routes(self) -> list[Route | Mount]:
        run = "/api/runs/{run}"
        return [
            Route("/", self.page),
            Route("/api/runs", self.list_runs),
            Route(run, self.overview),
            Route(f"{run}/gain", self.gain),
            Route(f"{run}/curves", self.curves),
            Route(f"{run}/habits", self.habits),
            Route(f"{run}/news", self.news),
            Route(f"{run}/files", self.files),
            Route(f"{run}/completions", self.completions),
            Route(f"{run}/completion", self.completion),
            Route(f"{run}/strip", self.strip),
            Route(f"{run}/groups", self.groups),
            Route(f"{run}/through", self.through),
            Route(f"{run}/report", self.report),
            Route(f"{run}/chat", self.chat),
            Route("/api/compare", self.compare),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    # -- runs and curves ---------------------------------------------------------------------

    def list_runs(self, request: Request) -> Json:
        names = self.runs.names()
        found = [run for run in map(self.runs.find, names[:LISTED_RUNS]) if run is not None]
        return Json(
            {
                "version": aha.__version__,
                "folder": self.runs.root.absolute().name,
                "total": len(names),
                "left_out": self.runs.left_out(),
                "runs": [run.card() for run in found],
                "chat": self.stream_completion is not None,
                "kinds": {kind.key: [kind.sign, kind.label] for kind in KINDS},
            }
        )

    def overview(self, request: Request) -> Json:
        run = self.run_of(request)
        curves = self.curves_of(run)
        evals_file = Lines(run.evals)
        evals = evals_file.rest()
        notes = run.notes()
        if curves.lines.broken:
            notes.append(f"metrics.jsonl: {curves.lines.broken} lines cannot be read")
        return Json(
            {
                "card": run.card(),
                "config": run.read("config"),
                "environment": run.read("environment"),
                "summary": run.read("summary"),
                "before": run.read("before"),
                "after": run.read("after"),
                "notes": notes,
                "evals": evals[-EVALS:],
                "steps": curves.rows,
                "names": curves.names(),
                "last": curves.last(),
                "place": f"{curves.lines.offset}.{evals_file.offset}",
                "curves": curves.thinned(DRAWN),
            }
        )

    def gain(self, request: Request) -> Json:
        """Apart from the overview: two thousand draws take longer than a page may wait."""
        paired = compare_before_after(self.run_of(request))
        return Json(paired and paired_row(paired))

    def curves(self, request: Request) -> Json:
        curves = self.curves_of(self.run_of(request))
        names = request.query_params.getlist("name") or DRAWN
        return Json({"steps": curves.rows, "curves": curves.thinned(names)})

    def habits(self, request: Request) -> Json:
        run = self.run_of(request)
        found = kept(self._habits, run.name, lambda: behavior_curves.BehaviorCurves(run))
        return Json(found.count(HABIT_POINTS, HABIT_SECONDS))

    async def news(self, request: Request) -> StreamingResponse:
        run = self.run_of(request)
        place = request.headers.get("last-event-id") or request.query_params.get("place")
        return StreamingResponse(news(run, offsets_of(place, run)), media_type="text/event-stream")

    # -- completions -------------------------------------------------------------------------

    def files(self, request: Request) -> Json:
        names = self.run_of(request).completion_files()
        numbered = {
            kind: sorted(int(name[5:]) for name in names if name.startswith(f"{kind}_"))
            for kind in ("step", "eval")
        }
        return Json({**numbered, "tests": [n for n in ("before", "after") if n in names]})

    def completions(self, request: Request) -> Json:
        index, fields = self.index_of(request), request.query_params
        verdict = VERDICTS.get(fields.get("verdict", ""))
        group = whole(fields.get("group"), None)
        start = whole(fields.get("start"), 0)
        return Json(page_of(index, verdict, group, fields.get("text", "")[:200], start))

    def completion(self, request: Request) -> Json:
        return Json(shown(*self.row_of(request), WHOLE_CHARS))

    def strip(self, request: Request) -> Json:
        return Json(strip_of(self.row_of(request)[0]))

    def groups(self, request: Request) -> Json:
        start = whole(request.query_params.get("start"), 0)
        return Json(groups_of(self.index_of(request), start))

    def through(self, request: Request) -> Json:
        run, fields = self.run_of(request), request.query_params
        family = fields.get("family", FAMILIES[0])
        start = whole(fields.get("start"), 0)
        return Json(through_time(run, self.shelf, family, fields.get("change", ""), start))

    # -- chat --------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """One side's answer to a puzzle, streamed."""
        run = self.run_of(request)
        if self.stream_completion is None:
            raise HTTPException(404, "this server shows runs and has no model to ask")
        # No page elsewhere can make a browser send this, so none can make this machine compute.
        if request.headers.get("x-aha") != "chat":
            raise HTTPException(403, "aha answers its own page alone: wanted x-aha: chat")
        lines = answer_lines(self.stream_completion, run, request.query_params)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    # -- comparison and report ---------------------------------------------------------------

    def compare(self, request: Request) -> Json:
        names = request.query_params.getlist("run")[:4]
        runs = [self.find(name) for name in names]
        configs = [run.read("config") for run in runs]
        first = runs[0] if runs else None
        paired = [compare_runs(first, other) for other in runs[1:]]
        return Json(
            {
                "runs": [self._compared(run) for run in runs],
                "differences": [config_differences(configs[0], other) for other in configs[1:]],
                "paired": [found and paired_row(found) for found in paired],
            }
        )

    def _compared(self, run: RunFolder) -> dict:
        curves = self.curves_of(run)
        wanted = ["solve_rate", "reward", "mean_tokens", "entropy", "truncated"]
        return {"card": run.card(), "curves": curves.thinned(wanted)}

    def report(self, request: Request) -> Response:
        run = self.run_of(request)
        headers = {"content-security-policy": REPORT_POLICY}
        if "save" in request.query_params:
            plain = "".join(
                c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in run.name
            )
            headers["content-disposition"] = f'attachment; filename="{plain}.html"'
        try:
            page = report_html(run, request.query_params.getlist("pin"))
        except DataError as error:
            raise HTTPException(404, str(error)) from error
        return HTMLResponse(page.encode("utf-8", "replace"), headers=headers)

    # -- finding -----------------------------------------------------------------------------

    def run_of(self, request: Request) -> RunFolder:
        return self.find(request.path_params["run"])

    def find(self, name: str) -> RunFolder:
        run = self.runs.find(name)
        if run is None:
            raise HTTPException(404, f"no run {name!r} here")
        return run

    def index_of(self, request: Request):
        name = request.query_params.get("file", "")
        path = self.run_of(request).completion_file(name)
        if path is None:
            raise HTTPException(404, f"no completions {name!r} in this run")
        return self.shelf.index(path)

    def row_of(self, request: Request) -> tuple[dict, int]:
        """The completion that is asked for, and its place."""
        index = self.index_of(request)
        place = whole(request.query_params.get("place"), 0)
        if place >= len(index.entries):
            raise HTTPException(404, f"no completion {place} here")
        return index.rows([index.entries[place]])[0], place

    def curves_of(self, run: RunFolder) -> Curves:
        curves = kept(self._curves, run.name, lambda: Curves(run))
        curves.refresh()
        return curves


def kept(store: OrderedDict, key: str, make):
    """What is stored under a key, made where it is missing; the oldest goes when there are many."""
    found = store.pop(key, None) or make()
    store[key] = found
    while len(store) > KEPT_RUNS:
        store.popitem(last=False)
    return found


def paired_row(found: PairedComparison) -> dict:
    """A comparison without its completions."""
    return {
        "problems": found.problems,
        "rates": found.rates(),
        "intervals": found.intervals(),
        "gain": found.gain,
        "interval": found.interval,
        "verdict": found.verdict,
        "won": len(found.won),
        "lost": len(found.lost),
        "unmatched": found.unmatched,
    }


def whole(text: str | None, default: int | None) -> int | None:
    """A number out of an address; the default for nonsense."""
    usable = text is not None and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if usable else default


async def _refuse(request: Request, error: Exception) -> Json:
    if isinstance(error, HTTPException):
        return Json({"error": error.detail}, error.status_code)
    if isinstance(error, FileNotFoundError):
        return Json({"error": "that file is gone"}, 404)
    return Json({"error": f"{type(error).__name__}: {error}"}, 500)


def make_app(
    root: Path,
    host: str = "127.0.0.1",
    token: str | None = None,
    stream_completion: StreamCompletion | None = None,
) -> Starlette:
    """The dashboard over a folder of runs, or over one run folder. `speak` answers the chat; this
    room has no model of its own."""
    return Starlette(
        routes=Dashboard(RunsFolder(root), stream_completion).routes(),
        middleware=[Middleware(Guard, host=host, token=token)],
        exception_handlers={HTTPException: _refuse, OSError: _refuse, Exception: _refuse},
    )
