"""The 16 classes of Shapes: furniture and household objects as random assemblies of solids.

Classes come in families that differ in one trait (stool and chair in the back, cup and vase in the handle)
while their proportions overlap.
"""

from collections.abc import Callable

import numpy as np

from dgcnn_ws.datasets.solids import Triangles, box, curve, disc, grip, revolve, rod, sheet, turn

PART_NAMES = [
    "arm",
    "back",
    "base",
    "body",
    "door",
    "drawer",
    "handle",
    "leg",
    "seat",
    "shade",
    "shelf",
    "top",
]
OPTIONAL_PARTS = {"arm", "door", "drawer", "handle", "leg", "shelf"}

Piece = tuple[str, Triangles]  # a part name and its surface
Random = np.random.Generator


# ---- pieces that several classes share


def stand(rng: Random, width: float, depth: float, height: float, styles: str) -> list[Piece]:
    """What carries a top: `styles` is a choice of (r)ods, (p)osts, (s)ide panels, (c)olumn on a base."""
    style = rng.choice(list(styles))
    x, z, thick = width / 2, depth / 2, rng.uniform(0.03, 0.09)
    if style == "c":
        radius = rng.uniform(0.25, 0.45) * min(width, depth)
        base = disc(0, radius, 0.06) if rng.random() < 0.6 else box(0, 0, 0, 2 * radius, 0.06, 2 * radius)
        return [("leg", rod((0, 0, 0), (0, height, 0), 1.3 * thick)), ("base", base)]
    if style == "s":
        panel = depth * rng.uniform(0.7, 1)
        return [("leg", box(side * (x - thick), 0, 0, thick, height, panel)) for side in (-1, 1)]
    pieces: list[Piece] = []
    splay, inset = rng.uniform(1, 1.25), rng.uniform(0.7, 0.95)
    for i, j in ((-x, -z), (-x, z), (x, -z), (x, z)):
        if style == "p":
            leg = box(i * inset, 0, j * inset, 1.6 * thick, height, 1.6 * thick)
        else:
            foot = (i * inset * splay, 0, j * inset * splay)
            leg = rod(foot, (i * inset, height, j * inset), thick / 2, thick)
        pieces.append(("leg", leg))
    if rng.random() < 0.3:
        y = height * rng.uniform(0.15, 0.5)
        for rail in (-0.85 * z, 0.85 * z):
            pieces.append(("leg", rod((-0.85 * x, y, rail), (0.85 * x, y, rail), thick / 2)))
    return pieces


def slab(rng: Random, y: float, width: float, depth: float, thick: float, round_share: float) -> Triangles:
    """A horizontal top or seat: a box, or with probability `round_share` an ellipse."""
    if rng.random() < round_share:
        return disc(y, width / 2, thick, depth / width)
    return box(0, y, 0, width, thick, depth)


def backrest(rng: Random, y: float, z: float, width: float, height: float) -> list[Piece]:
    """A back that rises from (y, z): a panel, slats between rails, or a bent sheet; leaning backwards."""
    thick, lean, style = rng.uniform(0.03, 0.1), rng.uniform(-0.3, 0.05), rng.choice(3)
    if style == 0:
        surfaces = [box(0, y, z, width, height, thick)]
    elif style == 1:
        count = int(rng.integers(2, 6))
        places = np.linspace(-width / 2 + 0.04, width / 2 - 0.04, count)
        surfaces = [box(x, y, z, 0.06, height, thick) for x in places]
        surfaces.append(box(0, y + height * 0.8, z, width, height * 0.2, thick))
    else:
        u, v = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(0, 1, 5), indexing="ij")
        bend = rng.uniform(0.1, 0.3) * width
        surfaces = [sheet(np.stack([u * width / 2, y + v * height, z - bend * (1 - u**2) + bend], axis=-1))]
    return [("back", turn(surface, 0, lean, (0, y, z))) for surface in surfaces]


