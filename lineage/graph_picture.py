"""The picture of a lineage's graph: laid out as the report lays it out."""

from graphlib import CycleError

from lineage.records import Lineage
from tasks import graph_layout
from tasks.graph_layout import Graph, Picture
from tasks.stage import PawlineError


def draw(lineage: Lineage) -> Picture:
    """Lay the graph of a lineage's stages out.

    Raises:
        PawlineError: The stages read each other in a circle.
    """
    try:
        return graph_layout.draw([stage.name for stage in lineage.stages], read_graph(lineage))
    except CycleError as error:
        raise PawlineError(
            f"dvc.lock of {lineage.name}: its stages read each other in a circle; `dvc repro` writes it anew"
        ) from error


def read_graph(lineage: Lineage) -> Graph:
    """Return what each stage reads of other stages."""
    index_of = {stage.name: index for index, stage in enumerate(lineage.stages)}
    return {
        index: sorted({index_of[artifact.stage] for artifact in stage.inputs if artifact.stage in index_of})
        for index, stage in enumerate(lineage.stages)
    }
