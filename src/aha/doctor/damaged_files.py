"""Files of a run that are damaged, or no files of the run: what the other checks did not get to
see."""

from pathlib import Path

from aha.core.findings import Finding
from aha.store.guarded_files import read_all_rows
from aha.web.curves import Curves
from aha.web.runs import RunFolder

SHOWN = 4


def damaged_files(path: Path) -> list[Finding]:
    """One warning for all that cannot be read in a run folder; none for a whole one."""
    run = RunFolder(path.absolute())
    curves = Curves(run)
    curves.refresh()
    faults = [*run.faults(), *curves.faults()]
    tests = [file for name in ("before", "after") if (file := run.completion_file(name))]
    for file in (run.evals, run.findings_file, *tests):
        faults += read_all_rows(file)[1]
    faults = list(dict.fromkeys(faults))
    if not faults:
        return []
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    message = f"not read: {'; '.join(faults[:SHOWN])}{more}"
    fix = "copy these files anew from where the run was made; the other checks did without them"
    return [Finding("warn", message, fix, "files")]
