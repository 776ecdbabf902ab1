// Exchanges: a search, and one of them with all that was said about it.

import { get } from "./api.js";
import { field, h, letter, number, time } from "./dom.js";

const FORMS = ["thumb", "rating", "comparison", "ranking", "critique", "edit", "span", "step", "outcome", "event", "rule"];
const FILTERS = [["q", "Words", "search"], ["model", "Model", "text"], ["tag", "Tag", "text"], ["session", "Session", "text"],
  ["user", "Shown to", "text"], ["by", "Said by", "text"]];

/** The fields that narrow a search down, as form controls. */
export function filters(query, only = null) {
  const parts = FILTERS.filter(([id]) => !only || only.includes(id)).map(([id, text, type]) =>
    field(text, h("input", { type, name: id, value: query.get(id) ?? "", autocomplete: "off" }),
      id === "q" && !only ? "All words, “exact phrases” in quotes, begin* for beginnings." : null));
  if (!only || only.includes("form")) {
    parts.push(field("With feedback of the form", h("select", { name: "form", value: query.get("form") ?? "" },
      h("option", { value: "" }, "any or none"), FORMS.map((form) => h("option", { value: form }, form)))));
  }
  for (const [id, text] of [["since", "From day"], ["until", "Before day"]]) {
    if (!only || only.includes(id)) parts.push(field(text, h("input", { type: "date", name: id, value: query.get(id) ?? "" })));
  }
  return parts;
}

/** The values of a form that say something. */
export function values(form) {
  return new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
}

/** The page with the search. */
export async function exchanges({ go, query }) {
  const found = await get("/api/exchanges", { limit: 30, ...Object.fromEntries(query) });
  const search = (event) => {
    event.preventDefault();
    go(`/exchanges?${values(event.target)}`);
  };
  const [words, ...rest] = filters(query);
  const narrowed = [...query.keys()].some((key) => !["q", "before"].includes(key));
  const form = h("form", { role: "search", class: "search", onsubmit: search },
    h("div", { class: "row" }, words, h("button", { type: "submit", class: "main" }, "Search")),
    h("details", { open: narrowed }, h("summary", null, "Narrow down"), h("div", { class: "grid" }, rest)));
  const next = new URLSearchParams(query);
  if (found.next) next.set("before", found.next);
  const label = new URLSearchParams(query);
  label.delete("before");
  return h("section", null, h("div", { class: "head" }, h("h1", null, "Exchanges"),
    h("a", { class: "button", href: `/label?${label}` }, "Label these")), form,
    found.data.length === 0 ? h("p", { class: "card" }, [...query].length ? "Nothing fits this search." : "Nothing is stored yet. Send a request through the gateway, or import a log.")
      : h("ol", { class: "list", "aria-label": "Exchanges found, newest first" }, found.data.map(row)),
    h("p", { class: "row" }, query.get("before") && h("a", { href: "/exchanges?" + without(query, "before") }, "Newest"),
      found.next && h("a", { href: `/exchanges?${next}`, rel: "next" }, "Older")));
}

function without(query, name) {
  const rest = new URLSearchParams(query);
  rest.delete(name);
  return rest;
}

function row(item) {
  const asked = [...item.prompt].reverse().find((message) => message.role === "user") ?? item.prompt.at(-1);
  const models = [...new Set(item.responses.map((response) => response.model).filter(Boolean))];
  return h("li", { class: "card" },
    h("a", { href: link(item.id) }, h("strong", { class: "clip" }, asked?.text || "(no prompt)")),
    item.responses[0] && h("p", { class: "clip quiet" }, item.responses[0].text),
    h("p", { class: "chips" }, time(item.at), models.map((model) => h("span", { class: "chip" }, model)),
      item.responses.length > 1 && h("span", { class: "chip" }, `${item.responses.length} answers`),
      counts(item.feedback), (item.tags ?? []).map((tag) => h("span", { class: "chip tag" }, tag))));
}

function counts(feedback) {
  const forms = new Map();
  feedback.forEach((said) => forms.set(said.form, (forms.get(said.form) ?? 0) + 1));
  return [...forms].map(([form, count]) => h("span", { class: "chip said" }, count > 1 ? `${form} × ${count}` : form));
}

/** The address of an exchange's page. */
export function link(id) {
  return `/exchanges/${encodeURIComponent(id)}`;
}

/** The messages before the answer. */
export function conversation(item) {
  if (!item.prompt.length) return null;
  return h("ol", { class: "talk", "aria-label": "Prompt" }, item.prompt.map((message) =>
    h("li", { class: message.role }, h("span", { class: "role" }, message.role), h("div", { class: "text" }, message.text))));
}

