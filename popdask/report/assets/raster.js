"use strict";
// Codes of cells turned into pixels. Codes of amounts: 0 no data, 1 nobody, then a log scale.

const NOBODY = 1, FIRST = 2, STEPS = 253;

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function pixel([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function mixed(one, other, share) {
  return one.map((value, i) => Math.round(value * share + other[i] * (1 - share)));
}

function amountOf(code, frame) {
  return code < FIRST ? 0 : frame.low * (frame.high / frame.low) ** ((code - FIRST) / STEPS);
}

// Where an amount is on the colour scale of its layer, from 0 to 1.
function place(amount, scale) {
  const {low, high} = scale;
  const at = scale.linear ? (amount - low) / (high - low) : Math.log(amount / low) / Math.log(high / low);
  return Math.min(Math.max(at, 0), 1);
}

// The colour of each code of an amount, and the same faded to what is not looked at.
function amountColours(frame, scale, ramp, theme) {
  const colours = [theme.noData, theme.nobody];
  for (let code = FIRST; code < 256; code++) {
    colours.push(ramp[Math.round(place(amountOf(code, frame), scale) * (ramp.length - 1))]);
  }
  return palette(colours, theme, 1);
}

function labelColours(colours, theme, shades) {
  return palette([theme.nobody, ...colours], theme, shades);
}

// Each colour in some shades, the fullest last, and all of it faded to what is not looked at.
function palette(colours, theme, shades) {
  const all = colours.flatMap((colour) => Array.from({length: shades}, (_, i) =>
    mixed(colour, theme.nobody, shades === 1 ? 1 : 0.3 + (0.7 * i) / (shades - 1))));
  return {
    shades,
    clear: Uint32Array.from(all, pixel),
    faded: Uint32Array.from(all, (colour) => pixel(mixed(colour, theme.nobody, 0.3))),
  };
}

// The shade of each code of an amount: the more people, the fuller the colour.
function shadesOf(frame, scale, shades) {
  return Uint8Array.from({length: 256}, (_, code) => code < FIRST || shades === 1 ? 0
    : 1 + Math.round(place(amountOf(code, frame), scale) * (shades - 2)));
}

// Paint a layer, `step` cells along a side to a pixel: the densest cell, or any label, is seen.
function paint({shape: [rows, cols], step, values, amounts, shade, colours, theme, groups, chosen}) {
  const [height, width] = [Math.ceil(rows / step), Math.ceil(cols / step)];
  const pixels = new Uint32Array(height * width);
  const noData = pixel(theme.noData);
  for (let row = 0, at = 0; row < height; row++) {
    for (let col = 0; col < width; col++, at++) {
      let most = 0, known = 0, inside = false;
      for (let y = row * step; y < Math.min((row + 1) * step, rows); y++) {
        for (let x = col * step, i = y * cols + x; x < Math.min((col + 1) * step, cols); x++, i++) {
          if (values[i] > most) most = values[i];
          if (amounts !== null && amounts[i] > known) known = amounts[i];
          if (chosen > 0 && groups[i] === chosen) inside = true;
        }
      }
      const index = most * colours.shades + (shade === null ? 0 : shade[known]);
      if (most === 0 && amounts !== null && known === 0) pixels[at] = noData;
      else pixels[at] = (chosen > 0 && !inside ? colours.faded : colours.clear)[index];
    }
  }
  return {pixels, height, width};
}
