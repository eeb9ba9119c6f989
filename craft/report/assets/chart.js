// One chart: axes, lines, bands, and the values under the pointer or the arrow keys.

const ROWS = 14;

/** Draw a chart into its figure: {names, title, zero, small}. */
function draw(figure, chart, data, view) {
  const lines = linesOf(data, chart.names, view);
  const box = { width: Math.max(240, figure.plot.clientWidth), height: chart.small ? 190 : 380 };
  const inner = { left: 52, right: box.width - 22, top: 10, bottom: box.height - 38 };
  figure.plot.replaceChildren();
  figure.tip.hidden = true;
  const xs = domainOf(lines.flatMap((line) => line.points.map((point) => point[0])), view.logX, 0);
  const ys = domainOf(heights(lines, !chart.small && view.late), view.logY, 0.04);
  if (!xs || !ys) {
    figure.plot.append(node("p", { class: "empty" }, "Nothing to draw here with these settings."));
    figure.at = null;
    return;
  }
  if (chart.zero && !view.logY) ys[0] = 0;
  const [unit, size] = view.x === "clock/seconds" ? timeUnit(xs[1]) : [null, 1];
  const x = scale(xs.map((value) => value / size), [inner.left, inner.right], view.logX);
  const y = scale(ys, [inner.bottom, inner.top], view.logY);
  const svg = node("svg", { viewBox: `0 0 ${box.width} ${box.height}`, width: box.width, height: box.height, "aria-hidden": "true" });
  const clip = `clip-${figure.number}`;
  const place = (point) => `${x.to(point[0] / size).toFixed(1)} ${y.to(point[1]).toFixed(1)}`;
  svg.append(
    node("defs", {}, node("clipPath", { id: clip }, node("rect", { x: inner.left, y: inner.top - 4, width: inner.right - inner.left + 4, height: inner.bottom - inner.top + 8 }))),
    axis(x, y, inner, unit ? `wall time, ${unit}` : title(data, view.x)),
    node("g", { "clip-path": `url(#${clip})` }, ...lines.flatMap((line) => shapes(line, place, view))),
  );
  const cross = node("g", { class: "cross", visibility: "hidden" });
  svg.append(cross);
  figure.plot.append(svg);
  figure.at = { lines, x, y, size, unit, inner, cross, box, xs };
}

/** Return the values that choose the height: `late` leaves out the first tenth, whose fall would press the rest flat. */
function heights(lines, late) {
  const last = Math.max(...lines.map((line) => line.points.at(-1)[2]));
  const some = (from) => lines.flatMap((line) => line.points.filter((point) => point[2] >= from).map((point) => point[1]));
  const found = some(late ? last / 10 : 0);
  return found.length ? found : some(0);
}

function title(data, name) {
  return data.axes.find((one) => one[0] === name)?.[1] ?? name;
}

function axis(x, y, inner, label) {
  const group = node("g", { class: "axis" });
  for (const value of ticks(y.domain, y.log, Math.max(3, (inner.bottom - inner.top) / 36))) {
    const at = y.to(value).toFixed(1);
    group.append(node("line", { x1: inner.left, x2: inner.right, y1: at, y2: at, class: "grid" }));
    group.append(node("text", { x: inner.left - 7, y: at, dy: "0.32em", "text-anchor": "end" }, compact(value)));
  }
  for (const value of ticks(x.domain, x.log, Math.max(3, (inner.right - inner.left) / 60))) {
    const at = x.to(value).toFixed(1);
    group.append(node("line", { x1: at, x2: at, y1: inner.bottom, y2: inner.bottom + 4, class: "tick" }));
    group.append(node("text", { x: at, y: inner.bottom + 16, "text-anchor": "middle" }, compact(value)));
  }
  group.append(node("line", { x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom, class: "tick" }));
  group.append(node("text", { x: inner.right, y: inner.bottom + 32, "text-anchor": "end", class: "title" }, label));
  return group;
}

