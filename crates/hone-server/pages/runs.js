// Runs that learned from the log, and the curves in their folders.

import { get } from "./api.js";
import { link } from "./browse.js";
import { chart } from "./chart.js";
import { field, h, number, table } from "./dom.js";

/** The page of all runs. */
export async function runs() {
  const found = await get("/api/runs");
  const rows = found.data.map((run) => [h("a", { href: `/runs/${encodeURIComponent(run.id)}` }, run.id), run.model || "–", run.curves ? "yes" : "no"]);
  return h("section", null, h("h1", null, "Runs"), rows.length ? table("Runs", ["Run", "Made", "Curves"], rows)
    : h("p", { class: "card" }, "No run is known. A run that used the log is noted in the store; the curves of run folders are shown if the service was started with their folder as “runs”."));
}

/** The page of one run. */
export async function run(_, id) {
  const found = await get(`/api/runs/${encodeURIComponent(id)}`);
  const names = Object.keys(found.curves).sort();
  const place = h("div", { class: "charts" });
  const draw = (text = "") => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const fit = names.filter((name) => words.every((word) => name.toLowerCase().includes(word)));
    place.replaceChildren(...fit.slice(0, 24).map((name) => chart(name, [{ name, points: found.curves[name].map(([x, y]) => ({ x, y })) }], { axis: "Step" })),
      fit.length > 24 ? h("p", { class: "quiet" }, `${fit.length - 24} more; narrow them down by name.`) : "");
  };
  draw();
  return h("section", null, h("h1", null, `Run ${id}`), found.model && h("p", null, "Made ", h("strong", null, found.model)),
    h("h2", null, "Curves"), names.length > 3 && field("Curves named", h("input", { type: "search", oninput: (event) => draw(event.target.value) })),
    names.length ? place : h("p", { class: "quiet" }, "No metrics of this run are known."),
    found.settings && h("details", null, h("summary", null, "Settings"), h("pre", { tabindex: "0" }, found.settings)),
    h("h2", null, `Used ${number(found.items.length)} of the log${found.more ? " and more" : ""}`),
    found.items.length ? h("ul", { class: "columns" }, found.items.map((item) => h("li", null, item.startsWith("fb-") ? item : h("a", { href: link(item) }, item)))) : h("p", { class: "quiet" }, "Nothing is noted."));
}
