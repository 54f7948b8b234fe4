"""Great Expectations' Data Docs, made reproducible and readable from disk without a network.

Great Expectations renders each result; the page around it is ours, because theirs loads scripts, styles and a logo
from eight hosts, holds run times and random ids, and does not escape what stands in its tables.
"""

import copy
import html
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.expectations import SuiteRun, Table

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

STYLESHEET = Path(__file__).with_name("data_docs.css")
MOST_ROWS_SHOWN = 40
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="data_docs.css">
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def write_data_docs(runs: Sequence[SuiteRun], by_reason: Mapping[str, int], out_dir: Path) -> None:
    """Write index.html, one page a suite, and their stylesheet.

    Args:
        runs: Suites with their results.
        by_reason: Quarantined files by reason.
        out_dir: An empty folder.
    """
    shutil.copyfile(STYLESHEET, out_dir / STYLESHEET.name)
    _write_page(out_dir / "index.html", "Data validation", _index_body(runs, by_reason))
    for run in runs:
        _write_page(out_dir / _page_name(run), run.table.name, _suite_body(run))


def _write_page(path: Path, title: str, body: str) -> None:
    page = PAGE.format(title=html.escape(title), body=body)
    path.write_text("\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n", encoding="utf-8")


def _page_name(run: SuiteRun) -> str:
    return run.table.name.lower().replace(" ", "-") + ".html"


def _index_body(runs: Sequence[SuiteRun], by_reason: Mapping[str, int]) -> str:
    suites = "".join(
        f'<tr><td>{_status(run)}</td><td><a href="{_page_name(run)}">{html.escape(run.table.name)}</a></td>'
        f"<td>{html.escape(run.table.about)}</td><td>{_met(run)}</td></tr>"
        for run in runs
    )
    reasons = "".join(f"<tr><td>{html.escape(reason)}</td><td>{n:,}</td></tr>" for reason, n in by_reason.items())
    return (
        "<h1>Data validation</h1><p>What Great Expectations found in the source, and in what was kept of it.</p>"
        "<table><thead><tr><th>Status</th><th>Suite</th><th>What it looks at</th><th>Expectations met</th></tr></thead>"
        f"<tbody>{suites}</tbody></table>"
        "<h2>Quarantined files</h2><p>None is deleted; data/images.parquet says of each what was seen.</p>"
        "<table><thead><tr><th>Reason</th><th>Files</th></tr></thead>"
        f"<tbody>{reasons or '<tr><td>none</td><td>0</td></tr>'}</tbody></table>"
    )


def _suite_body(run: SuiteRun) -> str:
    return (
        '<nav><a href="index.html">Data validation</a></nav>'
        f"<h1>{html.escape(run.table.name)} {_status(run)}</h1>"
        f"<p>{html.escape(run.table.about)} {_met(run)} expectations met; {_row_count(run.table):,} rows.</p>"
        f"{_rows(run.table)}{_rendered_sections(run.result)}"
    )


def _rows(table: Table) -> str:
    """Show a small table whole."""
    if _row_count(table) > MOST_ROWS_SHOWN:
        return ""
    header = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = zip(*table.columns.values(), strict=True)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def _status(run: SuiteRun) -> str:
    return (
        '<span class="badge text-success">met</span>'
        if run.result.success
        else '<span class="badge text-danger">not met</span>'
    )


def _met(run: SuiteRun) -> str:
    return f"{sum(bool(result.success) for result in run.result.results)} of {len(run.result.results)}"


def _row_count(table: Table) -> int:
    return len(table.columns[table.named_by])


def _rendered_sections(result: "ExpectationSuiteValidationResult") -> str:
    """Let Great Expectations render the results, a section a column."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaSectionView

    renderer = ValidationResultsPageRenderer(run_info_at_end=True)
    sections = renderer.render(_with_notes(result)).to_json_dict()["sections"]
    view: Any = DefaultJinjaSectionView()
    without_overview_and_run_info = sections[1:-1]
    return "".join(
        view.render({"section": _safe(section), "section_loop": {"index": number}})
        for number, section in enumerate(without_overview_and_run_info, start=1)
    )


def _with_notes(result: "ExpectationSuiteValidationResult") -> "ExpectationSuiteValidationResult":
    """Put each expectation's notes under its description, where the page shows them."""
    result = copy.deepcopy(result)
    for each in result.results:
        config = each.expectation_config
        if config is not None and config.notes:
            config.description = f"{config.description}\n{config.notes}"
    return result


def _safe(block: Any) -> Any:  # noqa: ANN401 - nested JSON
    """Escape the text of table cells, and drop the folded-in pandas code, whose element ids are random."""
    if isinstance(block, list):
        return [_safe(item) for item in block if not _is_folded(item)]
    if isinstance(block, dict):
        escaped = {key: _safe(value) for key, value in block.items()}
        if "table" in block:
            escaped["table"] = [[_escaped_cell(cell) for cell in row] for row in escaped["table"]]
        return escaped
    return block


def _is_folded(block: Any) -> bool:  # noqa: ANN401 - nested JSON
    return isinstance(block, dict) and block.get("content_block_type") == "collapse"


def _escaped_cell(cell: Any) -> Any:  # noqa: ANN401 - nested JSON
    return html.escape(cell) if isinstance(cell, str) else cell
