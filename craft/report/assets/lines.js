// From the columns of the runs to the lines of a chart.

/** Smooth by an exponential average that starts without a bias; null stays null. */
function smooth(values, weight) {
  let sum = 0, norm = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + (1 - weight) * value;
    norm = norm * weight + (1 - weight);
    return sum / norm;
  });
}

/** Return the points of a column, as [x, y, step]: those that both axes can show. */
function points(columns, x, name, view, values = columns[name]) {
  const found = [];
  const xs = columns[x];
  if (!xs || !values) return found;
  values.forEach((y, index) => {
    const at = xs[index] ?? null;
    if (y === null || at === null || (view.logX && at <= 0) || (view.logY && y <= 0)) return;
    found.push([at, y, columns.step[index]]);
  });
  return found;
}

/** Average runs step by step, where all of them have a value: [x, mean, step, half of the 95 % interval]. */
function average(lists, t) {
  const at = new Map();
  for (const list of lists) {
    for (const [x, y, step] of list) {
      if (!at.has(step)) at.set(step, []);
      at.get(step).push([x, y]);
    }
  }
  const found = [];
  for (const [step, pairs] of [...at].sort((a, b) => a[0] - b[0])) {
    const n = pairs.length;
    if (n < lists.length) continue;
    const mean = (index) => pairs.reduce((sum, pair) => sum + pair[index], 0) / n;
    const y = mean(1);
    const variance = pairs.reduce((sum, pair) => sum + (pair[1] - y) ** 2, 0) / Math.max(1, n - 1);
    found.push([mean(0), y, step, n > 1 ? (t[n] ?? NaN) * Math.sqrt(variance / n) : 0]);
  }
  return found;
}

/** Return the lines of some columns: {label, group, held, points, raw}; a line of several seeds has `several`. */
function linesOf(data, names, view) {
  const found = [];
  data.groups.forEach((group, index) => {
    if (view.hidden.has(index)) return;
    for (const { name, held } of names) {
      const runs = group.runs.filter((run) => run.columns[name]);
      const weight = held ? 0 : view.smoothing;
      const smoothed = runs.map((run) => points(run.columns, view.x, name, view, smooth(run.columns[name], weight)));
      const raw = weight ? runs.map((run) => points(run.columns, view.x, name, view)) : [];
      if (view.mean && runs.length > 1) {
        found.push({ label: group.label, group: index, held, points: average(smoothed, data.t), raw: [], several: true });
      } else {
        runs.forEach((run, number) => {
          const own = { label: run.label, group: index, held, points: smoothed[number], raw: raw[number] ?? [] };
          found.push({ ...own, several: false });
        });
      }
    }
  });
  return found.filter((line) => line.points.length);
}

/** Find the point of a line that is nearest to x. */
function nearest(list, x) {
  let low = 0, high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle][0] < x) low = middle;
    else high = middle;
  }
  return Math.abs(list[low][0] - x) <= Math.abs(list[high][0] - x) ? list[low] : list[high];
}
