// One stage with a crystal, drawn by 3Dmol.js.

const AXES = ["#d83933", "#2e9d47", "#3d6fe0"]; // a, b, c
const BOND_RADIUS = 0.11; // Å
const FACING = [0, 0, 0, 1]; // the direction of the frame that coordinates are given in
const MARGIN = 1.2; // Å about everything
const CAMERA = 150, HALF_WIDTH = Math.tan((20 * Math.PI) / 180); // of 3Dmol.js: distance, and half the view at 1
const FILLING = 1.9; // large atoms, times the radius of small ones

class CrystalView {
  constructor(host, elements) {
    this.host = host;
    this.elements = elements;
    this.viewer = null;
    this.message = host.appendChild(document.createElement("p"));
  }

  // False where the browser cannot draw; then the stage says so.
  start() {
    try {
      this.viewer = $3Dmol.createViewer(this.host, { backgroundAlpha: 0, orthographic: true, antialias: true });
    } catch (error) {
      this.viewer = null;
    }
    if (!this.viewer) this.say("This browser shows no 3D graphics (WebGL is off). The table works without.");
    return Boolean(this.viewer);
  }

  say(text) {
    this.message.textContent = text;
  }

  // Draws a crystal, or says why there is none. The direction of view stays where `keep` is set.
  show(crystal, options, keep, reason) {
    if (!this.viewer && !this.start()) return;
    const before = this.viewer.getView();
    this.viewer.removeAllModels();
    this.viewer.removeAllShapes();
    this.viewer.removeAllLabels();
    this.crystal = crystal;
    this.say(crystal ? "" : reason);
    if (crystal) this.draw(sceneOf(crystal, options), options);
    if (crystal) this.frame(keep && this.drawn ? before.slice(4) : FACING);
    this.drawn = this.drawn || Boolean(crystal);
    this.viewer.render();
  }

  draw(scene, options) {
    const styles = getComputedStyle(document.documentElement);
    this.viewer.setBackgroundColor(styles.getPropertyValue("--stage").trim(), 1);
    this.viewer.setViewStyle({ style: "outline", color: "#20242a", width: 0.012 });
    this.addAtoms(scene, options);
    for (const shape of scene.polyhedra) this.addPolyhedron(shape);
    if (options.cell) this.addCell(scene, styles.getPropertyValue("--cell").trim());
    if (options.labels) this.addLabels(scene);
    this.points = [...scene.atoms, ...scene.edges.flatMap(({ start, end }) => [start, end])];
  }

  // Fills the stage from a direction (quaternion x, y, z, w), so that nothing leaves it however the crystal is turned.
  frame(direction) {
    const middle = (axis) => {
      const values = this.points.map((point) => point[axis]);
      return (values.reduce((a, b) => Math.min(a, b)) + values.reduce((a, b) => Math.max(a, b))) / 2;
    };
    const centre = { x: middle("x"), y: middle("y"), z: middle("z") };
    const reach = Math.sqrt(this.points.reduce((most, point) => Math.max(most, dot(minus(point, centre), minus(point, centre))), 0)) + MARGIN;
    const wide = Math.max(1, this.host.clientWidth / this.host.clientHeight);
    this.viewer.resize();
    this.viewer.zoomTo(); // for the depth that is drawn
    this.viewer.setView([-centre.x, -centre.y, -centre.z, CAMERA - (reach * wide) / HALF_WIDTH, ...direction]);
  }

  addAtoms(scene, options) {
    const numbers = this.crystal.numbers, atoms = [];
    for (const atom of scene.atoms) {
      const [symbol] = this.elements[numbers[atom.of]];
      atoms.push({ elem: symbol, x: atom.x, y: atom.y, z: atom.z, serial: atoms.length, bonds: atom.bonded.slice(),
        bondOrder: atom.bonded.map(() => 1), properties: { number: numbers[atom.of], stub: false } });
    }
    scene.atoms.forEach((atom, n) => {
      for (const stub of atom.stubs) {
        atoms[n].bonds.push(atoms.length);
        atoms[n].bondOrder.push(1);
        atoms.push({ elem: atoms[n].elem, ...stub, serial: atoms.length, bonds: [n], bondOrder: [1], properties: { number: numbers[atom.of], stub: true } });
      }
    });
    const model = this.viewer.addModel();
    model.addAtoms(atoms);
    for (const number of new Set(numbers)) {
      const [, color, radius] = this.elements[number];
      const size = radius * (options.filling ? FILLING : 1);
      const of = (stub) => ({ predicate: (atom) => atom.properties.number === number && atom.properties.stub === stub });
      const stick = options.bonds ? { stick: { radius: BOND_RADIUS, color } } : {};
      model.setStyle(of(false), { sphere: { radius: size, color }, ...stick });
      model.setStyle(of(true), stick);
    }
  }

