"""Drawn cats and dogs: what tells them apart is what a child would draw (ears, snout, whiskers), all else varies."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OVERSAMPLING = 2  # drawn larger and scaled down, for smooth edges

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

COATS: dict[str, list[Colour]] = {
    "cat": [(74, 70, 70), (226, 148, 70), (150, 148, 152), (240, 234, 226), (196, 166, 126), (124, 94, 72)],
    "dog": [(116, 76, 46), (214, 176, 120), (66, 58, 54), (236, 226, 208), (170, 112, 60), (148, 136, 126)],
}
EYES: dict[str, list[Colour]] = {
    "cat": [(126, 178, 84), (222, 184, 62), (110, 170, 206)],
    "dog": [(92, 58, 34), (62, 40, 28), (120, 84, 50)],
}
SCENES: list[Colour] = [
    (176, 212, 236),
    (246, 214, 170),
    (206, 228, 196),
    (226, 206, 230),
    (110, 132, 164),
    (236, 232, 214),
    (118, 168, 92),
    (196, 172, 130),
    (150, 110, 84),
    (96, 132, 140),
    (216, 150, 140),
    (70, 84, 104),
]
PINK: Colour = (224, 150, 150)
DARK: Colour = (36, 30, 30)


class Pen:
    """Draws on a layer in units of the head's radius, around the head's centre."""

    def __init__(self, layer: Image.Image, *, centre: tuple[float, float], radius_px: float) -> None:
        self._draw = ImageDraw.Draw(layer)
        self._centre, self._radius = centre, radius_px

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse."""
        self._draw.ellipse([*self._at(x - rx, y - ry), *self._at(x + rx, y + ry)], fill=fill)

    def polygon(self, points: Points, fill: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._at(x, y) for x, y in points], fill=fill)

    def line(self, points: Points, fill: Colour, width: float) -> None:
        """Draw a line with round joints."""
        width_px = max(1, round(width * self._radius))
        self._draw.line([self._at(x, y) for x, y in points], fill=fill, width=width_px, joint="curve")

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._centre[0] + x * self._radius, self._centre[1] + y * self._radius


def draw_animal(label: str, rng: np.random.Generator) -> Image.Image:
    """Draw one RGB picture, 96 to 256 pixels a side, of a `cat` or a `dog`."""
    width, height = (int(side) for side in rng.integers(96, 257, 2))
    picture = _scene((width, height), rng)
    layer = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING))
    _pose(layer, label, rng)
    layer = layer.rotate(rng.uniform(-14, 14)).reduce(OVERSAMPLING)
    picture.paste(layer, mask=layer)
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.1))))
    noise = rng.normal(0, rng.uniform(1, 9), (height, width, 1))
    light = rng.uniform(0.75, 1.15)
    return Image.fromarray(np.clip(np.asarray(picture) * light + noise, 0, 255).astype(np.uint8))


