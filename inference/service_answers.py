"""What the service answers with: the schemas that `/openapi.json` shows."""

from typing import Any

from pydantic import BaseModel

IMAGE_BYTES = {"type": "string", "format": "binary"}
# What FastAPI cannot see: the body is read by hand, so that nothing reads more of it than is allowed.
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "array", "items": IMAGE_BYTES}},
            }
        },
        "image/*": {"schema": IMAGE_BYTES},
        "application/octet-stream": {"schema": IMAGE_BYTES},
    },
}


class ModelFacts(BaseModel):
    """Which model answers."""

    name: str
    digest: str
    engine: str
    precision: str
    labels: list[str]


class Problem(BaseModel):
    """Why there is no answer: in one word for programs, in one line for people."""

    reason: str
    message: str


class Answer(BaseModel):
    """The answer to one file: a class, or `unsure`, with the probability of the likeliest class."""

    name: str | None
    label: str
    probability: float
    probabilities: dict[str, float]


class Unreadable(BaseModel):
    """A file among several that is not an image, or not a whole one."""

    name: str | None
    error: Problem


class Answers(BaseModel):
    """The answers to a request's files, in their order."""

    model: ModelFacts
    answers: list[Answer | Unreadable]


class Health(BaseModel):
    """Whether photos would be answered now."""

    ready: bool
    model: ModelFacts


class Refusal(BaseModel):
    """The body of every answer with a status of 400 or more, but for `/healthz`."""

    error: Problem


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in (
        (403, "A page of another site asks, or for another host."),
        (408, "The body came too slowly."),
        (413, "The body is too large."),
        (415, "The body is of another type."),
        (422, "There is no image in the body that can be read."),
        (503, "Too many photos are waiting: try again after the seconds of Retry-After."),
    )
}
