// Elements are made here and nowhere else, out of text that is never read as markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in element) element.value = value;
    else if (name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element; `on…` props are listeners, false and null ones are left out, strings among the children are text. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  build(element, props, children);
  // A select takes its value only once it has its options.
  if (tag === "select" && props?.value !== undefined) element.value = props.value;
  return element;
}

/** An element of a drawing. */
export function svg(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

let count = 0;
/** A name for an element that no other has. */
export function name(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}

/** A control under its label. */
export function field(label, control, hint) {
  control.id ||= name("field");
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control,
    hint && h("small", { id: `${control.id}-hint` }, hint));
}

/** Says something to everyone, those who do not see it too. */
export function announce(text, kind = "") {
  const status = document.getElementById("status");
  status.className = kind;
  status.textContent = "";
  // A change is read aloud even where the words are the same as before.
  requestAnimationFrame(() => { status.textContent = text; });
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => { status.className = "gone"; }, kind === "bad" ? 15000 : 5000);
}

/** A time in the reader's own way of writing it. */
export function time(text) {
  if (!text) return null;
  const at = new Date(text);
  if (Number.isNaN(at.valueOf())) return h("span", null, String(text));
  return h("time", { datetime: at.toISOString(), title: at.toISOString() },
    at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
}

/** A number with few digits. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString();
  if (Math.abs(value) < 1e-3) return Number(value.toPrecision(digits)).toExponential();
  return Number(value.toPrecision(digits)).toLocaleString(undefined, { maximumSignificantDigits: digits });
}

/** A share as per cent. */
export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

/** The letter of a response: A, B, …, and numbers after Z. */
export function letter(index) {
  return index < 26 ? String.fromCharCode(65 + index) : String(index + 1);
}

/** A table with a caption. */
export function table(caption, heads, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null, h("caption", null, caption),
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((cell, index) =>
        index === 0 ? h("th", { scope: "row" }, cell) : h("td", null, cell)))))));
}
