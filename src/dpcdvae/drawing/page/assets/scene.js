// What is drawn of a crystal: its atoms with their copies on faces, their bonds, polyhedra and the cell. No drawing here.

const MOST_DRAWN = 6000; // atoms that a phone still turns

// The bonds of each atom, in both directions: [[other atom, image a, b, c], ...].
function neighboursOf(crystal) {
  const found = crystal.numbers.map(() => []);
  for (let k = 0; k < crystal.bonds.length; k += 5) {
    const [i, j, a, b, c] = crystal.bonds.slice(k, k + 5);
    found[i].push([j, a, b, c]);
    found[j].push([i, -a, -b, -c]);
  }
  return found;
}

// Å of a point in fractional coordinates.
function cartesian(lattice, x, y, z) {
  return {
    x: x * lattice[0] + y * lattice[3] + z * lattice[6],
    y: x * lattice[1] + y * lattice[4] + z * lattice[7],
    z: x * lattice[2] + y * lattice[5] + z * lattice[8],
  };
}

// The translations along one axis of an atom at `x` so that `cells` cells look complete.
function shiftsOf(x, near, cells) {
  const shifts = x > 1 - near ? [-1] : [];
  for (let k = 0; k < cells; k++) shifts.push(k);
  if (x < near) shifts.push(cells);
  return shifts;
}

// Everything to draw. `cells` is (a, b, c), cut down where it would be too many atoms.
function sceneOf(crystal, options) {
  let cells = options.cells.slice();
  while (crystal.numbers.length * cells[0] * cells[1] * cells[2] > MOST_DRAWN && Math.max(...cells) > 1) {
    cells = cells.map((n) => Math.max(1, n - 1));
  }
  const atoms = [], places = new Map();
  const place = (k, a, b, c, outside) => {
    const key = `${k},${a},${b},${c}`;
    if (!places.has(key)) {
      places.set(key, atoms.length);
      const at = cartesian(crystal.lattice, crystal.frac[3 * k] + a, crystal.frac[3 * k + 1] + b, crystal.frac[3 * k + 2] + c);
      atoms.push({ ...at, of: k, shift: [a, b, c], outside, bonded: [], stubs: [] });
    }
    return places.get(key);
  };
  crystal.numbers.forEach((_, k) => {
    const [as, bs, cs] = [0, 1, 2].map((axis) => shiftsOf(crystal.frac[3 * k + axis], crystal.near[axis], cells[axis]));
    for (const a of as) for (const b of bs) for (const c of cs) place(k, a, b, c, false);
  });
  const inside = atoms.length;
  const neighbours = neighboursOf(crystal);
  const polyhedra = options.polyhedra ? placedPolyhedra(crystal, atoms.slice(0, inside), place) : [];
  for (let n = 0; n < inside && options.beyond; n++) {
    const [a, b, c] = atoms[n].shift;
    for (const [j, ia, ib, ic] of neighbours[atoms[n].of]) place(j, a + ia, b + ib, c + ic, true);
  }
  if (options.bonds) addBonds(crystal, atoms, places, neighbours);
  return { atoms, polyhedra, cells, edges: cellEdges(crystal.lattice, cells) };
}

function addBonds(crystal, atoms, places, neighbours) {
  atoms.forEach((atom) => {
    const [a, b, c] = atom.shift;
    for (const [j, ia, ib, ic] of neighbours[atom.of]) {
      const other = places.get(`${j},${a + ia},${b + ib},${c + ic}`);
      if (other !== undefined) {
        atom.bonded.push(other);
      } else if (!atom.outside) { // the beginning of a bond to an atom that is not drawn
        const to = cartesian(crystal.lattice, crystal.frac[3 * j] + a + ia, crystal.frac[3 * j + 1] + b + ib, crystal.frac[3 * j + 2] + c + ic);
        atom.stubs.push({ x: atom.x + 0.4 * (to.x - atom.x), y: atom.y + 0.4 * (to.y - atom.y), z: atom.z + 0.4 * (to.z - atom.z) });
      }
    }
  });
}

// The polyhedra about the given atoms: number of the element, corners, triangles, edges. Corners are drawn too.
function placedPolyhedra(crystal, centres, place) {
  const byCentre = new Map(crystal.polyhedra.map((shape) => [shape[0], shape]));
  const found = [];
  for (const atom of centres) {
    const shape = byCentre.get(atom.of);
    if (!shape) continue;
    const [, flat, triangles, edges] = shape;
    const [a, b, c] = atom.shift;
    const corners = [];
    for (let k = 0; k < flat.length; k += 4) {
      const [j, ia, ib, ic] = flat.slice(k, k + 4);
      place(j, a + ia, b + ib, c + ic, true);
      corners.push(cartesian(crystal.lattice, crystal.frac[3 * j] + a + ia, crystal.frac[3 * j + 1] + b + ib, crystal.frac[3 * j + 2] + c + ic));
    }
    found.push({ number: crystal.numbers[atom.of], centre: atom, corners, triangles, edges });
  }
  return found;
}

// The edges of all cells of the supercell, each with the axis it is of where it starts at the origin.
function cellEdges(lattice, cells) {
  const edges = [];
  for (let axis = 0; axis < 3; axis++) {
    const [u, v] = [0, 1, 2].filter((other) => other !== axis);
    for (let i = 0; i <= cells[u]; i++) {
      for (let j = 0; j <= cells[v]; j++) {
        const start = [0, 0, 0], end = [0, 0, 0];
        start[u] = end[u] = i;
        start[v] = end[v] = j;
        end[axis] = cells[axis];
        edges.push({ start: cartesian(lattice, ...start), end: cartesian(lattice, ...end), axis: i + j === 0 ? axis : null });
      }
    }
  }
  return edges;
}
