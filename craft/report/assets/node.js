// Elements of the page, made without ever parsing text as HTML.

const DRAWN = new Set(["svg", "g", "path", "line", "text", "circle", "rect", "clipPath", "defs"]);

/** Make an element; attributes whose value is null or false are left out, children are nodes or text. */
function node(name, attributes = {}, ...children) {
  const made = DRAWN.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Return the classes of a group's colour and of its dashes. */
const colour = (group) => `k${group % 7}`;
const dashes = (group) => `d${group % 5}`;

/** Draw the line of a group as it stands in legends. */
function swatch(group) {
  return node(
    "svg",
    { class: `swatch ${colour(group)}`, viewBox: "0 0 28 8", "aria-hidden": "true" },
    node("path", { class: dashes(group), d: "M1 4H27" }),
  );
}
