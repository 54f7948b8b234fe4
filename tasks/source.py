"""Look at the outside data, and stop early when something is wrong with it or with the parameters.

Reads   params.yaml (all of it is checked) and the place that `data.source` and `data.path` name
Writes  data/source.json, which changes if and only if the photos do
        data/weights.json, which changes if and only if the file that `backbone.path` names does
Run     python -m tasks.source

Always runs, in under a second when nothing changed: `dvc repro` then notices new photos and nothing else.
"""

import logging
from pathlib import Path

from tasks import stage
from tasks.params import BackboneParams, Params, check_params
from tasks.sources.digests import file_digest
from tasks.sources.fingerprint import fingerprint
from tasks.stage import PawlineError

log = logging.getLogger(__name__)


def source(*, source_out: Path, weights_out: Path, params: Params) -> None:
    """Write what identifies the source's content and the file of weights, if there is one.

    Raises:
        PawlineError: The source is missing, unreadable, damaged, hostile, empty, holds one class only or too many for
            the head; or the file of weights is missing.
    """
    facts = fingerprint(params.data)
    output = params.train_head.output
    if output in ("sigmoid", "logit") and facts.get("classes", 2) > 2:
        raise PawlineError(
            f"train_head.output is {output!r}: the source has {facts['classes']} classes; choose auto or softmax"
        )
    weights = _identify_weights(params.backbone)
    with stage.whole_file(source_out) as unfinished, stage.whole_file(weights_out) as unfinished_weights:
        stage.write_json(facts, unfinished)
        stage.write_json(weights, unfinished_weights)
    known = {key: value for key, value in facts.items() if value is not None}
    shown = ", ".join(
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in known.items()
    )
    log.info("%s, in %s", shown, source_out)


def _identify_weights(params: BackboneParams) -> dict[str, str]:
    """Return the digest of a file of weights; the other origins do not change."""
    if params.source != "file":
        return {"source": params.source}
    path = Path(params.path or "").expanduser()
    if not path.is_file():
        raise PawlineError(f"backbone.path is {params.path!r}: no such file; give the weights file of {params.name}")
    return {"source": "file", "sha256": file_digest(path)}


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--params", "params.yaml", "reads: parameters")
    stage.add_path(parser, "--source-out", "data/source.json", "writes: fingerprint of the outside data")
    stage.add_path(parser, "--weights-out", "data/weights.json", "writes: fingerprint of the weights file")
    args = parser.parse_args(argv)
    source(source_out=args.source_out, weights_out=args.weights_out, params=check_params(args.params))


if __name__ == "__main__":
    stage.run(main)