  addPolyhedron(shape) {
    const vertexArr = [], normalArr = [], faceArr = [];
    for (let k = 0; k < shape.triangles.length; k += 3) {
      let [p, q, r] = shape.triangles.slice(k, k + 3).map((n) => shape.corners[n]);
      let normal = cross(minus(q, p), minus(r, p));
      if (dot(normal, minus(p, shape.centre)) < 0) {
        [q, r] = [r, q];
        normal = scaled(normal, -1);
      }
      normal = scaled(normal, 1 / Math.sqrt(dot(normal, normal)));
      for (const point of [p, q, r]) {
        faceArr.push(vertexArr.length);
        vertexArr.push(point);
        normalArr.push(normal);
      }
    }
    const color = darker(this.elements[shape.number][1]);
    this.viewer.addCustom({ vertexArr, normalArr, faceArr, color, opacity: 0.6 });
    for (let k = 0; k < shape.edges.length; k += 2) {
      const [start, end] = [shape.corners[shape.edges[k]], shape.corners[shape.edges[k + 1]]];
      this.viewer.addCylinder({ start, end, radius: 0.02, color, fromCap: 1, toCap: 1 });
    }
  }

  addCell(scene, color) {
    for (const { start, end, axis } of scene.edges) {
      this.viewer.addCylinder({ start, end, radius: axis === null ? 0.015 : 0.04, color: axis === null ? color : AXES[axis], fromCap: 1, toCap: 1 });
    }
    scene.edges.filter((edge) => edge.axis !== null).forEach(({ start, end, axis }) => {
      const beyond = minus(end, start), length = Math.sqrt(dot(beyond, beyond));
      const position = plus(end, scaled(beyond, 1.15 / length));
      this.viewer.addLabel("abc"[axis], { position, fontColor: AXES[axis], fontSize: 16, showBackground: false, alignment: "center" });
    });
  }

  addLabels(scene) {
    for (const atom of scene.atoms) {
      const [symbol] = this.elements[this.crystal.numbers[atom.of]];
      this.viewer.addLabel(symbol, { position: atom, fontSize: 12, fontColor: "#ffffff", backgroundColor: "#20242a",
        backgroundOpacity: 0.6, borderThickness: 0, alignment: "center", inFront: true });
    }
  }

  // What a key of the viewer does; false where it is none of its keys.
  press(key) {
    if (!this.viewer || !this.crystal) return false;
    const turns = { ArrowLeft: [-8, "y"], ArrowRight: [8, "y"], ArrowUp: [-8, "x"], ArrowDown: [8, "x"], ",": [8, "z"], ".": [-8, "z"] };
    const lattice = this.crystal.lattice;
    if (turns[key]) this.viewer.rotate(...turns[key]);
    else if (key === "+" || key === "=") this.viewer.zoom(1.15);
    else if (key === "-") this.viewer.zoom(1 / 1.15);
    else if (key === "r") this.frame(FACING);
    else if ("abc".includes(key)) this.frame(along(lattice, "abc".indexOf(key)));
    else return false;
    this.viewer.render();
    return true;
  }
}

// A colour (#rrggbb) that stands out from a light ground.
const darker = (color) => `#${[1, 3, 5].map((k) => Math.round(0.78 * parseInt(color.slice(k, k + 2), 16)).toString(16).padStart(2, "0")).join("")}`;

const minus = (p, q) => ({ x: p.x - q.x, y: p.y - q.y, z: p.z - q.z });
const plus = (p, q) => ({ x: p.x + q.x, y: p.y + q.y, z: p.z + q.z });
const scaled = (p, by) => ({ x: p.x * by, y: p.y * by, z: p.z * by });
const dot = (p, q) => p.x * q.x + p.y * q.y + p.z * q.z;
const cross = (p, q) => ({ x: p.y * q.z - p.z * q.y, y: p.z * q.x - p.x * q.z, z: p.x * q.y - p.y * q.x });

// Quaternion (x, y, z, w) of the rotation that turns an axis of the cell towards the viewer, and c (of c: b) upwards.
function along(lattice, axis) {
  const vector = (k) => ({ x: lattice[3 * k], y: lattice[3 * k + 1], z: lattice[3 * k + 2] });
  const unit = (p) => scaled(p, 1 / Math.sqrt(dot(p, p)));
  const toward = unit(vector(axis)), other = vector(axis === 2 ? 1 : 2);
  const up = unit(minus(other, scaled(toward, dot(other, toward)))), right = cross(up, toward);
  const [m, n, o] = [right, up, toward]; // the rows of the matrix
  const w = Math.sqrt(Math.max(0, 1 + m.x + n.y + o.z)) / 2;
  const x = Math.sqrt(Math.max(0, 1 + m.x - n.y - o.z)) / 2;
  const y = Math.sqrt(Math.max(0, 1 - m.x + n.y - o.z)) / 2;
  const z = Math.sqrt(Math.max(0, 1 - m.x - n.y + o.z)) / 2;
  if (w > 1e-3) return [x * Math.sign(o.y - n.z || 1), y * Math.sign(m.z - o.x || 1), z * Math.sign(n.x - m.y || 1), w];
  // Half a turn: the signs follow from the largest part.
  if (x >= y && x >= z) return [x, (m.y + n.x) / (4 * x), (m.z + o.x) / (4 * x), (o.y - n.z) / (4 * x)];
  if (y >= z) return [(m.y + n.x) / (4 * y), y, (n.z + o.y) / (4 * y), (m.z - o.x) / (4 * y)];
  return [(m.z + o.x) / (4 * z), (n.z + o.y) / (4 * z), z, (n.x - m.y) / (4 * z)];
}
