"""What a run prints at its end is what its workload gives, whatever the workload is."""

import dataclasses
import io
import json
from pathlib import Path

from rich.console import Console
from stub_workload import STUB

from hpcxrf.cli.run_display import print_result
from hpcxrf.cluster.local.run import RunResult
from hpcxrf.runner.ending import RunEnd
from hpcxrf.runner.hooks import Ended
from hpcxrf.runner.printout import Coloured, Line, Printout, TextTable
from hpcxrf.store.rundir import RunDir


def result_of(path, workload, **ended):
    end = RunEnd(run=RunDir(path=path), wall_s=2.0, device="", command="", started="", notes=())
    return RunResult(workload=workload, ended=Ended(**ended), end=end, workers=3, summary={"lines": 7}, wall_s=2.5)


def printed(result, **options):
    out = io.StringIO()
    print_result(Console(file=out, width=60, highlight=False), result, ["hpcxrf", "run"], **options)
    return out.getvalue()


def test_a_workload_with_nothing_of_its_own_says_what_is_done_and_what_failed(tmp_path):
    text = printed(result_of(tmp_path, STUB, done=2, failed=1, reasons={"a-1": "no [bold]spectra[/] in it"}))
    assert "failed a-1: no [bold]spectra[/] in it" in text
    assert "2 of 3 datasets done in 2.5 s" in text
    assert f"page: {Path(tmp_path) / STUB.page}" in text


def test_a_new_workload_prints_its_own_tables_and_values_without_a_change_of_the_command_line(tmp_path, capsys):
    def describe(finished):
        peaks = TextTable(title="peaks of [x]", columns=("q", "n"), numbers=frozenset({"n"}), rows=(("[1]", "12"),))
        workers = f" {finished.workers} workers, {finished.summary['lines']} lines, {finished.command[1]}"
        return Printout(parts=(peaks, Line((Coloured("good", "green"), workers))), values={"peaks": 12})

    result = result_of(tmp_path, dataclasses.replace(STUB, describe=describe), done=1)
    text = printed(result, as_json=True)
    assert "peaks of [x]" in text
    assert "[1]" in text
    assert "good 3 workers, 7 lines, run" in text
    assert json.loads(capsys.readouterr().out) == {"peaks": 12}


def test_a_line_longer_than_the_terminal_stays_one_line(tmp_path):
    def describe(_finished):
        return Printout(parts=(Line(("page: " + "x" * 90,)),))

    assert printed(result_of(tmp_path, dataclasses.replace(STUB, describe=describe))) == "page: " + "x" * 90 + "\n"