def armrests(rng: Random, y: float, width: float, depth: float, height: float, solid: bool) -> list[Piece]:
    """Two arms on height y: solid blocks outside the seat, or rails on a post."""
    thick = rng.uniform(0.15, 0.35) if solid else rng.uniform(0.05, 0.1)
    pieces: list[Piece] = []
    for side in (-1, 1):
        x = side * (width / 2 + (thick / 2 if solid else 0))
        if solid:
            pieces.append(("arm", box(x, y, 0, thick, height, depth)))
        else:
            pieces.append(("arm", box(x, y + height, 0, thick, 0.06, depth * 0.9)))
            pieces.append(("arm", rod((x, y, depth * 0.35), (x, y + height, depth * 0.35), 0.03)))
    return pieces


def fronts(
    rng: Random, part: str, x: float, y: float, z: float, width: float, height: float, columns: int, rows: int
) -> list[Piece]:
    """A grid of drawer fronts or doors on the plane z, each with its handle."""
    pieces: list[Piece] = []
    style, proud = rng.choice(3), rng.uniform(0.03, 0.08)
    cell_width, cell_height = width / columns, height / rows
    for column in range(columns):
        for row in range(rows):
            cx, cy = x - width / 2 + (column + 0.5) * cell_width, y + row * cell_height
            middle, bottom = cy + cell_height / 2, cy + 0.06 * cell_height
            front = box(cx, bottom, z + proud / 2, 0.9 * cell_width, 0.88 * cell_height, proud)
            pieces.append((part, front))
            if part == "door":
                cx += 0.35 * cell_width * (1 if column % 2 == 0 else -1)
            if style == 0:
                pieces.append(("handle", box(cx, middle - 0.02, z + proud + 0.03, 0.06, 0.06, 0.06)))
            elif style == 1:
                wide, tall = (0.04, 0.25) if part == "door" else (0.35 * cell_width, 0.04)
                pieces.append(("handle", box(cx, middle - tall / 2, z + proud + 0.03, wide, tall, 0.05)))
    return pieces


def feet(rng: Random, width: float, depth: float, height: float) -> list[Piece]:
    """Short support under a body: four feet, or a plinth."""
    if rng.random() < 0.5:
        return [("base", box(0, 0, 0, 0.92 * width, height, 0.92 * depth))]
    return stand(rng, width, depth, height, "rp")


# ---- classes


def bed(rng: Random) -> list[Piece]:
    width, length = rng.uniform(1.0, 2.0), rng.uniform(1.8, 2.3)
    base, mattress = rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.4)
    pieces = [("body", box(0, base, 0, width, mattress, length)), *feet(rng, width, length, base)]
    pieces += backrest(rng, 0, -length / 2, width, base + mattress + rng.uniform(0.05, 0.8))
    if rng.random() < 0.5:
        pieces.append(("base", box(0, 0, length / 2, width, base + mattress + rng.uniform(-0.1, 0.4), 0.07)))
    if rng.random() < 0.6:
        count = int(rng.integers(1, 3))
        for x in (np.arange(count) - (count - 1) / 2) * width / count:
            pillow = box(x, base + mattress, -length * 0.36, 0.8 * width / count, 0.12, 0.35, 0.8)
            pieces.append(("top", pillow))
    return pieces


