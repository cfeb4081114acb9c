"use strict";
// What is said of the settlement or community that somebody picked.

let period = "frame"; // or "year", where each frame is one

const TOLD = {
  appear: () => `It appears in this ${period}.`,
  grow: () => `It has grown since the ${period} before, beyond the job's threshold and the noise of counts.`,
  shrink: () => `It has shrunk since the ${period} before, beyond the job's threshold and the noise of counts.`,
  split: () => "It is a part of one that split.",
  merge: () => "Several merged into it.",
  vanish: () => "It is seen here for the last time.",
};
const HAPPENED = {appear: "appeared", grow: "grew", shrink: "shrank", split: "split", merge: "merged",
  vanish: "seen for the last time"};
const DIRECTIONS = ["north", "north-east", "east", "south-east", "south", "south-west", "west",
  "north-west"];

function direction(heading) {
  return heading === null ? "" : ` to the ${DIRECTIONS[Math.round(heading / 45) % 8]}`;
}

function nameOf(row) {
  return row.name ?? `community ${row.community}`;
}

function anchor(row, labels) {
  return `#${encodeURIComponent(labels[row.frame])}/${row.community}${row.of === null ? "" : `/${row.of}`}`;
}

function signed(number) {
  return number === null ? "–" : `${number > 0 ? "+" : number < 0 ? "−" : ""}${Math.abs(number).toFixed(1)} %`;
}

// The largest, and those that grow and shrink fastest, as lists to click on.
function rankings(place, world, frame, least) {
  const {labels} = world, floor = Math.max(least, 5000);
  const list = (title, rows, text) => rows.length === 0 ? [] : [make("h3", {}, title),
    make("ol", {}, ...rows.map((row) => make("li", {}, make("a", {href: anchor(row, labels)}, nameOf(row)),
      make("span", {class: "quiet"}, text(row)))))];
  // A rate per year of one that is known for a few of the frames alone is mostly noise.
  const known = (row) => world.byTrack.get(row.track)[0].frame <= frame / 2;
  const rate = (row) => known(row) ? row.rate ?? null : null, fall = (row) => rate(row) === null ? null : -rate(row);
  const from = `of ${count(floor)} people or more, per year`;
  place.replaceChildren(
    ...list(`Largest in ${labels[frame]}`, world.ranked(frame, (row) => row.people, least, 8), (row) => count(row.people)),
    ...list(`Growing fastest since their first ${period}, ${from}`,
      world.ranked(frame, rate, floor, 8).filter((row) => row.rate > 0), (row) => signed(row.rate)),
    ...list(`Shrinking fastest since their first ${period}, ${from}`,
      world.ranked(frame, fall, floor, 5).filter((row) => row.rate < 0), (row) => signed(row.rate)),
  );
}

function facts(row, several) {
  const speed = (row.velocity ?? null) === null ? `not known in its first ${period}`
    : `${decimals(row.velocity, 2)} km per year${direction(row.heading)}`;
  const rows = [
    ["people", count(row.people)],
    ["area", `${decimals(row.area, 1)} km²`],
    ["density", `${count(row.people / row.area)} people per km²`],
    ["cells", count(row.cells)],
    ...(row.settlement ? [["in the settlement", row.settlement]] : []),
    ...(row.name === undefined ? [] : [["kind", row.kind]]),
    ...(row.places ? [["largest places in it", row.places]] : []),
    ...(!several ? [] : row.name === undefined ? [["moves", speed]]
      : [["growth", `${signed(row.growth)} per year`], [`since its first ${period}`, `${signed(row.rate)} per year`]]),
  ];
  return make("dl", {}, ...rows.flatMap(([name, text]) =>
    [make("dt", {}, name), make("dd", {"data-fact": name}, text)]));
}

function relatives(title, found, labels, none) {
  const sorted = [...found].sort((one, other) => other.people - one.people);
  const items = sorted.map(({row, people}) => make("li", {},
    make("a", {href: anchor(row, labels)}, `${nameOf(row)} of ${labels[row.frame]}`),
    make("span", {class: "quiet"}, `${row.name ? "" : ` track ${row.track},`} ${count(people)} people in common`)));
  return make("section", {class: "relatives"}, make("h4", {}, title),
    items.length ? make("ul", {}, ...items) : make("p", {class: "quiet"}, none));
}

function describe(place, row, track, world, frame) {
  const {labels} = world, life = world.byTrack.get(track), several = labels.length > 1;
  const span = `Track ${track} is followed from ${labels[life[0].frame]} to ` +
    `${labels[life[life.length - 1].frame]}.`;
  const called = world.named ? world.trackName(track) : `Track ${track}`;
  if (row === null) {
    const last = [...life].reverse().find((there) => there.frame < frame) ?? life[0];
    place.replaceChildren(make("h3", {}, called),
      make("p", {}, `It is not there in ${labels[frame]}. ${span} `,
        make("a", {href: anchor(last, labels)}, `See it in ${labels[last.frame]}`)));
    return;
  }
  const lastFrame = frame === labels.length - 1;
  place.replaceChildren(
    make("h3", {}, `${row.name ?? `Community ${row.community}`} of ${labels[frame]}`),
    ...(several ? [make("p", {class: "quiet"}, [span, ...row.events.map((event) => TOLD[event]())].join(" "))] : []),
    facts(row, several),
    ...(!several ? [] : [relatives("Came from", row.parents, labels,
      frame === 0 ? `Not known: it is the first ${period}.` : "Nothing: it is new."),
    relatives("Became", row.children, labels,
      lastFrame ? `Not known: it is the last ${period}.` : "Nothing: it ends here.")]),
  );
}
