"""The scene's geometry."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from procs.headless_agent.scene import icosahedron, rotation


def test_the_solid_has_twenty_equal_faces_that_look_outwards() -> None:
    faces = icosahedron()
    assert len(faces) == 20
    for a, b, c in faces:
        edges = [math.dist(p, q) for p, q in combinations((a, b, c), 2)]
        assert max(edges) - min(edges) < 1e-9
        u, v = [[q[i] - a[i] for i in range(3)] for q in (b, c)]
        normal = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
        assert sum(n * p for n, p in zip(normal, a, strict=True)) > 0
    assert all(abs(math.hypot(*corner) - 1) < 1e-9 for face in faces for corner in face)


@pytest.mark.parametrize("angle", [0.0, 0.7, 3.0, 9.0])
def test_a_rotation_keeps_lengths_and_angles(angle: float) -> None:
    rows = rotation(angle)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert sum(a * b for a, b in zip(one, other, strict=True)) == pytest.approx(1.0 if i == j else 0.0)