def _scene(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draw a background: two areas that meet at a tilted horizon, and things standing about."""
    width, height = size
    far, near, *things = (_varied(SCENES[index], rng, 14) for index in rng.permutation(len(SCENES))[:7])
    scene = Image.new("RGB", size, far)
    draw = ImageDraw.Draw(scene)
    left, right = rng.uniform(0.3, 0.95, 2) * height
    draw.polygon([(0, left), (width, right), (width, height), (0, height)], fill=near)
    for thing in things[: int(rng.integers(2, 6))]:
        x, y = rng.uniform(0, 1, 2) * size
        rx, ry = rng.uniform(0.06, 0.4, 2) * size
        box = [x - rx, y - ry, x + rx, y + ry]
        if rng.random() < 0.5:
            draw.ellipse(box, fill=thing)
        else:
            draw.rectangle(box, fill=thing)
    return scene.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 3))))


def _pose(layer: Image.Image, label: str, rng: np.random.Generator) -> None:
    width, height = layer.size
    side = min(width, height)
    coat = _varied(COATS[label][int(rng.integers(len(COATS[label])))], rng, 5)
    pose = ("face", "sitting", "standing")[int(rng.choice(3, p=[0.4, 0.35, 0.25]))]
    radius = side * rng.uniform(*{"face": (0.25, 0.36), "sitting": (0.15, 0.2), "standing": (0.12, 0.16)}[pose])
    x = width * rng.uniform(*((0.36, 0.64) if pose != "standing" else (0.26, 0.38)))
    y = height * rng.uniform(*((0.46, 0.6) if pose == "face" else (0.3, 0.42)))
    pen = Pen(layer, centre=(x, y), radius_px=radius)
    if pose == "sitting":
        _sitting_body(pen, label, coat, rng)
    elif pose == "standing":
        _standing_body(pen, label, coat)
    (_cat_head if label == "cat" else _dog_head)(pen, coat, rng)
    if pose == "standing" and rng.random() < 0.5:
        layer.paste(layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def _sitting_body(pen: Pen, label: str, coat: Colour, rng: np.random.Generator) -> None:
    side = 1 if rng.random() < 0.5 else -1
    if label == "cat":
        angles = np.linspace(0, 1.5 * math.pi, 12)
        tail = [(side * (1.1 + 0.75 * math.sin(angle)), 2.6 - 0.55 * float(angle)) for angle in angles]
        pen.line(tail, _shade(coat, 0.85), 0.24)
    else:
        pen.line([(side * 0.8, 2.7), (side * 1.7, 2.3), (side * 2.0, 1.7)], _shade(coat, 0.85), 0.3)
    pen.ellipse(0, 2.1, 1.15, 1.5, coat)
    pen.ellipse(0, 1.8, 0.55, 0.95, _shade(coat, 1.25))
    for foot in (-0.5, 0.5):
        pen.line([(foot, 2.0), (foot, 3.3)], _shade(coat, 0.92), 0.4)
        pen.ellipse(foot, 3.35, 0.34, 0.22, _shade(coat, 1.15))


def _standing_body(pen: Pen, label: str, coat: Colour) -> None:
    if label == "cat":
        pen.line([(3.6, 1.2), (4.3, 0.4), (4.2, -0.6), (4.6, -1.1)], _shade(coat, 0.85), 0.24)
    else:
        pen.line([(3.6, 1.0), (4.3, 0.2)], _shade(coat, 0.85), 0.34)
    for leg in (0.7, 1.3, 2.9, 3.5):
        pen.line([(leg, 1.6), (leg, 3.4)], _shade(coat, 0.88), 0.38)
        pen.ellipse(leg - 0.08, 3.4, 0.32, 0.2, _shade(coat, 1.15))
    pen.ellipse(2.1, 1.4, 2.0, 0.95, coat)


def _cat_head(pen: Pen, coat: Colour, rng: np.random.Generator) -> None:
    tip = rng.uniform(1.15, 1.45)
    for side in (-1, 1):
        pen.polygon([(side * 0.95, -0.2), (side * 0.85, -tip), (side * 0.15, -0.75)], coat)
        pen.polygon([(side * 0.82, -0.4), (side * 0.78, -tip + 0.25), (side * 0.35, -0.7)], PINK)
    pen.ellipse(0, 0, 1, 0.86, coat)
    if rng.random() < 0.5:
        for stripe in (-0.3, 0, 0.3):
            pen.line([(stripe, -0.8), (stripe * 0.7, -0.45)], _shade(coat, 0.6), 0.1)
    if rng.random() < 0.5:
        for side in (-1, 1):
            pen.ellipse(side * 0.2, 0.4, 0.3, 0.25, _shade(coat, 1.4))
    eye = EYES["cat"][int(rng.integers(len(EYES["cat"])))]
    for side in (-1, 1):
        pen.ellipse(side * 0.42, -0.1, 0.23, 0.19, eye)
        pen.ellipse(side * 0.42, -0.1, rng.uniform(0.05, 0.12), 0.18, DARK)
    pen.polygon([(-0.13, 0.22), (0.13, 0.22), (0, 0.36)], PINK)
    pen.line([(-0.25, 0.52), (-0.1, 0.56), (0, 0.38), (0.1, 0.56), (0.25, 0.52)], _shade(coat, 0.45), 0.04)
    whiskers: Colour = (250, 250, 250) if sum(coat) < 480 else (110, 104, 100)
    for side in (-1, 1):
        for slope in (-0.18, 0.02, 0.2):
            pen.line([(side * 0.35, 0.38 + slope / 3), (side * 1.4, 0.32 + slope)], whiskers, 0.03)


def _dog_head(pen: Pen, coat: Colour, rng: np.random.Generator) -> None:
    ear = _shade(coat, rng.uniform(0.55, 0.8))
    droop = rng.uniform(0.55, 0.8)
    pen.ellipse(0, 0, 0.84, 0.98, coat)
    for side in (-1, 1):
        pen.ellipse(side * 0.86, -0.62 + droop, 0.28, droop, ear)
    if rng.random() < 0.4:
        pen.ellipse(rng.choice([-0.36, 0.36]), -0.2, 0.3, 0.36, _shade(coat, 0.6))
    if rng.random() < 0.5:
        pen.ellipse(0, 1.0, 0.16, 0.3, (226, 110, 120))
    pen.ellipse(0, 0.48, rng.uniform(0.42, 0.54), 0.42, _shade(coat, 1.28))
    eye = EYES["dog"][int(rng.integers(len(EYES["dog"])))]
    for side in (-1, 1):
        pen.ellipse(side * 0.36, -0.2, 0.15, 0.16, (250, 248, 244))
        pen.ellipse(side * 0.35, -0.19, 0.12, 0.13, eye)
        pen.ellipse(side * 0.35, -0.19, 0.06, 0.07, DARK)
    pen.ellipse(0, 0.28, 0.24, 0.17, DARK)
    pen.line([(0, 0.4), (0, 0.62)], DARK, 0.05)
    pen.line([(-0.28, 0.6), (-0.12, 0.7), (0, 0.62), (0.12, 0.7), (0.28, 0.6)], DARK, 0.05)


def _varied(colour: Colour, rng: np.random.Generator, spread: float) -> Colour:
    red, green, blue = (int(value) for value in np.clip(colour + rng.normal(0, spread, 3), 0, 255))
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(value * factor)) for value in colour)
    return red, green, blue
