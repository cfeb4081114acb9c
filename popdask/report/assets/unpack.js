"use strict";
// What the page carries, unpacked: base64 of zlib, as popdask.report.overview packs it.

const ARRAYS = {uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array};

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function unpackJson(text) {
  return JSON.parse(new TextDecoder().decode(await unpack(text)));
}

// The frames of all layers, unpacked when they are looked at; the last few are kept.
class Frames {
  constructor(frames, kept = 12) {
    this.frames = frames;
    this.kept = kept;
    this.found = new Map();
  }

  has(layer) {
    return layer in this.frames;
  }

  get(layer, frame) {
    const key = `${layer}-${frame}`;
    const found = this.found.get(key) ?? this.read(layer, frame, key);
    this.found.delete(key);
    this.found.set(key, found); // the newest is the last one
    if (this.found.size > this.kept) this.found.delete(this.found.keys().next().value);
    return found;
  }

  async read(layer, frame, key) {
    const meta = this.frames[layer][frame];
    const buffer = await unpack(document.getElementById(key).textContent);
    return {...meta, codes: new ARRAYS[meta.dtype](buffer)};
  }
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const count = (number) => Math.round(number).toLocaleString("en");
const decimals = (number, digits) =>
  number === null ? "–" : number.toLocaleString("en", {maximumFractionDigits: digits});
