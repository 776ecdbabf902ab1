// How much is asked, and how content people are with the answers.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { field, h, number, percent, table } from "./dom.js";

const SPANS = [["7", "7 days"], ["30", "30 days"], ["90", "90 days"], ["365", "a year"]];
const DAY = 86400e3;

/** Days since 1970 of a day such as 2026-05-01. */
function place(day) {
  return Date.parse(`${day}T00:00:00Z`) / DAY;
}

function short(at) {
  return new Date(at * DAY).toISOString().slice(5, 10);
}

function points(days) {
  return days.filter((row) => row.satisfaction).map(({ day, satisfaction: { mean, low, high } }) => ({ x: place(day), y: mean, low, high }));
}

function whole(value) {
  return percent(value, 0);
}

function between(one) {
  return one ? `${percent(one.low)} to ${percent(one.high)}` : null;
}

function fact(name, value, note) {
  return h("div", { class: "card fact" }, h("dt", null, name), h("dd", null, value, note && h("small", { class: "quiet" }, note)));
}

/** The page. */
export async function dashboard({ go, query }) {
  const days = query.get("days") ?? "30";
  const found = await get("/v1/dashboard", { days });
  const { all } = found;
  const choose = h("select", { name: "days", value: days, onchange: () => go(`/dashboard?days=${choose.value}`) }, SPANS.map(([value, text]) => h("option", { value }, text)));
  // Days without anything are not sent; in the picture they are there.
  const today = Math.floor(Date.now() / DAY);
  const volume = new Map(found.days.map((row) => [place(row.day), row.exchanges]));
  const columns = [...Array(Number(days)).keys()].map((index) => today - Number(days) + 1 + index).map((x) => ({ x, y: volume.get(x) ?? 0 }));
  const judged = (model) => model.satisfaction?.count ?? 0;
  const models = [...found.models].sort((a, b) => judged(b) - judged(a) || b.responses - a.responses);
  // A curve for each model that was judged, the most judged first.
  const curves = models.filter(judged).slice(0, 5);
  const said = Object.entries(all.feedback).sort(([, a], [, b]) => b - a);
  const time = (ms) => (ms === null ? "–" : `${number(ms)} ms`);
  return h("section", null, h("div", { class: "head" }, h("h1", null, "Dashboard"), field("Last", choose)),
    h("dl", { class: "facts" }, fact("Exchanges", number(all.exchanges)), fact("Answers", number(all.responses)),
      fact("Things said", number(said.reduce((sum, [, count]) => sum + count, 0))), fact("Satisfaction", percent(all.satisfaction?.mean), between(all.satisfaction)),
      fact("Tokens written", number(all.completion_tokens)), fact("Mean time", time(all.latency_ms))),
    h("div", { class: "charts" },
      chart("Exchanges a day", [{ name: "Exchanges", points: columns }], { x: short, bars: true, axis: "Day" }),
      chart("Satisfaction a day, with 95 % intervals", [{ name: "All", points: points(found.days) }], { x: short, y: percent, tick: whole, range: [0, 1], axis: "Day" }),
      curves.length > 1 && chart("Satisfaction a day by model, with 95 % intervals", curves.map((model) => ({ name: model.model, points: points(model.days) })), { x: short, y: percent, tick: whole, range: [0, 1], axis: "Day" })),
    found.variants && variants(found.variants),
    h("h2", null, "Models"), models.length ? table("Models", ["Model", "Answers", "Judged", "Satisfaction", "95 % interval", "Mean time", "Tokens written"],
      models.map((model) => [model.model, number(model.responses), number(judged(model)), percent(model.satisfaction?.mean), between(model.satisfaction) ?? "–",
        time(model.latency_ms), number(model.completion_tokens)])) : h("p", { class: "quiet" }, "No answers in these days."),
    h("h2", null, "What was said"), said.length ? table("What was said", ["Form", "How often"], said.map(([form, count]) => [form, number(count)]))
      : h("p", { class: "quiet" }, "Nobody has said anything in these days."),
    h("p", { class: "quiet" }, "Satisfaction is the mean of thumbs and of ratings with a scale, from 0 (bad) to 1 (good). The interval is Wilson’s for a share, which for marks between 0 and 1 that do not depend on each other is never too narrow. Days are UTC."));
}

/** Two variants side by side. */
function variants({ experiment, a, b, difference, interval, better }) {
  const row = (side, figures) => [side, experiment[side], number(figures.people), percent(figures.satisfaction)];
  const words = difference === null ? "Too few people have said something to tell them apart."
    : `b less a: ${percent(difference)}${interval ? ` (${percent(interval[0])} to ${percent(interval[1])}, at whatever time it is looked at)` : ""}. ${better ? `Variant ${better} is better.` : "Neither is better beyond doubt."}`;
  return [h("h2", null, `Variants of ${experiment.model}`), table("Variants", ["Variant", "Model", "People", "Satisfaction"], [row("a", a), row("b", b)]), h("p", null, words)];
}
