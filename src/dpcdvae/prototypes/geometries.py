"""Primitive cells of textbook structures from the radii of their atoms, by the condition that neighbours touch.

Every function takes one radius (Å) per role and gives the lattice (rows, Å) and, per role, the
fractional coordinates. Roles that repeat by centring are written once. Positions and origins follow
the International Tables (origin choice 2 where there are two, 1 for anatase).
"""

from __future__ import annotations

from math import sqrt
from typing import Final

from dpcdvae.prototypes.primitive_cell import Cell, Vector, cubic, hexagonal, primitive, tetragonal
from dpcdvae.prototypes.radii import VAN_DER_WAALS

_ORIGIN: Final = (0, 0, 0)
_CENTRE: Final = (1 / 2, 1 / 2, 1 / 2)
_QUARTER: Final = (1 / 4, 1 / 4, 1 / 4)
_THREE_QUARTERS: Final = (3 / 4, 3 / 4, 3 / 4)
_FACES: Final = [(0, 1 / 2, 1 / 2), (1 / 2, 0, 1 / 2), (1 / 2, 1 / 2, 0)]


def _octahedron(x: float) -> list[Vector]:
    return [(x, 0, 0), (-x, 0, 0), (0, x, 0), (0, -x, 0), (0, 0, x), (0, 0, -x)]


# --- elements ---------------------------------------------------------------------------


def face_centred_cubic(r: float) -> Cell:
    """a = 2√2 r: atoms touch along the face diagonal."""
    return primitive("F", cubic(2 * sqrt(2) * r), [_ORIGIN])


def body_centred_cubic(r: float) -> Cell:
    """a = 4 (0.97 r) / √3: atoms touch along the body diagonal; Goldschmidt's factor from 12 to 8 neighbours."""
    return primitive("I", cubic(4 * 0.97 * r / sqrt(3)), [_ORIGIN])


def hexagonal_close_packed(r: float) -> Cell:
    """a = 2r, c = √(8/3) a."""
    return primitive("P", hexagonal(2 * r, 2 * r * sqrt(8 / 3)), [(1 / 3, 2 / 3, 1 / 4), (2 / 3, 1 / 3, 3 / 4)])


def simple_cubic(r: float) -> Cell:
    """a = 2r."""
    return primitive("P", cubic(2 * r), [_ORIGIN])


def diamond(r: float) -> Cell:
    """a = 8r / √3."""
    return primitive("F", cubic(8 * r / sqrt(3)), [_ORIGIN, _QUARTER])


def lonsdaleite(r: float) -> Cell:
    """Regular tetrahedra in hexagonal stacking: a = √(8/3) 2r, c = √(8/3) a, z = 1/16."""
    a, z = sqrt(8 / 3) * 2 * r, 1 / 16
    sites = [(1 / 3, 2 / 3, z), (2 / 3, 1 / 3, z + 1 / 2), (2 / 3, 1 / 3, -z), (1 / 3, 2 / 3, 1 / 2 - z)]
    return primitive("P", hexagonal(a, a * sqrt(8 / 3)), sites)


def graphite(r: float) -> Cell:
    """a = √3 · 2r within the layers, c = 4 van der Waals radii of carbon across them."""
    sites = [(0, 0, 1 / 4), (0, 0, 3 / 4), (1 / 3, 2 / 3, 1 / 4), (2 / 3, 1 / 3, 3 / 4)]
    return primitive("P", hexagonal(sqrt(3) * 2 * r, 4 * VAN_DER_WAALS["C"]), sites)


# --- two species ------------------------------------------------------------------------


def rock_salt(m: float, x: float) -> Cell:
    """a = 2 (r_M + r_X)."""
    return primitive("F", cubic(2 * (m + x)), [_ORIGIN], [_CENTRE])


def cesium_chloride(m: float, x: float) -> Cell:
    """a = 2 (r_M + r_X) / √3."""
    return primitive("P", cubic(2 * (m + x) / sqrt(3)), [_ORIGIN], [_CENTRE])


def zinc_blende(m: float, x: float) -> Cell:
    """a = 4 (r_M + r_X) / √3."""
    return primitive("F", cubic(4 * (m + x) / sqrt(3)), [_ORIGIN], [_QUARTER])


def wurtzite(m: float, x: float) -> Cell:
    """Regular tetrahedra: a = √(8/3) (r_M + r_X), c = √(8/3) a, u = 3/8."""
    a = sqrt(8 / 3) * (m + x)
    metal, anion = [(1 / 3, 2 / 3, 0), (2 / 3, 1 / 3, 1 / 2)], [(1 / 3, 2 / 3, 3 / 8), (2 / 3, 1 / 3, 7 / 8)]
    return primitive("P", hexagonal(a, a * sqrt(8 / 3)), metal, anion)


