// From numbers to places and to words.

/** A linear or logarithmic scale from a domain to pixels. */
function scale(domain, range, log) {
  const f = log ? Math.log10 : (value) => value;
  const [low, high] = domain.map(f);
  const span = high - low || 1;
  const to = (value) => range[0] + ((f(value) - low) / span) * (range[1] - range[0]);
  const from = (pixel) => {
    const value = low + ((pixel - range[0]) / (range[1] - range[0])) * span;
    return log ? 10 ** value : value;
  };
  return { to, from, domain, log };
}

/** Return about `count` round numbers in a domain. */
function ticks([low, high], log, count) {
  return log && high / low >= 8 ? decades(low, high, count) : evenly(low, high, count);
}

function evenly(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

function decades(low, high, count) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (const factors of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const stride = factors.length === 1 ? Math.max(1, Math.ceil((last - first) / count)) : 1;
    const found = [];
    for (let power = first; power <= last; power += stride) {
      found.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(3))));
    }
    const inside = found.filter((value) => value >= low * 0.9999 && value <= high * 1.0001);
    if (inside.length <= count || factors.length === 1) return inside;
  }
  return [];
}

/** Write a number in few characters: 950, 12.3k, 4.56M, 1.2e15. */
function compact(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e12 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  for (const [limit, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= limit) return `${Number((value / (letter === "k" ? 1e3 : limit)).toPrecision(4))}${letter}`;
  }
  return String(Number(value.toPrecision(4)));
}

/** Choose the unit of a time axis by its end, in seconds: [name, seconds of one]. */
function timeUnit(seconds) {
  if (seconds < 240) return ["seconds", 1];
  return seconds < 4 * 3600 ? ["minutes", 60] : ["hours", 3600];
}

/** Return the smallest domain that holds all values, with some room; a single value gets room of its own size. */
function domainOf(values, log, room) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  if (log) {
    const factor = high > low ? (high / low) ** room : room ? 1.5 : 1;
    return [low / factor, high * factor];
  }
  const more = high > low ? (high - low) * room : Math.abs(high) * 0.1 || 1;
  return [low - more, high + more];
}
