"use strict";
// The page at work: one frame, one layer and perhaps one track are looked at; all parts follow.

const UNNAMED = /^\S+( centre)? (at \d|\d+ km )/; // "village 3 km west of Voss"

const report = (() => {
  const setup = JSON.parse(document.getElementById("setup").textContent);
  const {labels, map, layers, followed} = setup;
  const frames = new Frames(setup.frames);
  const state = {frame: labels.length - 1, layer: layers[0].name, track: null, tracks: true, step: 0,
    names: true, size: 0, places: followed[0]?.name ?? null};
  const $ = (id) => document.getElementById(id);
  let bokeh, plot, charts, world, colours, theme, playing = null, drawing = 0, fitted = true, moving = false, scaleAtRight = false;
  const tables = {}, worlds = {};

  async function start() {
    period = setup.period;
    theme = readTheme();
    const data = await unpackJson($("tables").textContent);
    followed.forEach(({name}, i) => { worlds[name] = new World(data[name], labels, i === 0 ? null : name); });
    const item = await unpackJson($("bokeh").textContent);
    const elements = Object.entries(item.roots).filter(([name]) => $(`plot-${name}`));
    await Bokeh.embed.embed_items(
      {report: item.document},
      [{docid: "report", roots: Object.fromEntries(elements.map(([name, id]) => [id, `plot-${name}`])),
        root_ids: elements.map(([, id]) => id)}]);
    bokeh = Bokeh.documents[Bokeh.documents.length - 1];
    plot = bokeh.get_model_by_name("map");
    charts = elements.map(([name]) => name).filter((name) => bokeh.get_model_by_name(`now-${name}`));
    for (const side of ["inner_width", "inner_height"]) plot.properties[side].change.connect(keepShape);
    for (const range of [plot.x_range, plot.y_range]) {
      for (const end of ["start", "end"]) range.properties[end].change.connect(look);
    }
    // On a phone years stand closer than their labels are wide.
    for (const name of charts) bokeh.get_model_by_name(name).below[0].ticker.desired_num_ticks = innerWidth < 600 ? 3 : 6;
    wire();
    writeInInk();
    follow();
    placeScale();
    whole();
    go();
    document.body.dataset.ready = "yes";
  }

  function wire() {
    const slider = $("frame");
    if (slider) {
      slider.addEventListener("input", () => show({frame: Number(slider.value)}));
      $("play").addEventListener("click", play);
    }
    for (const choice of document.querySelectorAll("input[name=layer]")) {
      choice.addEventListener("change", () => show({layer: choice.value}));
    }
    for (const name of ["tracks", "names"]) {
      $(name)?.addEventListener("change", (event) => show({[name]: event.target.checked}));
    }
    $("size")?.addEventListener("change", (event) => show({size: Number(event.target.value)}));
    $("closer").addEventListener("click", () => zoom(0.6));
    $("farther").addEventListener("click", () => zoom(1 / 0.6));
    $("whole").addEventListener("click", whole);
    $("theme").addEventListener("click", turnTheme);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    addEventListener("hashchange", go);
    const letGo = () => { location.hash = labels[state.frame]; };
    $("close")?.addEventListener("click", letGo);
    addEventListener("keydown", (event) => { if (event.key === "Escape" && state.track !== null) letGo(); });
  }

  // The address says what is looked at: #2010 a frame, #2010/12 one of its places, and
  // #2010/12/community one of another layer than the first.
  function go() {
    const [label, number, named] = decodeURIComponent(location.hash.slice(1)).split("/");
    const frame = labels.indexOf(label);
    if (frame < 0) return show({});
    const places = named ?? (number ? followed[0]?.name : state.places);
    const row = number && worlds[places] ? worlds[places].byFrame[frame].get(Number(number)) : null;
    const shown = layers.find(({name}) => name === state.layer);
    const layer = row && shown.kind === "places" ? places : state.layer;
    return show({frame, layer, places, track: row ? row.track : null});
  }

  // Let tables, lists and timeline be those of the settlements, or of the communities.
  function follow() {
    world = worlds[state.places] ?? null;
    colours = setup.colours[state.places];
    if (world === null) return;
    const {one, many} = followed.find(({name}) => name === state.places);
    for (const element of document.querySelectorAll("[data-one]")) element.textContent = one;
    for (const element of document.querySelectorAll("[data-many]")) element.textContent = many;
    for (const element of document.querySelectorAll("[data-followed]")) {
      element.hidden = element.dataset.followed !== state.places;
    }
    if ($("plot-velocity")) $("plot-velocity").hidden = world.named;
    makeTables(many);
  }

  function pick(row, toMap = true) {
    const address = anchor(row, labels);
    if (location.hash === address) go();
    else location.hash = address;
    if (toMap) $("part-map").scrollIntoView({behavior: "smooth"});
  }

  async function show(change) {
    const before = state.places;
    Object.assign(state, change);
    if (change.layer in worlds) state.places = change.layer;
    if (state.places !== before) {
      if (!("track" in change)) state.track = null;
      follow();
    }
    const label = labels[state.frame];
    if ($("frame")) {
      $("frame").value = state.frame;
      $("frame").setAttribute("aria-valuetext", label);
    }
    for (const element of document.querySelectorAll("[data-now]")) element.textContent = label;
    for (const name of charts) bokeh.get_model_by_name(`now-${name}`).location = setup.milliseconds[state.frame];
    for (const choice of document.querySelectorAll("input[name=layer]")) choice.checked = choice.value === state.layer;
    legend();
    if (world) { paths(); names(); fillTables(); panel(); }
    await raster();
  }

  // ------------------------------------------------------------------ the map

  async function raster() {
    const turn = ++drawing;
    state.step = stepNow();
    const {layer, frame} = state;
    const kind = layers.find(({name}) => name === layer).kind;
    const chosen = world && state.track !== null ? (world.at(frame, state.track)?.community ?? -1) + 1 : 0;
    const [shown, people, groups] = await Promise.all([
      frames.get(layer, frame),
      kind === "amount" || !frames.has(map.amounts) ? null : frames.get(map.amounts, frame),
      chosen ? frames.get(state.places, frame) : null,
    ]);
    if (turn !== drawing) return; // somebody moved on
    const shades = kind === "places" ? 8 : 1;
    const {pixels, height, width} = paint({
      shape: [map.rows, map.cols], step: state.step, values: shown.codes, theme,
      amounts: people ? people.codes : null, groups: groups ? groups.codes : null, chosen,
      shade: people ? shadesOf(people, scaleOf(map.amounts), shades) : null,
      colours: kind === "amount" ? amountColours(shown, scaleOf(layer), theme.ramp, theme)
        : labelColours(labelRgb(layer, kind, frame), theme, shades),
    });
    pixels.shape = [height, width];
    pixels.dimension = 2;
    pixels.dtype = "uint32";
    const [dw, dh] = [width * state.step * map.width, height * state.step * map.height];
    const y = map.upright ? map.size[1] : 0;
    bokeh.get_model_by_name("raster").data = {image: [pixels], x: [0], y: [y], dw: [dw], dh: [dh]};
    await new Promise(requestAnimationFrame); // Bokeh takes the data in before it paints
    for (const view of Bokeh.index.roots) if (view.model === plot) view.request_repaint();
    self.drawn = `${layer}-${frame}`;
  }

  function scaleOf(layer) {
    return layers.find(({name}) => name === layer).scale;
  }

  function labelRgb(layer, kind, frame) {
    if (kind === "places") {
      const found = [];
      for (const [community, row] of world.byFrame[frame]) found[community] = row.people < state.size ? theme.nobody : rgb(colours[row.track]);
      return Array.from(found, (colour) => colour ?? theme.nobody);
    }
    const {palette} = layers.find(({name}) => name === layer);
    return Array.from({length: 256}, (_, i) => rgb(palette[i % palette.length]));
  }

  // Cells along a side of a pixel, so that lone villages are not lost between pixels.
  function stepNow() {
    const across = (plot.x_range.end - plot.x_range.start) / map.width / (plot.inner_width || 1);
    return 2 ** Math.max(0, Math.floor(Math.log2(across / Math.min(devicePixelRatio, 2) + 1e-9)));
  }

  let looked = null;
  function look() {
    if (!moving) fitted = false; // somebody dragged or scrolled
    requestAnimationFrame(names);
    clearTimeout(looked);
    looked = setTimeout(() => { if (stepNow() !== state.step) raster(); }, 150);
  }

  function whole() {
    const [width, height] = map.size;
    setView(width / 2, height / 2, Math.max(width / plot.inner_width, height / plot.inner_height));
    fitted = true;
  }

  function zoom(by) {
    const {x_range: x, y_range: y} = plot;
    fitted = false;
    setView((x.start + x.end) / 2, (y.start + y.end) / 2, by * (x.end - x.start) / plot.inner_width);
  }

  function setView(x, y, kilometres) {
    if (!isFinite(kilometres)) return;
    const [w, h] = [kilometres * plot.inner_width / 2, kilometres * plot.inner_height / 2];
    moving = true;
    plot.x_range.setv({start: x - w, end: x + w});
    plot.y_range.setv({start: y - h, end: y + h});
    moving = false;
  }

  // In a window of another size: the whole map, or all that was looked at.
  function keepShape() {
    const {x_range: x, y_range: y} = plot;
    if (fitted) return whole();
    const every = Math.max((x.end - x.start) / plot.inner_width, (y.end - y.start) / plot.inner_height);
    return setView((x.start + x.end) / 2, (y.start + y.end) / 2, every);
  }

  function paths() {
    const none = {xs: [], ys: [], colour: [], dash: []};
    const {trails, joints} = state.tracks ? world.paths(state.frame, colours, world.family(state.track), state.size) : {trails: none, joints: none};
    const all = [...world.byFrame[state.frame].values()];
    const most = Math.max(...all.map((row) => row.people), 1);
    const family = world.family(state.track);
    const rows = state.tracks ? all.filter((row) =>
      row.people >= state.size && (!family || family.has(row.track))) : [];
    bokeh.get_model_by_name("joints").data = joints;
    bokeh.get_model_by_name("trails").data = trails;
    bokeh.get_model_by_name("spots").data = {
      x: rows.map((row) => row.x), y: rows.map((row) => row.y),
      size: rows.map((row) => 4 + 12 * Math.sqrt(row.people / most)),
      colour: rows.map((row) => colours[row.track]),
      mark: rows.map((row) => markOf(row.track)),
    };
  }

  // Names as far as they have room, the largest places first: so there are more when one zooms in.
  function names() {
    const called = $("called");
    if (!called) return;
    const {x_range: x, y_range: y, inner_width: width, inner_height: height} = plot;
    const from = scaleAtRight ? 0.68 * width : 0;
    const taken = [[from, height - 44, from + 0.32 * width, height], [width - 50, 0, width, 132]]; // scale, buttons
    const written = [];
    for (const row of state.names && world?.named ? largest() : []) {
      const at = (row.x - x.start) / (x.end - x.start) * width;
      const top = (y.end - row.y) / (y.end - y.start) * height - 8;
      if (at < 0 || top < 0 || at > width || top > height) continue;
      if (UNNAMED.test(row.name)) continue; // the map shows where it lies
      const wide = 7.5 * row.name.length + 4;
      const sides = [[at + 7, top, at + 7 + wide, top + 16], [at - 7 - wide, top, at - 7, top + 16]];
      const box = sides.find((side) => side[0] > 0 && side[2] < width && taken.every(([l, t, r, b]) =>
        side[0] > r || side[2] < l || side[1] > b || side[3] < t));
      if (box === undefined) continue;
      taken.push(box);
      const span = make("span", {class: row.kind}, row.name);
      const place = box === sides[0] ? `${Math.round(at + 7)}px` : `calc(${Math.round(at - 7)}px - 100%)`;
      span.style.transform = `translate(${place}, ${Math.round(top)}px)`;
      written.push(span);
      if (written.length === 80) break;
    }
    called.replaceChildren(...written);
  }

  // The scale stands in the lower corner where fewer places are.
  function placeScale() {
    const low = [...(world?.byFrame[labels.length - 1].values() ?? [])].filter(({y}) => y < 0.1 * map.size[1]);
    const between = (one, other) => low.filter(({x}) => x >= one * map.size[0] && x <= other * map.size[0]).length;
    scaleAtRight = between(0.65, 1) < between(0, 0.35);
    bokeh.get_model_by_name("scale").location = scaleAtRight ? "bottom_right" : "bottom_left";
  }

  let sorted = {};
  function largest() {
    const what = `${state.places} ${state.frame} ${state.size}`;
    if (sorted.what !== what) {
      sorted = {what, rows: world.ranked(state.frame, (row) => row.people, state.size, Infinity)};
    }
    return sorted.rows;
  }

  function cellAt(x, y) {
    const col = Math.floor(x / map.width);
    const row = Math.floor((map.upright ? map.size[1] - y : y) / map.height);
    return row < 0 || col < 0 || row >= map.rows || col >= map.cols ? null : [row, col];
  }

  async function communityAt(x, y, reach) {
    const at = cellAt(x, y);
    if (at === null || world === null) return null;
    const {codes} = await frames.get(state.places, state.frame);
    let best = null, nearest = (reach + 0.5) ** 2;
    for (let row = Math.max(0, at[0] - reach); row <= Math.min(map.rows - 1, at[0] + reach); row++) {
      for (let col = Math.max(0, at[1] - reach); col <= Math.min(map.cols - 1, at[1] + reach); col++) {
        const code = codes[row * map.cols + col], far = (row - at[0]) ** 2 + (col - at[1]) ** 2;
        if (code > 0 && far < nearest) [best, nearest] = [code - 1, far];
      }
    }
    return best === null ? null : world.byFrame[state.frame].get(best) ?? null;
  }

  async function tap(x, y) {
    const finger = matchMedia("(pointer: coarse)").matches ? 14 : 6; // pixels
    const across = (plot.x_range.end - plot.x_range.start) / plot.inner_width / map.width;
    const row = await communityAt(x, y, Math.min(Math.ceil(finger * across), 40));
    if (row) pick(row, false);
    else location.hash = labels[state.frame];
  }

  async function hover({x, y, sx, sy}) {
    const at = cellAt(x, y), tip = $("tip");
    if (at === null) return leave();
    const lines = await Promise.all(layers.filter(({kind}) => kind !== "places").map(async (layer) => {
      const found = await frames.get(layer.name, state.frame);
      const code = found.codes[at[0] * map.cols + at[1]];
      if (layer.kind !== "amount") return code ? `${layer.one} ${code - 1}` : null;
      if (code === 0) return "no data";
      return code < FIRST ? layer.none : layer.tooltip.replace("#", decimals(Number(amountOf(code, found).toPrecision(2)), 2));
    }));
    const row = await communityAt(x, y, 0);
    if (row) lines.unshift(`${nameOf(row)}: ${count(row.people)} people`);
    tip.textContent = lines.filter(Boolean).join(" · ");
    tip.hidden = false;
    const width = $("plot-map").clientWidth;
    tip.style.left = `${Math.min(sx + 12, width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${sy + 14}px`;
    return undefined;
  }

  function leave() {
    $("tip").hidden = true;
  }

  function legend() {
    for (const part of document.querySelectorAll("[data-legend]")) {
      part.hidden = part.dataset.legend !== state.layer;
    }
  }

  function play() {
    const stop = () => { clearInterval(playing); playing = null; $("play").textContent = "▶ play"; };
    if (playing) return stop();
    if (state.frame === labels.length - 1) show({frame: 0});
    $("play").textContent = "❚❚ stop";
    playing = setInterval(() => {
      if (state.frame === labels.length - 1) return stop();
      return show({frame: state.frame + 1});
    }, 800);
    return undefined;
  }

  // ------------------------------------------------------------------ the place

  function panel() {
    const track = state.track;
    $("hint").hidden = track !== null;
    $("chosen").hidden = track === null;
    if (track === null && world.named) rankings($("rankings"), world, state.frame, state.size);
    else if (!world.named) $("rankings").replaceChildren();
    const life = track === null ? [] : world.byTrack.get(track);
    if (track !== null) describe($("about"), world.at(state.frame, track), track, world, state.frame);
    const curve = bokeh.get_model_by_name("curve");
    if (!curve) return; // of one frame
    curve.data = {
      time: life.map((row) => setup.milliseconds[row.frame]), people: life.map((row) => row.people),
      area: life.map((row) => row.area), velocity: life.map((row) => row.velocity ?? NaN),
    };
    const moves = life.some((row) => row.velocity !== undefined);
    $("curve-numbers").replaceChildren(plainTable(
      [period, "people", "area, km²", ...(moves ? ["velocity, km per year"] : [])],
      life.map((row) => [labels[row.frame], count(row.people), decimals(row.area, 1),
        ...(moves ? [decimals(row.velocity ?? null, 2)] : [])])));
    for (const name of ["people", "area", "velocity"]) {
      if (!$(`plot-${name}`)) continue;
      const most = Math.max(...life.map((row) => row[name] ?? 0));
      bokeh.get_model_by_name(name).y_range.end = 1.1 * most || 1;
    }
  }

  function lane(time, lane) {
    const track = bokeh.get_model_by_name(`lanes-${state.places}`).tags[0][lane];
    const rows = world.byTrack.get(track) ?? [];
    const far = (row) => Math.abs(setup.milliseconds[row.frame] - time);
    if (rows.length) pick(rows.reduce((one, other) => (far(other) < far(one) ? other : one)));
  }

  function makeTables(many) {
    for (const name of ["places", "events"]) $(`table-${name}`)?.replaceChildren();
    const number = (title, value, text) => ({title, value, text, number: true});
    const {named} = world, several = labels.length > 1;
    const {one} = followed.find(({name}) => name === state.places);
    const called = named ? {title: one, value: nameOf, text: nameOf}
      : number("community", (row) => row.community, (row) => String(row.community));
    // Towns that have grown together are told beside the largest, which names them all.
    const others = (row) => (row.places ?? "").split(", ").filter((name) => name && name !== row.name).join(", ");
    const withOthers = named && [...world.byTrack.values()].some((rows) => rows.some(others));
    tables.places = new Table($("table-places"), [
      called,
      ...(named ? [{title: "kind", value: (row) => row.kind, text: (row) => row.kind}]
        : [number("track", (row) => row.track, (row) => String(row.track))]),
      number("people", (row) => row.people, (row) => count(row.people)),
      ...(world.settled ? [{title: "in the settlement", value: (row) => row.settlement, text: (row) => row.settlement}] : []),
      ...(withOthers ? [{title: "with", value: others, text: others}] : []),
      ...(named && several ? [number("growth per year", (row) => row.growth, (row) => signed(row.growth)),
        number(`per year since its first ${period}`, (row) => row.rate, (row) => signed(row.rate))] : []),
      number("area, km²", (row) => row.area, (row) => decimals(row.area, 1)),
      number("people per km²", (row) => row.people / row.area, (row) => count(row.people / row.area)),
      ...(named || !several ? [] : [number("moves, km per year", (row) => row.velocity, (row) => decimals(row.velocity, 2))]),
      ...(several ? [{title: "what happened", value: (row) => row.events.join(", "), text: (row) => row.events.map((event) => HAPPENED[event]).join(", ")}] : []),
    ], {pick, word: many, sort: 2});
    if (!several) return;
    tables.events = new Table($("table-events"), [
      {title: period, value: (row) => row.frame, text: (row) => labels[row.frame]},
      {title: "what happened", value: (row) => row.event, text: (row) => HAPPENED[row.event]},
      ...(named ? [] : [number("track", (row) => row.track, (row) => String(row.track))]),
      called,
      number("people", (row) => row.people, (row) => count(row.people)),
      {title: named ? "from" : "from tracks", value: (row) => row.parents.length,
        text: (row) => ["split", "merge"].includes(row.event)
          ? row.parents.map((track) => named ? world.trackName(track) : track).join(", ") : ""},
    ], {pick, word: "events", sort: 0, also: (row) => row.places ?? ""});
    tables.events.fill(world.events);
  }

  function fillTables() {
    const rows = [...world.byFrame[state.frame].values()].filter((row) => row.people >= state.size);
    tables.places.fill(rows, (row) => row.track === state.track);
  }

  // ------------------------------------------------------------------ light and dark

  function readTheme() {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    const {ramp, noData, nobody} = setup.themes[dark ? "dark" : "light"];
    document.documentElement.style.setProperty("--nobody", nobody);
    document.documentElement.style.setProperty("--unknown", noData);
    return {dark, ramp: ramp.map(rgb), noData: rgb(noData), nobody: rgb(nobody)};
  }

  function turnTheme() {
    document.documentElement.dataset.theme = readTheme().dark ? "light" : "dark";
    repaint();
  }

  // What Bokeh styles before it is on the page takes no CSS variables.
  function writeInInk() {
    const ink = getComputedStyle(document.body).color;
    for (const root of bokeh.roots()) {
      for (const part of [root.title, ...root.above, ...root.center].filter(Boolean)) {
        for (const name of ["text_color", "label_text_color"]) {
          if (part[name] !== undefined) part[name] = ink;
        }
      }
    }
  }

  function repaint() {
    theme = readTheme();
    writeInInk();
    for (const view of Bokeh.index.roots) view.request_repaint?.(); // tooltips are roots, too
    raster();
  }

  const self = {start, tap, hover, leave, lane, map: () => plot, grid: map, drawn: null};
  return self;
})();

report.start();
