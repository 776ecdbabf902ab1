// Curves as drawings. The table beside each says the same in numbers.

import { h, number, svg, table } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 240;
const SIDE = { left: 78, right: 16, top: 14, bottom: 34 };

/** Round steps that cover a range: at most `most` of them. */
function ticks(low, high, most = 5) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((step) => step >= rough);
  const out = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) out.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return out;
}

/**
 * Curves over a common axis, with a table that holds the same.
 * @param title what is shown
 * @param series `{name, points: [{x, y, low, high}]}`; `low` and `high` draw a band
 * @param options `x` and `y` write a number of that axis, `tick` one beside the axis, `bars` draws columns, `range` is the
 * least range of y
 */
export function chart(title, series, { x = number, y = number, tick = y, bars = false, range = null, axis = "" } = {}) {
  const drawn = series.map((one) => ({ ...one, points: one.points.filter((point) => Number.isFinite(point.y)) })).filter((one) => one.points.length);
  if (!drawn.length) return h("figure", { class: "card" }, h("figcaption", null, title), h("p", { class: "quiet" }, "No figures yet."));
  const points = drawn.flatMap((one) => one.points);
  const xs = points.map((point) => point.x);
  const ys = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
  let [left, right] = [Math.min(...xs), Math.max(...xs)];
  if (bars || left === right) [left, right] = [left - 0.5, right + 0.5];
  let [low, high] = range ? [Math.min(range[0], ...ys), Math.max(range[1], ...ys)] : [Math.min(...ys), Math.max(...ys)];
  if (bars) low = Math.min(0, low);
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const px = (value) => SIDE.left + (value - left) / (right - left) * (WIDTH - SIDE.left - SIDE.right);
  const py = (value) => HEIGHT - SIDE.bottom - (value - low) / (high - low) * (HEIGHT - SIDE.top - SIDE.bottom);
  const whole = points.every((point) => Number.isInteger(point.x));
  const across = ticks(left, right, 6).filter((at) => !whole || Number.isInteger(at));
  const grid = [
    ticks(low, high).map((at) => [svg("line", { class: "gridline", x1: SIDE.left, x2: WIDTH - SIDE.right, y1: py(at), y2: py(at) }),
      svg("text", { x: SIDE.left - 6, y: py(at) + 4, "text-anchor": "end" }, tick(at))]),
    across.map((at) => svg("text", { x: px(at), y: HEIGHT - 8, "text-anchor": "middle" }, x(at))),
  ];
  const curves = drawn.map((one, index) => {
    const kind = `s${index % 6}`;
    if (bars) {
      const wide = Math.max(1, (WIDTH - SIDE.left - SIDE.right) / (right - left) * 0.8);
      return svg("g", { class: kind }, one.points.map((point) => svg("rect", { class: "bar-of", x: px(point.x) - wide / 2, width: wide,
        y: py(point.y), height: Math.max(0, py(0) - py(point.y)) }, svg("title", null, `${x(point.x)}: ${y(point.y)}`))));
    }
    const line = one.points.map((point) => `${px(point.x).toFixed(1)},${py(point.y).toFixed(1)}`).join(" ");
    const upper = one.points.filter((point) => point.high !== undefined);
    const band = [...upper.map((point) => [point.x, point.high]), ...upper.map((point) => [point.x, point.low]).reverse()]
      .map(([at, value]) => `${px(at).toFixed(1)},${py(value).toFixed(1)}`).join(" ");
    const few = one.points.length <= 60;
    return svg("g", { class: kind }, upper.length > 1 && svg("polygon", { class: "band", points: band }),
      upper.length === 1 && svg("line", { class: "line", x1: px(upper[0].x), x2: px(upper[0].x), y1: py(upper[0].low), y2: py(upper[0].high) }),
      svg("polyline", { class: "line", points: line }),
      few && one.points.map((point) => svg("circle", { class: "dot", r: 3, cx: px(point.x), cy: py(point.y) },
        svg("title", null, `${one.name} ${x(point.x)}: ${y(point.y)}`))));
  });
  const said = `${title}. ${drawn.map((one) => `${one.name}: ${one.points.length} points, from ${y(one.points[0].y)} to ${y(one.points.at(-1).y)}`).join("; ")}. The table below holds every one.`;
  const places = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
  const byPlace = drawn.map((one) => new Map(one.points.map((point) => [point.x, point])));
  const cell = (point) => !point ? "–" : point.low === undefined ? y(point.y) : `${y(point.y)} (${y(point.low)} to ${y(point.high)})`;
  return h("figure", { class: "card chart" }, h("figcaption", null, title),
    drawn.length > 1 && h("ul", { class: "legend" }, drawn.map((one, index) => h("li", { class: `s${index % 6}` }, one.name))),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said }, grid.flat(), curves),
    h("details", { ontoggle: (event) => {
      // Made when it is wanted: a run has thousands of rows.
      if (event.target.open && event.target.children.length === 1) {
        event.target.append(table(title, [axis, ...drawn.map((one) => one.name)], places.map((at) => [x(at), ...byPlace.map((one) => cell(one.get(at)))])));
      }
    } }, h("summary", null, "As a table")));
}
