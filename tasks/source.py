"""Look at the outside data, and stop early when something is wrong with it or with the parameters.

Reads   params.yaml (all of it is checked) and the place that `data.source` and `data.path` name
Writes  data/source.json, which changes if and only if the photos do
Run     python -m tasks.source

Always runs, in under a second when nothing changed: `dvc repro` then notices new photos and nothing else.
"""

import json
import logging
from pathlib import Path

from tasks import stage
from tasks.params import DataParams, check_params
from tasks.sources.fingerprint import fingerprint

LOG = logging.getLogger(__name__)


def source(*, source_out: Path, params: DataParams) -> None:
    """Write what identifies the source's content.

    Raises:
        PawlineError: The source is missing, unreadable, damaged, hostile, empty, or holds one class only.
    """
    facts = fingerprint(params)
    with stage.whole_file(source_out) as out:
        out.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shown = ", ".join(
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in facts.items()
    )
    LOG.info("%s, in %s", shown, source_out)


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--source-out", "data/source.json", "fingerprint of the outside data")
    args = parser.parse_args(argv)
    source(source_out=args.source_out, params=check_params(args.params).data)


if __name__ == "__main__":
    stage.run(main)