def bench(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(1.3, 2.6), rng.uniform(0.45, 0.85), rng.uniform(0.45, 0.8)
    seat = box(0, height, 0, width, rng.uniform(0.05, 0.15), depth)
    pieces = [("seat", seat), *stand(rng, width, depth, height, "rps")]
    if rng.random() < 0.45:
        pieces += backrest(rng, height, -depth / 2, width, rng.uniform(0.3, 0.8))
        if rng.random() < 0.5:
            pieces += armrests(rng, height, width, depth, rng.uniform(0.2, 0.4), False)
    return pieces


def bookshelf(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.7, 1.5), rng.uniform(1.1, 2.2), rng.uniform(0.3, 0.55)
    thick, count = rng.uniform(0.03, 0.07), int(rng.integers(2, 7))
    pieces: list[Piece] = [("body", box(s * width / 2, 0, 0, thick, height, depth)) for s in (-1, 1)]
    for part, y in (("base", 0.05), ("top", height)):
        pieces.append((part, box(0, y, 0, width, thick, depth)))
    pieces += [("shelf", box(0, y, 0, width, thick, depth)) for y in np.linspace(0, height, count + 2)[1:-1]]
    if rng.random() < 0.6:
        pieces.append(("back", box(0, 0, -depth / 2, width, height, 0.02)))
    if rng.random() < 0.3:
        pieces += fronts(rng, "door", 0, 0.05, depth / 2, width, height * rng.uniform(0.25, 0.6), 2, 1)
    return pieces


def bottle(rng: Random) -> list[Piece]:
    radius, height = rng.uniform(0.2, 0.42), rng.uniform(0.8, 1.2)
    oval = rng.choice([1.0, rng.uniform(0.5, 1)])
    neck, shoulder = radius * rng.uniform(0.25, 0.6), rng.uniform(0.5, 0.8) * height
    radii, heights = curve([radius, radius * rng.uniform(0.85, 1), radius], shoulder)
    slope_radii, slope_heights = curve([radius, neck], height * rng.uniform(0.08, 0.25))
    pieces = [
        ("base", disc(0, radius, 0.01, oval)),
        ("body", revolve(radii, heights, oval)),
        ("body", revolve(slope_radii, slope_heights + shoulder, oval)),
        ("body", revolve([neck, neck], [slope_heights[-1] + shoulder, height * 1.1], oval)),
    ]
    if rng.random() < 0.5:
        pieces.append(("top", disc(height * 1.02, neck * 1.2, height * 0.12, oval)))
    if rng.random() < 0.15:
        pieces.append(("handle", grip(radius * 0.9, shoulder * 0.7, 0.15, shoulder * 0.5, 0.03)))
    return pieces


def chair(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(0.75, 1.1), rng.uniform(0.75, 1.1), rng.uniform(0.6, 1.2)
    seat = slab(rng, height, width, depth, rng.uniform(0.05, 0.2), 0.25)
    pieces = [("seat", seat), *stand(rng, width, depth, height, "rrppcs")]
    pieces += backrest(rng, height, -depth * 0.45, width * rng.uniform(0.7, 1), rng.uniform(0.25, 1.2))
    if rng.random() < 0.35:
        pieces += armrests(rng, height, width, depth, rng.uniform(0.25, 0.45), bool(rng.random() < 0.3))
    return pieces


def cup(rng: Random) -> list[Piece]:
    radius, height = rng.uniform(0.3, 0.5), rng.uniform(0.5, 1.1)
    bottom = radius * rng.uniform(0.55, 1.05)
    radii, heights = curve([bottom, (bottom + radius) / 2 * rng.uniform(0.9, 1.2), radius], height)
    pieces = [
        ("base", disc(0, bottom, 0.02)),
        ("body", revolve(radii, heights)),
        ("body", revolve(radii * 0.9, heights)),
    ]
    if rng.random() < 0.85:
        reach, tall = rng.uniform(0.15, 0.35), height * rng.uniform(0.35, 0.75)
        pieces.append(("handle", grip(radii[8] * 0.95, height / 2, reach, tall, rng.uniform(0.025, 0.06))))
    if rng.random() < 0.15:
        pieces.append(("base", revolve([0, radius * 1.1, radius * 1.6], [-0.02, -0.02, 0.08])))
    return pieces


def desk(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(1.2, 2.2), rng.uniform(0.65, 1.1), rng.uniform(0.7, 1.05)
    pieces = [("top", box(0, height, 0, width, rng.uniform(0.04, 0.1), depth))]
    left, right = rng.random(2) < 0.6
    for side, present in ((-1, left), (1, right)):
        if present:
            block, tall = rng.uniform(0.25, 0.4) * width, height * rng.uniform(0.4, 1)
            x = side * (width - block) / 2
            pieces.append(("body", box(x, height - tall, 0, block, tall, depth * 0.95)))
            rows = int(rng.integers(1, 4))
            pieces += fronts(rng, "drawer", x, height - tall, depth * 0.475, block, tall, 1, rows)
    if not (left and right):
        pieces += stand(rng, width, depth, height, "ps")
    if rng.random() < 0.5:
        pieces.append(("back", box(0, height * 0.35, -depth * 0.45, width, height * 0.65, 0.03)))
    if rng.random() < 0.25:
        pieces.append(("shelf", box(0, height + 0.4, -depth * 0.35, width, 0.05, depth * 0.3)))
        for x in (-0.48 * width, 0.48 * width):
            pieces.append(("body", box(x, height, -depth * 0.35, 0.05, 0.4, depth * 0.3)))
    return pieces


def dresser(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.7, 1.6), rng.uniform(0.65, 1.3), rng.uniform(0.4, 0.65)
    lift, columns, rows = rng.uniform(0.03, 0.25), int(rng.integers(1, 4)), int(rng.integers(2, 6))
    pieces = [("body", box(0, lift, 0, width, height, depth)), *feet(rng, width, depth, lift)]
    pieces.append(("top", box(0, lift + height, 0, width * 1.05, 0.05, depth * 1.05)))
    pieces += fronts(rng, "drawer", 0, lift, depth / 2, width, height, columns, rows)
    if rng.random() < 0.2:
        pieces.append(("back", box(0, lift + height, -depth * 0.4, width * 0.7, rng.uniform(0.4, 0.8), 0.04)))
    return pieces


def lamp(rng: Random) -> list[Piece]:
    height, radius, pole = rng.uniform(0.7, 1.8), rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.05)
    shade, tall = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5)
    pieces: list[Piece] = [("base", disc(0, radius, rng.uniform(0.03, 0.1)))]
    lean = rng.choice([0.0, rng.uniform(0.2, 0.9)])
    if rng.random() < 0.35:
        radii, heights = curve([radius * 0.6, radius * rng.uniform(0.5, 1.2), pole], height)
        pieces.append(("body", revolve(radii, heights)))
    else:
        pieces.append(("body", rod((0, 0, 0), (0, height, 0), pole)))
    top = revolve([shade, shade * rng.uniform(0.3, 1)], [height - tall / 3, height + tall * 2 / 3])
    if lean:
        elbow = (0.0, height, 0.0)
        tip = (lean * 0.8, height + rng.uniform(-0.2, 0.3), 0.0)
        pieces.append(("arm", rod(elbow, tip, pole)))
        top = turn(top, 2, rng.uniform(0, 0.8), elbow) + np.subtract(tip, elbow)
    return [*pieces, ("shade", top)]


def monitor(rng: Random) -> list[Piece]:
    width, height, lift = rng.uniform(1.0, 1.8), rng.uniform(0.6, 1.1), rng.uniform(0.1, 0.45)
    deep = rng.random() < 0.3
    thick, tilt = rng.uniform(0.05, 0.15), rng.uniform(-0.25, 0.1)
    screen = [box(0, lift, 0, width, height, thick)]
    if deep:
        bulge = box(0, 0, 0, 0.9 * width, rng.uniform(0.3, 0.8), 0.9 * height, rng.uniform(0.4, 0.8))
        screen.append(np.add(turn(bulge, 0, -np.pi / 2), (0, lift + height / 2, -thick / 2)))
    pieces: list[Piece] = [("body", turn(surface, 0, tilt, (0, lift, 0))) for surface in screen]
    foot = rng.uniform(0.2, 0.4) * width
    base = disc(0, foot, 0.05, 0.7) if rng.random() < 0.5 else box(0, 0, 0, 2 * foot, 0.05, foot)
    pieces.append(("base", base))
    pieces.append(("leg", box(0, 0, -thick / 2, rng.uniform(0.08, 0.4), lift + 0.4 * height, 0.06)))
    return pieces


def night_stand(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.5, 0.85), rng.uniform(0.45, 0.9), rng.uniform(0.4, 0.65)
    lift = rng.uniform(0.05, 0.5)
    pieces = [("body", box(0, lift, 0, width, height, depth)), *feet(rng, width, depth, lift)]
    pieces.append(("top", box(0, lift + height, 0, width * 1.08, 0.05, depth * 1.08)))
    part, rows = ("door", 1) if rng.random() < 0.25 else ("drawer", int(rng.integers(1, 4)))
    pieces += fronts(rng, part, 0, lift, depth / 2, width, height, 1, rows)
    if lift > 0.25:
        pieces.append(("shelf", box(0, lift * 0.3, 0, width * 0.95, 0.04, depth * 0.95)))
    return pieces


def sofa(rng: Random) -> list[Piece]:
    width, depth, lift = rng.uniform(1.2, 2.4), rng.uniform(0.75, 1.15), rng.uniform(0.05, 0.3)
    seat, back = rng.uniform(0.25, 0.45), rng.uniform(0.3, 0.75)
    pieces = [("seat", box(0, lift, 0, width, seat, depth)), *feet(rng, width, depth, lift)]
    rise = box(0, lift, -depth / 2, width, seat + back, rng.uniform(0.15, 0.35))
    pieces.append(("back", turn(rise, 0, rng.uniform(-0.25, 0), (0, lift, -depth / 2))))
    if rng.random() < 0.85:
        pieces += armrests(rng, lift, width, depth, seat + rng.uniform(0.1, 0.4), bool(rng.random() < 0.85))
    count = int(rng.integers(0, 4))
    for x in (np.arange(count) - (count - 1) / 2) * width / max(count, 1):
        pieces.append(("seat", box(x, lift + seat, 0.05, 0.95 * width / count, 0.12, depth * 0.85, 0.92)))
    return pieces


def stool(rng: Random) -> list[Piece]:
    width, height = rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.7)
    depth = width * rng.uniform(0.8, 1.1)
    seat = slab(rng, height, width, depth, rng.uniform(0.05, 0.25), 0.55)
    pieces = [("seat", seat), *stand(rng, width, depth, height, "rrpc")]
    if rng.random() < 0.2:
        pieces += backrest(rng, height, -depth * 0.45, width * 0.8, rng.uniform(0.12, 0.35))
    if rng.random() < 0.3:
        ring, y = 0.4 * width, height * rng.uniform(0.2, 0.5)
        pieces.append(("leg", revolve([ring, ring * 1.1, ring], [y, y + 0.03, y + 0.06])))
    return pieces