def boron_nitride(m: float, x: float) -> Cell:
    """a = √3 (r_B + r_N) within the layers, c = 2 (R_B + R_N), van der Waals radii, across them."""
    boron, nitrogen = [(1 / 3, 2 / 3, 1 / 4), (2 / 3, 1 / 3, 3 / 4)], [(2 / 3, 1 / 3, 1 / 4), (1 / 3, 2 / 3, 3 / 4)]
    c = 2 * (VAN_DER_WAALS["B"] + VAN_DER_WAALS["N"])
    return primitive("P", hexagonal(sqrt(3) * (m + x), c), boron, nitrogen)


def fluorite(m: float, x: float) -> Cell:
    """a = 4 (r_M + r_X) / √3; with the roles of the ions exchanged: antifluorite."""
    return primitive("F", cubic(4 * (m + x) / sqrt(3)), [_ORIGIN], [_QUARTER, _THREE_QUARTERS])


def nickel_arsenide(m: float, x: float) -> Cell:
    """Regular octahedra in hexagonal packing: a = √2 (r_M + r_X), c = √(8/3) a."""
    a = sqrt(2) * (m + x)
    anions = [(1 / 3, 2 / 3, 1 / 4), (2 / 3, 1 / 3, 3 / 4)]
    return primitive("P", hexagonal(a, a * sqrt(8 / 3)), [_ORIGIN, (0, 0, 1 / 2)], anions)


def cadmium_iodide(m: float, x: float) -> Cell:
    """Nickel arsenide without every other layer of metal: a = √2 (r_M + r_X), c = √(8/3) a."""
    a = sqrt(2) * (m + x)
    return primitive("P", hexagonal(a, a * sqrt(8 / 3)), [_ORIGIN], [(1 / 3, 2 / 3, 1 / 4), (2 / 3, 1 / 3, 3 / 4)])


def cadmium_chloride(m: float, x: float) -> Cell:
    """Rock salt without every other layer of metal: a = √2 (r_M + r_X), c = 2√6 a."""
    a = sqrt(2) * (m + x)
    return primitive("R", hexagonal(a, 2 * sqrt(6) * a), [_ORIGIN], [(0, 0, 1 / 4), (0, 0, -1 / 4)])


def rutile(m: float, x: float) -> Cell:
    """Regular octahedra: with d = r_M + r_X, a = (1 + √2) d, c = √2 d, u = 1 - 1/√2."""
    d, u = m + x, 1 - 1 / sqrt(2)
    anions = [(u, u, 0), (-u, -u, 0), (1 / 2 + u, 1 / 2 - u, 1 / 2), (1 / 2 - u, 1 / 2 + u, 1 / 2)]
    return primitive("P", tetragonal((1 + sqrt(2)) * d, sqrt(2) * d), [_ORIGIN, _CENTRE], anions)


def anatase(m: float, x: float) -> Cell:
    """Regular octahedra: with d = r_M + r_X, a = 2d, c = 4d, z = 1/4."""
    metal = [_ORIGIN, (0, 1 / 2, 1 / 4)]
    anions = [(0, 0, 1 / 4), (0, 0, -1 / 4), (0, 1 / 2, 1 / 2), (0, 1 / 2, 0)]
    return primitive("I", tetragonal(2 * (m + x), 4 * (m + x)), metal, anions)


def rhenium_trioxide(m: float, x: float) -> Cell:
    """a = 2 (r_M + r_X)."""
    return primitive("P", cubic(2 * (m + x)), [_ORIGIN], [(1 / 2, 0, 0), (0, 1 / 2, 0), (0, 0, 1 / 2)])


def cuprite(m: float, x: float) -> Cell:
    """a = 4 (r_M + r_X) / √3."""
    metal = [_QUARTER, (1 / 4, 3 / 4, 3 / 4), (3 / 4, 1 / 4, 3 / 4), (3 / 4, 3 / 4, 1 / 4)]
    return primitive("P", cubic(4 * (m + x) / sqrt(3)), metal, [_ORIGIN, _CENTRE])


def l1_2(a: float, b: float) -> Cell:
    """AB3: lattice constant √2 (r_A + r_B) or 2√2 r_B, whichever contact comes first."""
    return primitive("P", cubic(max(sqrt(2) * (a + b), 2 * sqrt(2) * b)), [_ORIGIN], _FACES)


