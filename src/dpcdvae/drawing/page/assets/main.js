// The page: unpacks the data, and connects table, viewers, film and controls.

// The JSON in a block of the page: gzip, as base64.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// Crystals of a set by number, from blocks that are unpacked when the first of them is asked for.
function geometries(set, size) {
  const blocks = new Map();
  return async (place) => {
    const block = Math.floor(place / size);
    if (!blocks.has(block)) blocks.set(block, unpacked(`${set}-${block}`));
    return (await blocks.get(block))[place % size];
  };
}

const byId = (id) => document.getElementById(id);

async function start() {
  const data = await unpacked("data");
  if (!data.size) return;
  const views = [new CrystalView(byId("stage"), data.elements)];
  const crystalOf = geometries("crystals", data.block), besideOf = geometries("beside", data.block);
  if (data.beside) views.push(new CrystalView(byId("stage2"), data.elements));
  byId("viewing").hidden = byId("listing").hidden = false;
  byId("besides").hidden = !data.beside;
  const value = (name, row) => data.columns.find((column) => column.name === name).values[row];
  const filmOf = new Map(data.films.flatMap((film) => film.map((row) => [row, film])));
  let chosen = 0, turn = 0, playing = null;

  const options = () => ({
    ...Object.fromEntries(["polyhedra", "bonds", "beyond", "cell", "labels", "filling"].map((name) => [name, byId(name).checked])),
    cells: ["a", "b", "c"].map((axis) => Math.min(4, Math.max(1, Math.round(Number(byId(`cells-${axis}`).value)) || 1))),
  });

  async function draw(keep) {
    const mine = ++turn; // of several choices in a row the last is drawn
    const partner = data.beside ? data.beside[chosen] : null;
    const [crystal, other] = await Promise.all([crystalOf(chosen), partner === null ? null : besideOf(partner)]);
    if (mine !== turn) return;
    views[0].show(crystal, options(), keep, `Not drawn: ${value("problem", chosen) || "too many atoms"}.`);
    if (data.beside) views[1].show(other, options(), keep, "Nothing stands beside this crystal.");
    caption(byId("caption"), value("formula", chosen), [value("space_group", chosen), value("id", chosen), data.beside && data.names[0]]);
    if (data.beside) caption(byId("caption2"), partner === null ? "" : value("formula", chosen), [data.names[1], data.changes[chosen]]);
    showLegend([crystal, other], data.elements);
    showFacts(data, chosen);
    showFilm();
    byId("stage").dataset.drawn = value("id", chosen);
  }

  function choose(row, follow = true) {
    chosen = row;
    table.mark(row, follow);
    return draw(true);
  }

  function showFilm() {
    const film = filmOf.get(chosen);
    byId("film").hidden = !film;
    if (!film) return stop();
    byId("frame").max = film.length - 1;
    byId("frame").value = film.indexOf(chosen);
    byId("frame-text").textContent = `${film.indexOf(chosen) + 1} / ${film.length}`;
    return undefined;
  }

  function stop() {
    clearTimeout(playing);
    playing = null;
    byId("play").textContent = "Play";
    byId("play").setAttribute("aria-pressed", "false");
  }

  function play() {
    if (playing) return stop();
    byId("play").textContent = "Pause";
    byId("play").setAttribute("aria-pressed", "true");
    playing = setTimeout(advance, 450);
    return undefined;
  }

  // The next frame, and the one after it when this is drawn, however slow the machine is.
  async function advance() {
    const film = filmOf.get(chosen);
    await choose(film[(film.indexOf(chosen) + 1) % film.length]);
    if (playing) playing = setTimeout(advance, 450);
  }

  const table = new CrystalTable(data, (row) => { stop(); choose(row); });
  byId("play").addEventListener("click", play);
  byId("frame").addEventListener("input", (event) => { stop(); choose(filmOf.get(chosen)[Number(event.target.value)]); });
  for (const input of document.querySelectorAll(".controls input")) input.addEventListener("change", () => draw(true));
  for (const button of document.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => views.forEach((view) => view.press(button.dataset.key)));
  }
  byId("save").addEventListener("click", () => views[0].viewer && save(views[0].viewer.pngURI(), value("formula", chosen)));
  byId("viewing").addEventListener("keydown", (event) => {
    if (!event.target.classList.contains("stage") || event.ctrlKey || event.metaKey || event.altKey) return;
    const done = event.key === " " ? filmOf.has(chosen) && (play(), true) : views.map((view) => view.press(event.key)).some(Boolean);
    if (done) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const step = { n: 1, p: -1 }[event.key];
    if (step && !event.ctrlKey && !event.metaKey && !event.target.matches("input")) table.step(step, false);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
  link(views);
  table.update();
  table.mark(0, true);
  await draw(false);
  link(views);
}

// Two viewers turn and zoom together; each keeps its own centre.
function link(views) {
  if (views.length < 2 || !views.every((view) => view.viewer)) return;
  let busy = false;
  views.forEach(({ viewer }, k) => viewer.setViewChangeCallback((view) => {
    if (busy) return;
    busy = true;
    const other = views[1 - k].viewer;
    other.setView([...other.getView().slice(0, 4), ...view.slice(4)]);
    busy = false;
  }));
}

function caption(place, formula, words) {
  const title = document.createElement("b");
  for (const part of (formula || "").split(/(\d+)/)) {
    if (/^\d/.test(part)) title.appendChild(document.createElement("sub")).textContent = part;
    else title.append(part);
  }
  place.replaceChildren(title, words.filter(Boolean).join(" · "));
}

function showLegend(crystals, elements) {
  const numbers = new Set(crystals.filter(Boolean).flatMap((crystal) => crystal.numbers));
  byId("legend").replaceChildren(...[...numbers].sort((a, b) => a - b).map((number) => {
    const item = document.createElement("li"), space = "http://www.w3.org/2000/svg";
    const picture = item.appendChild(document.createElementNS(space, "svg"));
    const ball = picture.appendChild(document.createElementNS(space, "circle"));
    picture.setAttribute("viewBox", "0 0 16 16");
    for (const [name, text] of Object.entries({ cx: 8, cy: 8, r: 7, fill: elements[number][1], stroke: "#555" })) ball.setAttribute(name, text);
    item.append(elements[number][0]);
    return item;
  }));
}

function showFacts(data, row) {
  byId("facts").replaceChildren(...data.columns.filter((column) => textOf(column.values[row]) !== "").map((column) => {
    const item = document.createElement("div");
    item.appendChild(document.createElement("dt")).textContent = column.title;
    item.appendChild(document.createElement("dd")).textContent = textOf(column.values[row]);
    return item;
  }));
}

function save(uri, name) {
  const anchor = document.createElement("a");
  anchor.href = uri;
  anchor.download = `${name}.png`;
  anchor.click();
}

start();