def table(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(0.9, 2.2), rng.uniform(0.7, 1.3), rng.uniform(0.45, 1.15)
    top = slab(rng, height, width, depth, rng.uniform(0.04, 0.12), 0.35)
    pieces = [("top", top), *stand(rng, width, depth, height, "rrppsc")]
    if rng.random() < 0.3:
        pieces.append(("base", box(0, height - 0.12, 0, width * 0.85, 0.12, depth * 0.8)))
    if rng.random() < 0.25:
        pieces.append(("shelf", box(0, height * rng.uniform(0.15, 0.5), 0, width * 0.8, 0.04, depth * 0.75)))
    if rng.random() < 0.15:
        columns = int(rng.integers(1, 3))
        pieces += fronts(rng, "drawer", 0, height - 0.2, depth / 2, width * 0.6, 0.2, columns, 1)
    return pieces


def vase(rng: Random) -> list[Piece]:
    height, foot = rng.uniform(0.7, 1.3), rng.uniform(0.15, 0.35)
    radii = [foot, rng.uniform(0.25, 0.5), rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.45)]
    if rng.random() < 0.3:
        radii = [foot, foot * rng.uniform(1.1, 2)]
    outline, heights = curve(radii, height)
    pieces = [("base", disc(0, foot, 0.02)), ("body", revolve(outline, heights))]
    if rng.random() < 0.5:
        pieces.append(("body", revolve(outline * 0.92, heights)))
    if rng.random() < 0.2:
        for side in (0, np.pi):
            handle = grip(outline[9] * 0.95, height * 0.6, 0.15, height * 0.35, 0.03)
            pieces.append(("handle", turn(handle, 1, side)))
    return pieces


def wardrobe(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.7, 1.6), rng.uniform(1.2, 2.2), rng.uniform(0.4, 0.75)
    lift, columns = rng.uniform(0.03, 0.2), int(rng.integers(1, 4))
    pieces = [("body", box(0, lift, 0, width, height, depth)), *feet(rng, width, depth, lift)]
    pieces.append(("top", box(0, lift + height, 0, width * 1.06, 0.06, depth * 1.06)))
    drawers = height * rng.uniform(0.12, 0.4) if rng.random() < 0.5 else 0.0
    if drawers:
        pieces += fronts(rng, "drawer", 0, lift, depth / 2, width, drawers, columns, 1)
    pieces += fronts(rng, "door", 0, lift + drawers, depth / 2, width, height - drawers, columns, 1)
    return pieces


CLASSES: dict[str, Callable[[Random], list[Piece]]] = {
    maker.__name__: maker
    for maker in (
        bed, bench, bookshelf, bottle, chair, cup, desk, dresser,
        lamp, monitor, night_stand, sofa, stool, table, vase, wardrobe,
    )
}  # fmt: skip
