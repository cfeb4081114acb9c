"use strict";
// A table that sorts by a click on its head, finds words and numbers, and turns its pages.

class Table {
  // A column: {title, value(row), text(row), number: true | false}; `also` is what is found, too.
  constructor(place, columns, {pick, word = "rows", size = 12, sort = 0, down = true, also = () => ""}) {
    Object.assign(this, {columns, pick, word, size, sort, down, also, rows: [], first: 0});
    this.search = make("input", {type: "search", placeholder: `Find in ${word} …`,
      "aria-label": `Find in ${word}`, oninput: () => this.turn(-Infinity)});
    this.found = make("span", {class: "quiet"});
    this.head = make("tr");
    this.body = make("tbody");
    this.back = make("button", {type: "button", onclick: () => this.turn(-size)}, "‹ back");
    this.on = make("button", {type: "button", onclick: () => this.turn(size)}, "next ›");
    this.pages = make("span", {class: "pages"}, this.back, this.on);
    this.grid = make("div", {class: "scroll", role: "region", tabindex: 0, "aria-label": `Table of ${word}`},
      make("table", {}, make("thead", {}, this.head), this.body));
    place.append(make("div", {class: "find"}, this.search, this.found, this.pages), this.grid);
    this.heads = columns.map((column, i) => make("th",
      {scope: "col", class: column.number ? "number" : null},
      make("button", {type: "button", onclick: () => this.sortBy(i)}, column.title)));
    this.head.append(...this.heads);
  }

  fill(rows, isChosen = () => false) {
    this.rows = rows;
    this.isChosen = isChosen;
    this.search.hidden = this.grid.hidden = rows.length === 0; // nothing to look for
    this.turn(0);
  }

  sortBy(column) {
    this.down = this.sort === column ? !this.down : Boolean(this.columns[column].number);
    this.sort = column;
    this.turn(-Infinity);
  }

  turn(by) {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = (row) => [...this.columns.map((column) => column.text(row)), this.also(row)].join(" ").toLowerCase();
    const shown = words.length === 0 ? [...this.rows]
      : this.rows.filter((row) => words.every(finder(texts(row))));
    const {value} = this.columns[this.sort];
    const sign = this.down ? -1 : 1;
    shown.sort((one, other) => sign * compare(value(one), value(other)));
    this.first = Math.max(0, Math.min(this.first + by, this.last(shown.length)));
    this.draw(shown);
  }

  last(length) {
    return Math.max(0, Math.floor((length - 1) / this.size) * this.size);
  }

  draw(shown) {
    const page = shown.slice(this.first, this.first + this.size);
    const focused = [...this.body.children].indexOf(document.activeElement);
    this.body.replaceChildren(...page.map((row) => make("tr",
      {class: this.isChosen(row) ? "chosen" : null, tabindex: 0, onclick: () => this.pick(row),
        onkeydown: (event) => { if (event.key === "Enter") this.pick(row); }},
      ...this.columns.map((column) =>
        make("td", {class: column.number ? "number" : null}, column.text(row))))));
    if (focused >= 0) this.body.children[focused]?.focus({preventScroll: true});
    this.heads.forEach((head, i) => head.setAttribute("aria-sort",
      i !== this.sort ? "none" : this.down ? "descending" : "ascending"));
    const upTo = Math.min(this.first + this.size, shown.length);
    this.found.textContent = this.rows.length === 0 ? `No ${this.word}.`
      : shown.length === 0 ? `no ${this.word} found`
      : `${count(this.first + 1)}–${count(upTo)} of ${count(shown.length)} ${this.word}`;
    this.pages.hidden = shown.length <= this.size;
    this.back.disabled = this.first === 0;
    this.on.disabled = upTo === shown.length;
  }
}

// Whether a word is in a text: parts of words are found, but a number by the whole of it alone.
function finder(text) {
  const plain = (number) => number.replaceAll(",", "");
  const numbers = new Set((text.match(/\d[\d,.]*/g) ?? []).map((number) => plain(number.replace(/[,.]+$/, ""))));
  return (word) => /^[\d,.]+$/.test(word) ? numbers.has(plain(word)) : text.includes(word);
}

// What a picture shows, as a plain table.
function plainTable(head, rows) {
  const cells = (tag, row, more) => make("tr", {}, ...row.map((text, i) =>
    make(tag, {class: i > 0 ? "number" : null, ...more}, text)));
  return make("table", {}, make("thead", {}, cells("th", head, {scope: "col"})),
    make("tbody", {}, ...rows.map((row) => cells("td", row, {}))));
}

// Numbers by size, texts by alphabet; what there is not of goes below everything.
function compare(one, other) {
  if (one === null || other === null) return (one !== null) - (other !== null);
  if (typeof one === "number") return one - other;
  return String(one).localeCompare(String(other), "en");
}
