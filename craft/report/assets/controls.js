// What a reader can choose, and the charts that follow.

const data = JSON.parse(document.getElementById("data").textContent);
const several = data.groups.some((group) => group.runs.length > 1);
const view = { subject: data.subjects[0] ?? null, x: data.axes[0]?.[0] ?? "step", smoothing: 0, logX: false, logY: false };
Object.assign(view, { mean: several, train: true, held: true, late: true, hidden: new Set() });
const figures = [];

/** Redraw everything once before the next frame, however many choices were made. */
let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawAll();
  });
}

function drawAll() {
  for (const figure of figures) draw(figure, figure.chart(), data, view);
}

function labelled(text, ...inputs) {
  return node("label", {}, node("span", {}, text), ...inputs);
}

function choice(text, options, key) {
  const select = node("select", {}, ...options.map(([value, title]) => node("option", { value, selected: view[key] === value }, title)));
  select.addEventListener("change", () => {
    view[key] = select.value;
    redraw();
  });
  return labelled(text, select);
}

function tick(text, key) {
  const box = node("input", { type: "checkbox", checked: view[key] });
  box.addEventListener("change", () => {
    view[key] = box.checked;
    redraw();
  });
  return node("label", { class: "tick" }, box, node("span", {}, text));
}

function slider(text, key) {
  const range = node("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: 0 });
  const shown = node("output", {}, "0");
  range.addEventListener("input", () => {
    view[key] = Number(range.value);
    shown.textContent = range.value;
    redraw();
  });
  return labelled(text, range, shown);
}

function controls() {
  const has = (prefix) => data.subjects.some((name) => data.groups.some((group) => group.runs.some((run) => run.columns[`${prefix}/${name}`])));
  const form = node("form", { class: "controls", "aria-label": "What the charts show" });
  form.addEventListener("submit", (event) => event.preventDefault());
  if (data.subjects.length > 1) form.append(choice("measure", data.subjects.map((name) => [name, name]), "subject"));
  form.append(choice("against", data.axes, "x"), slider("smoothing", "smoothing"), tick("log x", "logX"), tick("log y", "logY"));
  if (has("train") && has("eval")) form.append(tick("train", "train"), tick("held out", "held"));
  form.append(tick("height without the first tenth", "late"));
  if (several) form.append(tick("mean of seeds, 95 % band", "mean"));
  return form;
}

function legend() {
  const list = node("ul", { class: "legend", "aria-label": "Runs" });
  const buttons = data.groups.map((group, index) => {
    const n = group.runs.length > 1 ? [node("small", {}, `n = ${group.runs.length}`)] : [];
    const button = node("button", { type: "button", "aria-pressed": "true" }, swatch(index), node("span", {}, group.label), ...n);
    button.addEventListener("click", (event) => {
      const others = data.groups.map((_, other) => other).filter((other) => other !== index);
      if (event.shiftKey || event.altKey) view.hidden = new Set(others.every((other) => view.hidden.has(other)) ? [] : others);
      else if (!view.hidden.delete(index)) view.hidden.add(index);
      buttons.forEach((one, number) => one.setAttribute("aria-pressed", String(!view.hidden.has(number))));
      redraw();
    });
    list.append(node("li", {}, button));
    return button;
  });
  return list;
}

/** Make the figure of a chart: a heading, the plot, and the values under the pointer. */
function figureOf(heading, chart, pair) {
  const plot = node("div", { class: "plot", tabindex: "0", role: "group", "aria-label": `${heading}: the arrow keys read the values` });
  const tip = node("div", { class: "tip", "aria-live": "polite", hidden: true });
  const caption = node("figcaption", {}, heading);
  const figure = { plot, tip, chart, pair, caption, number: figures.length, at: null, value: 0, axis: () => title(data, view.x) };
  figures.push(figure);
  listen(figure);
  return node("figure", { class: pair ? "chart main" : "chart" }, caption, node("div", { class: "frame" }, plot, tip));
}

function mainChart() {
  const figure = figures[0];
  figure.caption.textContent = view.subject;
  const names = [{ name: `train/${view.subject}`, held: false }, { name: `eval/${view.subject}`, held: true }];
  return { names: names.filter(({ held }) => (held ? view.held : view.train)), zero: false, small: false };
}

function build() {
  const section = document.getElementById("curves");
  section.append(controls());
  if (data.groups.length > 1) {
    section.append(legend(), node("p", { class: "hint" }, "A click hides a run, with shift all others. Plain lines: training; with dots: held out."));
  } else if (data.subjects.length) {
    section.append(node("p", { class: "hint" }, "Plain line: training; with dots: held out."));
  }
  if (data.subjects.length) section.append(figureOf(view.subject, mainChart, true));
  const small = node("div", { class: "small" });
  for (const panel of data.panels) {
    const chart = { names: [{ name: panel.name, held: panel.name.startsWith("eval/") }], zero: panel.zero, small: true };
    small.append(figureOf(panel.title, () => chart, false));
  }
  section.append(small);
}

/** With `?selftest` in its address the page measures itself for a test. */
function measure() {
  const root = document.documentElement;
  root.dataset.overflow = root.scrollWidth - root.clientWidth;
  root.dataset.width = root.clientWidth;
  root.dataset.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.background = getComputedStyle(document.body).backgroundColor;
}

build();
drawAll();
new ResizeObserver(redraw).observe(document.getElementById("curves"));
document.documentElement.dataset.drawn = document.querySelectorAll("path.curve").length;
if (location.search.includes("selftest")) measure();
