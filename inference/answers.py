"""Photos in, answers out: a few at a time, in the order of the photos."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from inference.classifier import Classifier
from inference.engines import Images
from inference.inputs import Photo
from inference.threads import map_threads
from tasks.images import UndecodableError
from tasks.parallel import available_processors
from tasks.stage import PawlineError

UNSURE = "unsure"


@dataclass(frozen=True)
class Answer:
    """What is said of one photo.

    Attributes:
        photo: Which.
        label: The class; `unsure` if it is withheld; None if the photo could not be read.
        predicted: The likeliest class, withheld or not.
        probability: Of that class, 0-1.
        probabilities: Of each class, in the order of the labels.
        reason: Why it could not be read, in one word as in quarantine, or empty; `evidence` is what was seen.
        content: The photo's bytes, and `image` what the network saw of it; kept only if that was asked for.
    """

    photo: Photo
    label: str | None = None
    predicted: str | None = None
    probability: float | None = None
    probabilities: tuple[float, ...] = ()
    reason: str = ""
    evidence: str = ""
    content: bytes | None = None
    image: Images | None = None


def answer(
    photos: Iterable[Photo], classifier: Classifier, *, unsure_below: float = 0.0, keep: bool = False
) -> Generator[Answer, None, None]:
    """Yield an answer for each photo, in order; a bounded number is in memory at a time.

    Args:
        photos: What to answer.
        classifier: Best loaded for one thread a call: every processor has a photo of its own in hand.
        unsure_below: A class less probable than this is withheld.
        keep: Keep bytes and image of each photo in its answer.
    """
    function = partial(_answer_one, classifier=classifier, unsure_below=unsure_below, keep=keep)
    with closing(map_threads(function, photos, workers=available_processors())) as answers:
        yield from answers


def check_unsure(unsure_below: float | None, labels: list[str]) -> None:
    """Refuse to withhold answers where `unsure` is a class as well.

    Raises:
        PawlineError: It would be the name of both.
    """
    if unsure_below and UNSURE in labels:
        raise PawlineError(
            f"--unsure-below: this classifier has a class named {UNSURE}, which would not be told from a withheld "
            "answer: leave the option out, and go by the probabilities"
        )


def _answer_one(photo: Photo, *, classifier: Classifier, unsure_below: float, keep: bool) -> Answer:
    content = None
    try:
        content = photo.read()
        image = classifier.prepare(content)
    except UndecodableError as error:
        return Answer(photo, reason=error.reason, evidence=error.evidence, content=content if keep else None)
    probs = classifier.probabilities(image[None])[0]
    predicted, probability = classifier.labels[int(probs.argmax())], float(probs.max())
    return Answer(
        photo,
        label=predicted if probability >= unsure_below else UNSURE,
        predicted=predicted,
        probability=probability,
        probabilities=tuple(map(float, probs)),
        content=content if keep else None,
        image=image if keep else None,
    )
