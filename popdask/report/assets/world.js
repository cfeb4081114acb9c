"use strict";
// Who is where, and who came from whom: the tables of places, links and events, looked up.

class World {
  // In addresses the rows are those `of` a layer, where that is not the first.
  constructor({places, links, events}, labels, of = null) {
    this.labels = labels;
    this.named = "name" in places;
    this.settled = "settlement" in places;
    this.byFrame = labels.map(() => new Map());
    this.byTrack = new Map();
    for (const row of rowsOf(places)) {
      this.byFrame[row.frame].set(row.community, row);
      if (!this.byTrack.has(row.track)) this.byTrack.set(row.track, []);
      this.byTrack.get(row.track).push(row);
      Object.assign(row, {parents: [], children: [], events: [], of});
    }
    this.links = rowsOf(links);
    for (const {frame, source, target, people} of this.links) {
      const before = this.byFrame[frame].get(source), after = this.byFrame[frame + 1].get(target);
      before.children.push({row: after, people});
      after.parents.push({row: before, people});
    }
    this.events = rowsOf(events);
    for (const event of this.events) {
      const row = this.byFrame[event.frame].get(event.community);
      row.events.push(event.event);
      Object.assign(event, {people: row.people, of, ...(this.named && {name: row.name, places: row.places})});
    }
  }

  at(frame, track) {
    return (this.byTrack.get(track) ?? []).find((row) => row.frame === frame) ?? null;
  }

  // The name of a track: that of its settlement, or its number.
  trackName(track) {
    return this.byTrack.get(track)?.[0].name ?? `track ${track}`;
  }

  // The first of the places of a frame by some number, those without one left out.
  ranked(frame, number, least, most) {
    const rows = [...this.byFrame[frame].values()].filter((row) =>
      row.people >= least && (number(row) ?? null) !== null);
    return rows.sort((one, other) => number(other) - number(one)).slice(0, most);
  }

  // A track with those that it came from and those that came from it; null for no track.
  family(track) {
    if (track === null) return null;
    const near = this.byTrack.get(track).flatMap((row) => [...row.parents, ...row.children]);
    return new Set([track, ...near.map(({row}) => row.track)]);
  }

  // The paths of tracks up to a frame, and the steps from one track to another.
  paths(frame, colours, family, least = 0) {
    const trails = {xs: [], ys: [], colour: [], dash: []};
    const joints = {xs: [], ys: [], colour: [], dash: []};
    for (const [track, rows] of this.byTrack) {
      if (family && !family.has(track)) continue;
      const past = rows.filter((row) => row.frame <= frame);
      if (!past.some((row) => row.people >= least)) continue;
      if (past.length > 1) add(trails, past, colours[track], dashOf(track));
      for (const row of past) {
        for (const {row: parent} of row.parents) {
          const known = !family || family.has(parent.track);
          if (parent.track !== track && known) add(joints, [parent, row], "#999999");
        }
      }
    }
    // Where there are many steps, each is fainter.
    const share = Math.min(Math.max(60 / Math.max(joints.xs.length, 1), 0.12), 1);
    joints.colour.fill(`#888888${Math.round(255 * share).toString(16).padStart(2, "0")}`);
    return {trails, joints};
  }
}

// Tracks of like colours differ in their lines and marks: who sees no colours tells them apart.
const DASHES = [[], [8, 3], [3, 3], [8, 3, 2, 3], [14, 4]];
const MARKS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star"];
const dashOf = (track) => DASHES[track % DASHES.length];
const markOf = (track) => MARKS[track % MARKS.length];

function add(lines, rows, colour, dash = []) {
  lines.xs.push(rows.map((row) => row.x));
  lines.ys.push(rows.map((row) => row.y));
  lines.colour.push(colour);
  lines.dash.push(dash);
}

function rowsOf(columns) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, i) =>
    Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}