/** Return the shapes of a line, the faint ones first. */
function shapes(line, place, view) {
  const kind = line.held ? "held" : "train";
  const path = (list) => `M${list.map(place).join("L")}`;
  const found = [];
  if (line.raw.length) found.push(node("path", { class: `raw ${colour(line.group)}`, d: path(line.raw) }));
  if (line.several) {
    const low = (point) => (view.logY ? Math.max(point[1] - point[3], point[1] * 1e-3) : point[1] - point[3]);
    const upper = line.points.map((point) => place([point[0], point[1] + point[3]]));
    const lower = line.points.map((point) => place([point[0], low(point)])).reverse();
    found.push(node("path", { class: `band ${colour(line.group)}`, d: `M${[...upper, ...lower].join("L")}Z` }));
  }
  found.push(node("path", { class: `curve ${kind} ${colour(line.group)} ${dashes(line.group)}`, d: path(line.points) }));
  if ((line.held && line.points.length <= 60) || line.points.length === 1) {
    for (const point of line.points) {
      const [cx, cy] = place(point).split(" ");
      found.push(node("circle", { class: `dot ${colour(line.group)}`, cx, cy, r: 3 }));
    }
  }
  return found;
}

/** Show the values at a place on the x axis, in its own unit. */
function show(figure, value) {
  const { lines, x, y, size, unit, inner, cross, box } = figure.at;
  const range = x.to(x.domain[1]) - x.to(x.domain[0]);
  const rows = lines
    .map((line) => ({ line, point: nearest(line.points, value * size) }))
    .filter(({ point }) => Math.abs(x.to(point[0] / size) - x.to(value)) <= range * 0.06)
    .sort((a, b) => b.point[1] - a.point[1]);
  if (!rows.length) return hide(figure);
  const closest = rows.reduce((a, b) => (Math.abs(b.point[0] - value * size) < Math.abs(a.point[0] - value * size) ? b : a));
  const at = x.to(closest.point[0] / size);
  cross.replaceChildren(node("line", { x1: at, x2: at, y1: inner.top, y2: inner.bottom }));
  for (const { line, point } of rows) {
    cross.append(node("circle", { class: colour(line.group), cx: x.to(point[0] / size), cy: y.to(point[1]), r: 4 }));
  }
  cross.setAttribute("visibility", "visible");
  const shown = rows.slice(0, ROWS).map(({ line, point }) => {
    const half = line.several && point[3] ? ` ±${Number(point[3].toPrecision(2))}` : "";
    const label = line.label + (figure.pair ? (line.held ? ", held out" : ", train") : "");
    return node("tr", {}, node("td", {}, swatch(line.group)), node("th", { scope: "row" }, label), node("td", {}, Number(point[1].toPrecision(5)) + half));
  });
  const where = unit ? `${Number((closest.point[0] / size).toPrecision(4))} ${unit}` : `${compact(closest.point[0])} ${figure.axis()}`;
  const step = unit || figure.axis() !== "updates" ? ` (update ${closest.point[2]})` : "";
  figure.tip.replaceChildren(node("p", {}, where + step), node("table", {}, node("tbody", {}, ...shown)));
  if (rows.length > ROWS) figure.tip.append(node("p", {}, `and ${rows.length - ROWS} more`));
  figure.tip.hidden = false;
  const wide = figure.tip.offsetWidth;
  const left = at + 14 + wide <= box.width ? at + 14 : Math.max(0, at - 14 - wide);
  figure.tip.style.left = `${Math.min(left, Math.max(0, box.width - wide))}px`;
  figure.value = value;
}

function hide(figure) {
  figure.tip.hidden = true;
  figure.at?.cross.setAttribute("visibility", "hidden");
}

/** Let the pointer and the arrow keys read a chart. */
function listen(figure) {
  const move = (event) => {
    if (!figure.at) return;
    const { x, inner } = figure.at;
    const pixel = event.clientX - figure.plot.getBoundingClientRect().left;
    show(figure, x.from(Math.min(inner.right, Math.max(inner.left, pixel))));
  };
  figure.plot.addEventListener("pointermove", move);
  figure.plot.addEventListener("pointerdown", move);
  figure.plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide(figure));
  figure.plot.addEventListener("blur", () => hide(figure));
  figure.plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") hide(figure);
    if (!move || !figure.at) return;
    event.preventDefault();
    const { x, inner } = figure.at;
    const from = figure.tip.hidden ? (move > 0 ? inner.left - 1 : inner.right + 1) : x.to(figure.value);
    const pixel = from + move * (inner.right - inner.left) * (event.shiftKey ? 0.1 : 0.02);
    show(figure, x.from(Math.min(inner.right, Math.max(inner.left, pixel))));
  });
}
