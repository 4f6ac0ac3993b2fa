"""What the egl renderer draws: a lit icosahedron that tumbles and drifts, in the colours of its instance."""

from __future__ import annotations

import colorsys
import math
import zlib
from array import array
from itertools import combinations

from procs.headless_agent import gl

TURN_S = 6.0
_GOLDEN = (1 + math.sqrt(5)) / 2

_VERTEX = """
layout(location = 0) in vec3 corner;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec3 colour;
uniform mat3 turn;
uniform float aspect;
uniform float drift;
flat out vec3 shade;
const vec3 light = vec3(0.36, 0.48, 0.80);
void main() {
    vec3 at = turn * corner + vec3(drift, 0.0, -3.2);
    shade = colour * (0.25 + 0.75 * max(0.0, dot(turn * normal, light)));
    gl_Position = vec4(at.x * 2.2 / aspect, -at.y * 2.2, at.z + 2.0, -at.z);  // y turned: row 0 is the top
}
"""
_FRAGMENT = """
flat in vec3 shade;
out vec4 pixel;
void main() { pixel = vec4(shade, 1.0); }
"""

Vector = tuple[float, float, float]
Face = tuple[Vector, Vector, Vector]


def icosahedron() -> list[Face]:
    """Its twenty faces, corners anticlockwise seen from outside, circumscribed radius 1."""
    size = math.hypot(1, _GOLDEN)
    near, far = 1 / size, _GOLDEN / size
    corners: list[Vector] = []
    for short in (near, -near):
        for long in (far, -far):
            corners += [(0, short, long), (short, long, 0), (long, 0, short)]
    faces: list[Face] = []
    for a, b, c in combinations(corners, 3):
        if max(math.dist(a, b), math.dist(b, c), math.dist(c, a)) < 2.1 * near:
            outward = dot(cross(minus(b, a), minus(c, a)), a) > 0
            faces.append((a, b, c) if outward else (a, c, b))
    return faces


def minus(a: Vector, b: Vector) -> Vector:
    """a - b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """The cross product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Vector, b: Vector) -> float:
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def rotation(angle: float) -> tuple[Vector, Vector, Vector]:
    """Rows of the matrix that turns by `angle` about y and by half of that about x."""
    sy, cy, sx, cx = math.sin(angle), math.cos(angle), math.sin(angle / 2), math.cos(angle / 2)
    return (cy, 0, sy), (sx * sy, cx, -sx * cy), (-cx * sy, sx, cx * cy)


class Scene:
    """Draws the solid into a target."""

    def __init__(self, instance: str, target: gl.Target) -> None:
        self._target = target
        offset = zlib.crc32(instance.encode()) / 2**32
        self._background = colorsys.hsv_to_rgb(offset, 0.6, 0.2)
        self._triangles = gl.Triangles(_coloured(icosahedron(), offset), (3, 3, 3))
        self._program = gl.Program(_VERTEX, _FRAGMENT)
        self._turn, self._aspect, self._drift = map(self._program.place, ("turn", "aspect", "drift"))

    @gl.guarded
    def draw(self, seconds: float) -> None:
        """The scene at a moment of its own time. Raises GpuLost."""
        self._target.begin(self._background)
        gl.hide_back_faces(True)
        self._program.use()
        angle = 2 * math.pi * (seconds / TURN_S)
        gl.set_rotation(self._turn, rotation(angle % (4 * math.pi)))
        gl.set_float(self._aspect, self._target.width / self._target.height)
        gl.set_float(self._drift, 0.8 * math.sin(angle / 2))
        self._triangles.draw()


def _coloured(faces: list[Face], offset: float) -> array[float]:
    """Corner, normal and colour, nine floats, of every corner of every face."""
    corners = array("f")
    for number, face in enumerate(faces):
        centre = [sum(corner[axis] for corner in face) for axis in range(3)]
        normal = [value / math.hypot(*centre) for value in centre]
        colour = colorsys.hsv_to_rgb((offset + 0.5 + number / 40) % 1.0, 0.65, 1.0)
        for corner in face:
            corners.extend((*corner, *normal, *colour))
    return corners
