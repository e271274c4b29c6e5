// The table of crystals: sorts, filters, and shows a page of rows at a time, so that thousands cost no more than fifty.

const ROWS = 50;

// A condition such as density>4, valid=yes or formula=SrTiO3.
const CONDITION = /^([\w.]+)(<=|>=|!=|=|<|>)(.*)$/;

// A function (row) -> boolean of the text of the filter; null where a condition names no column.
function filterOf(text, data) {
  const tests = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const parts = CONDITION.exec(word);
    const test = parts ? conditionOf(parts, data) : wordOf(word, data);
    if (!test) return null;
    tests.push(test);
  }
  return (row) => tests.every((test) => test(row));
}

function conditionOf([, name, sign, wanted], data) {
  const column = data.columns.find((one) => one.name.toLowerCase() === name.toLowerCase());
  if (!column) return null;
  const number = Number(wanted), numeric = wanted !== "" && !Number.isNaN(number);
  const compare = { "<": (a) => a < number, "<=": (a) => a <= number, ">": (a) => a > number, ">=": (a) => a >= number };
  if (compare[sign]) return numeric ? (row) => typeof column.values[row] === "number" && compare[sign](column.values[row]) : null;
  const same = (value) => (typeof value === "number" && numeric ? value === number : textOf(value).toLowerCase() === wanted.toLowerCase());
  return (row) => same(column.values[row]) === (sign === "=");
}

// An element's symbol asks for the element, -Symbol for crystals without it, any other word for text.
function wordOf(word, data) {
  const without = word.startsWith("-"), symbol = without ? word.slice(1) : word;
  if (Object.values(data.elements).some(([known]) => known === symbol)) {
    const formula = data.columns.find((column) => column.name === "formula").values;
    const has = new RegExp(`${symbol}(?![a-z])`);
    return (row) => has.test(formula[row]) !== without;
  }
  const texts = data.columns.filter((column) => column.values.some((value) => typeof value === "string"));
  const wanted = word.toLowerCase();
  return (row) => texts.some((column) => textOf(column.values[row]).toLowerCase().includes(wanted));
}

function textOf(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

class CrystalTable {
  constructor(data, choose) {
    Object.assign(this, { data, choose, order: [...Array(data.size).keys()], page: 0, chosen: null, sorting: null, descending: false });
    this.head = document.querySelector("#table thead tr");
    this.body = document.querySelector("#table tbody");
    document.getElementById("filter").addEventListener("input", () => this.update());
    document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("all-columns").addEventListener("change", () => this.render());
    document.getElementById("previous").addEventListener("click", () => this.turn(-1));
    document.getElementById("next").addEventListener("click", () => this.turn(1));
    this.body.addEventListener("click", (event) => this.select(event.target.closest("tr")));
    this.body.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.step(step, true);
    });
  }

  columns() {
    const all = document.getElementById("all-columns").checked;
    return this.data.columns.filter((column) => all || column.shown);
  }

  update() {
    const box = document.getElementById("filter"), passes = filterOf(box.value, this.data);
    box.setAttribute("aria-invalid", String(!passes));
    const found = document.getElementById("found");
    if (!passes) {
      found.textContent = `No such column. There are: ${this.data.columns.map((column) => column.name).join(", ")}.`;
      return;
    }
    this.order = [...Array(this.data.size).keys()].filter(passes);
    this.sort();
    found.textContent = this.order.length === this.data.size ? `${this.data.size} crystals` : `${this.order.length} of ${this.data.size} crystals`;
    this.page = 0;
    this.render();
  }

  sort() {
    if (!this.sorting) return;
    const values = this.sorting.values, sign = this.descending ? -1 : 1;
    const empty = (row) => values[row] === null || values[row] === undefined;
    const collator = new Intl.Collator(undefined, { numeric: true });
    const compare = (a, b) => (typeof a === "string" ? collator.compare(a, b) : Number(a) - Number(b));
    this.order.sort((a, b) => empty(a) - empty(b) || (empty(a) ? 0 : sign * compare(values[a], values[b])) || a - b);
  }

  sortBy(column) {
    this.descending = this.sorting === column && !this.descending;
    this.sorting = column;
    this.update();
    this.head.querySelector("[aria-sort] button").focus();
  }

  render() {
    const columns = this.columns();
    this.head.replaceChildren(...columns.map((column) => this.headOf(column)));
    const pages = Math.max(1, Math.ceil(this.order.length / ROWS));
    const rows = this.order.slice(this.page * ROWS, (this.page + 1) * ROWS);
    this.body.replaceChildren(...rows.map((row) => this.rowOf(row, columns)));
    if (!this.body.querySelector("[tabindex='0']") && this.body.firstChild) this.body.firstChild.tabIndex = 0;
    document.getElementById("page").textContent = `page ${this.page + 1} of ${pages}`;
    document.getElementById("previous").disabled = this.page === 0;
    document.getElementById("next").disabled = this.page + 1 >= pages;
  }

  headOf(column) {
    const cell = document.createElement("th"), button = cell.appendChild(document.createElement("button"));
    cell.scope = "col";
    cell.className = isNumeric(column) ? "number" : "";
    button.type = "button";
    button.title = `sort by ${column.name}`;
    button.textContent = column.title;
    if (this.sorting === column) {
      cell.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      button.textContent += this.descending ? " ↓" : " ↑";
    }
    button.addEventListener("click", () => this.sortBy(column));
    return cell;
  }

  rowOf(row, columns) {
    const line = document.createElement("tr");
    line.dataset.row = row;
    line.tabIndex = row === this.chosen ? 0 : -1;
    line.setAttribute("aria-selected", String(row === this.chosen));
    for (const column of columns) {
      const cell = line.appendChild(document.createElement("td")), value = column.values[row];
      cell.textContent = textOf(value);
      cell.className = typeof value === "boolean" ? (value ? "yes" : "no") : isNumeric(column) ? "number" : "";
      if (typeof value === "string" && value.length > 24) cell.title = value;
    }
    return line;
  }

  turn(by) {
    this.page += by;
    this.render();
  }

  select(line) {
    if (line) this.choose(Number(line.dataset.row));
  }

  // Marks a row, wherever the choice came from; the page turns to it where `follow` is set.
  mark(row, follow) {
    this.chosen = row;
    const place = this.order.indexOf(row);
    if (follow && place >= 0) this.page = Math.floor(place / ROWS);
    this.render();
  }

  step(by, focus) {
    const place = this.order.indexOf(this.chosen) + by;
    if (place < 0 || place >= this.order.length) return;
    this.choose(this.order[place]);
    const line = this.body.querySelector("[aria-selected=true]");
    if (focus && line) line.focus();
  }
}

function isNumeric(column) {
  return column.values.some((value) => typeof value === "number");
}