def l1_0(a: float, b: float) -> Cell:
    """Larger atoms touch in their layer, unlike atoms across: a = 2 max(r), c² = 4 (r_A + r_B)² - 2a²."""
    side = 2 * max(a, b)
    return primitive("P", tetragonal(side, sqrt(4 * (a + b) ** 2 - 2 * side**2)), [_ORIGIN], [_CENTRE])


def d0_3(b: float, a: float) -> Cell:
    """A B3 like Fe3Al: a = 4/√3 (r_B + max(r_A, r_B))."""
    side = 4 / sqrt(3) * (b + max(a, b))
    return primitive("F", cubic(side), [_QUARTER, _THREE_QUARTERS, _CENTRE], [_ORIGIN])


def a15(b: float, a: float) -> Cell:
    """B3A like Nb3Sn: a = (4/√5) (r_A + r_B). The chains of B, a/2 apart, are shorter than 2 r_B, as in nature."""
    along = (1 / 4, 3 / 4)
    chains = [*((x, 0, 1 / 2) for x in along), *((1 / 2, y, 0) for y in along), *((0, 1 / 2, z) for z in along)]
    return primitive("P", cubic(4 / sqrt(5) * (a + b)), chains, [_ORIGIN, _CENTRE])


def aluminium_diboride(m: float, b: float) -> Cell:
    """Honeycombs of boron, a = 2√3 r_B; metal touches boron: c² = 4 (r_M + r_B)² - 4a²/3."""
    a = 2 * sqrt(3) * b
    c = sqrt(4 * (m + b) ** 2 - 4 / 3 * a**2)
    return primitive("P", hexagonal(a, c), [_ORIGIN], [(1 / 3, 2 / 3, 1 / 2), (2 / 3, 1 / 3, 1 / 2)])


def tungsten_carbide(m: float, x: float) -> Cell:
    """Trigonal prisms with c = a: a = √(12/7) (r_M + r_X)."""
    a = sqrt(12 / 7) * (m + x)
    return primitive("P", hexagonal(a, a), [_ORIGIN], [(1 / 3, 2 / 3, 1 / 2)])


# --- three and more species -------------------------------------------------------------


def perovskite(a: float, b: float, x: float) -> Cell:
    """Lattice constant 2 (r_B + r_X) or √2 (r_A + r_X), whichever contact comes first."""
    return primitive(
        "P",
        cubic(max(2 * (b + x), sqrt(2) * (a + x))),
        [_CENTRE],
        [_ORIGIN],
        [(1 / 2, 0, 0), (0, 1 / 2, 0), (0, 0, 1 / 2)],
    )


def antiperovskite(x: float, b: float, a: float) -> Cell:
    """Metal X around the anion B, the anion A in the cage: Li3OCl."""
    lattice, (cage, centre, metal) = perovskite(a, b, x)
    return lattice, [metal, centre, cage]


def elpasolite(a: float, b: float, b2: float, x: float) -> Cell:
    """A2BB'X6: side 2 (r_B + r_B' + 2 r_X) or 2√2 (r_A + r_X), whichever comes first; X touches B'."""
    side = max(2 * (b + b2 + 2 * x), 2 * sqrt(2) * (a + x))
    sites = _octahedron((b2 + x) / side)
    return primitive("F", cubic(side), [_QUARTER, _THREE_QUARTERS], [_CENTRE], [_ORIGIN], sites)


def potassium_hexachloroplatinate(a: float, b: float, x: float) -> Cell:
    """K2PtCl6: octahedra touch, side 2 d_B + 2√2 r_X, or A touches X, (side/4 - d_B)² + side²/8 = d_A²."""
    d_a, d_b = a + x, b + x
    cage = (d_b / 2 + sqrt(d_b**2 / 4 - 3 / 4 * (d_b**2 - d_a**2))) * 8 / 3
    side = max(2 * d_b + 2 * sqrt(2) * x, cage)
    return primitive("F", cubic(side), [_QUARTER, _THREE_QUARTERS], [_ORIGIN], _octahedron(d_b / side))


def potassium_nickel_fluoride(a: float, b: float, x: float) -> Cell:
    """K2NiF4: side 2 d_B, and A touches X along the axis and beside it: c = 2 (d_A + d_B + √(d_A² - d_B²))."""
    d_a, d_b = a + x, b + x
    c = 2 * (d_a + d_b + sqrt(d_a**2 - d_b**2))
    z_a, z_x = (d_a + d_b) / c, d_b / c
    anions = [(1 / 2, 0, 0), (0, 1 / 2, 0), (0, 0, z_x), (0, 0, -z_x)]
    return primitive("I", tetragonal(2 * d_b, c), [(0, 0, z_a), (0, 0, -z_a)], [_ORIGIN], anions)