/** The page of one exchange. */
export async function exchange(_, id) {
  const item = await get(`/api/exchanges/${encodeURIComponent(id)}`);
  const letters = new Map(item.responses.map((response, index) => [response.id, letter(index)]));
  const rest = item.feedback.filter((said) => !said.on);
  return h("section", null,
    h("div", { class: "head" }, h("h1", null, `Exchange ${item.id}`), h("a", { class: "button", href: `/label?id=${encodeURIComponent(item.id)}` }, "Label")),
    h("p", { class: "chips" }, time(item.at), item.user && h("a", { class: "chip", href: `/exchanges?user=${encodeURIComponent(item.user)}` }, `shown to ${item.user}`),
      item.session && h("a", { class: "chip", href: `/exchanges?session=${encodeURIComponent(item.session)}` }, `session ${item.session}`),
      (item.tags ?? []).map((tag) => h("a", { class: "chip tag", href: `/exchanges?tag=${encodeURIComponent(tag)}` }, tag))),
    h("h2", null, "Prompt"), conversation(item) ?? h("p", { class: "quiet" }, "None."),
    h("h2", null, "Answers"),
    h("div", { class: "answers" }, item.responses.map((response) => answer(item, response, letters))),
    rest.length > 0 && [h("h2", null, "Said about the whole"), h("ul", { class: "said-list" }, rest.map((said) => remark(said, letters)))],
    h("h2", null, "Used by runs"),
    item.runs.length ? h("ul", null, item.runs.map((run) => h("li", null, h("a", { href: `/runs/${encodeURIComponent(run.id)}` }, run.id), ` made ${run.model}`)))
      : h("p", { class: "quiet" }, "No run has used this exchange."),
    h("details", null, h("summary", null, "As stored"), h("pre", { tabindex: "0" }, JSON.stringify(item.record, null, 2))));
}

function answer(item, response, letters) {
  const said = item.feedback.filter((one) => one.on === response.id);
  const spans = said.filter((one) => one.form === "span");
  const { usage, latency_ms: latency } = response.extra ?? {};
  return h("article", { class: "card", "aria-label": `Answer ${letters.get(response.id)}` },
    h("h3", null, h("span", { class: "letter" }, letters.get(response.id)), response.model ?? "unknown model"),
    h("div", { class: "text" }, marked(response.text, spans)),
    h("p", { class: "chips quiet" }, h("code", null, response.id), usage?.completion_tokens && h("span", null, `${number(usage.completion_tokens)} tokens`), latency && h("span", null, `${number(latency)} ms`)),
    said.length > 0 && h("ul", { class: "said-list" }, said.map((one) => remark(one, letters))));
}

/** Text with its marked parts. Offsets count characters as the store does, so that an emoji is one. */
export function marked(text, spans) {
  if (!spans.length) return [text];
  const characters = Array.from(text);
  const cuts = [...new Set([0, characters.length, ...spans.flatMap((span) => [span.start, span.end])])]
    .filter((cut) => cut >= 0 && cut <= characters.length).sort((a, b) => a - b);
  return cuts.slice(1).map((end, index) => {
    const start = cuts[index];
    const part = characters.slice(start, end).join("");
    const over = spans.filter((span) => span.start <= start && span.end >= end);
    if (!over.length) return part;
    const bad = over.some((span) => span.value < 0);
    const names = over.map((span) => span.label ?? "marked").join(", ");
    return h("mark", { class: bad ? "bad" : "", title: names }, part);
  });
}

/** One thing said, in words. */
export function remark(said, letters) {
  const about = said.aspect ? `${said.aspect}: ` : "";
  const place = (id) => letters.get(id) ?? id;
  const words = {
    thumb: () => about + (said.value ? "good" : "bad"),
    rating: () => about + (said.scale ? `${said.value} (${said.scale[0]} to ${said.scale[1]})` : said.value),
    comparison: () => `${place(said.better)} better than ${place(said.worse)}`,
    ranking: () => said.order.map((ids) => ids.map(place).join(" = ")).join(" > "),
    critique: () => said.text,
    edit: () => (typeof said.content === "string" ? said.content : JSON.stringify(said.content)),
    span: () => [`“${said.label ?? "marked"}”`, `characters ${said.start} to ${said.end}`, said.value < 0 ? "bad" : said.value > 0 ? "good" : null].filter(Boolean).join(", "),
    step: () => `step ${said.index + 1} ${said.correct ? "right" : "wrong"}`,
    outcome: () => `${said.check}: ${said.passed ? "passed" : "failed"}`,
    event: () => (said.value === undefined ? said.event : `${said.event}: ${said.value}`),
    rule: () => (said.scope ? `${said.text} (in ${said.scope})` : said.text),
  }[said.form];
  const extra = !["critique", "rule"].includes(said.form) && said.text;
  return h("li", null, h("span", { class: "chip said" }, said.form), h("span", { class: "text" }, words ? words() : JSON.stringify(said)),
    extra && h("span", { class: "text quiet" }, extra), h("small", { class: "quiet" }, said.by, said.by && said.at && " · ", time(said.at)));
}