def spinel(a: float, b: float, x: float) -> Cell:
    """AB2X4, A-X = d_A and B-X = d_B: with s = d_A/√3, 11 side²/64 - (5/4) side s + 3s² = d_B², u = 1/8 + s/side."""
    s, d_b = (a + x) / sqrt(3), b + x
    side = (5 / 4 * s + sqrt(25 / 16 * s**2 - 11 / 16 * (3 * s**2 - d_b**2))) * 32 / 11
    u = 1 / 8 + s / side
    octahedral = [_CENTRE, (1 / 2, 1 / 4, 1 / 4), (1 / 4, 1 / 2, 1 / 4), (1 / 4, 1 / 4, 1 / 2)]
    cube = [
        (u, u, u),
        (3 / 4 - u, 1 / 4 - u, 1 / 2 + u),
        (1 / 4 - u, 1 / 2 + u, 3 / 4 - u),
        (1 / 2 + u, 3 / 4 - u, 1 / 4 - u),
    ]
    anions = [*cube, *[(-p, -q, -r) for p, q, r in cube]]
    return primitive("F", cubic(side), [(1 / 8, 1 / 8, 1 / 8), (7 / 8, 7 / 8, 7 / 8)], octahedral, anions)


def delafossite(a: float, b: float, x: float) -> Cell:
    """A+ in dumb-bells X-A-X along c, regular octahedra BX6: side √2 d_B, c = 6 (d_A + d_B/√3), z = d_A/c."""
    d_a, d_b = a + x, b + x
    c = 6 * (d_a + d_b / sqrt(3))
    return primitive("R", hexagonal(sqrt(2) * d_b, c), [_ORIGIN], [(0, 0, 1 / 2)], [(0, 0, d_a / c), (0, 0, -d_a / c)])


def layered_rock_salt(a: float, b: float, x: float) -> Cell:
    """α-NaFeO2: side (d_A + d_B)/√2, layers h = √(d² - side²/3) from the anions, c = 6 (h_A + h_B)."""
    d_a, d_b = a + x, b + x
    side = (d_a + d_b) / sqrt(2)
    h_a, h_b = (sqrt(d**2 - side**2 / 3) for d in (d_a, d_b))
    c = 6 * (h_a + h_b)
    z = 1 / 3 - h_a / c
    return primitive("R", hexagonal(side, c), [_ORIGIN], [(0, 0, 1 / 2)], [(0, 0, z), (0, 0, -z)])


def chalcopyrite(a: float, b: float, x: float) -> Cell:
    """c = 2 side, both contacts kept: with S, D = d_A² ± d_B², side² = (S + √(S² - 3D²)) 4/3, x = 1/4 + D/side²."""
    total, difference = (a + x) ** 2 + (b + x) ** 2, (a + x) ** 2 - (b + x) ** 2
    square = (total + sqrt(total**2 - 3 * difference**2)) * 4 / 3
    u = 1 / 4 + difference / square
    anions = [(u, 1 / 4, 1 / 8), (-u, 3 / 4, 1 / 8), (3 / 4, u, 7 / 8), (1 / 4, -u, 7 / 8)]
    cations = ([_ORIGIN, (0, 1 / 2, 1 / 4)], [(0, 0, 1 / 2), (0, 1 / 2, 3 / 4)])
    return primitive("I", tetragonal(sqrt(square), 2 * sqrt(square)), *cations, anions)


def heusler(x: float, y: float, z: float) -> Cell:
    """X2YZ: a = 4/√3 (r_X + max(r_Y, r_Z))."""
    return primitive("F", cubic(4 / sqrt(3) * (x + max(y, z))), [_QUARTER, _THREE_QUARTERS], [_CENTRE], [_ORIGIN])


def half_heusler(x: float, y: float, z: float) -> Cell:
    """XYZ: a = 4/√3 (r_X + max(r_Y, r_Z)) or 2 (r_Y + r_Z), whichever contact comes first."""
    a = max(4 / sqrt(3) * (x + max(y, z)), 2 * (y + z))
    return primitive("F", cubic(a), [_QUARTER], [_CENTRE], [_ORIGIN])


def calcium_hexaboride(m: float, b: float) -> Cell:
    """Octahedra of boron joined by bonds of the same length: a = (1 + √2) 2r_B, x = 1 / (2 + 2√2); M in the cage."""
    x = 1 / (2 + 2 * sqrt(2))
    boron = [(p + 1 / 2, q + 1 / 2, r + 1 / 2) for p, q, r in _octahedron(1 / 2 - x)]
    return primitive("P", cubic((1 + sqrt(2)) * 2 * b), [_ORIGIN], boron)
