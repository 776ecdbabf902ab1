// The catalogue of methods.

import { get } from "./api.js";
import { announce, field, h } from "./dom.js";
import { markdown } from "./markdown.js";

/** The page with the search. */
export async function methods({ query }) {
  const start = query.get("q") ?? "";
  const list = h("div");
  let turn = 0;
  const find = async (text) => {
    const mine = (turn += 1);
    const found = await get("/v1/methods", { text });
    if (mine !== turn) return;
    const families = group(found);
    list.replaceChildren(found.length ? h("div", null, [...families].map(([family, all]) => h("section", { "aria-label": family },
      h("h2", null, family), h("ul", { class: "list" }, all.map((method) => h("li", { class: "card" },
        h("a", { href: `/methods/${encodeURIComponent(method.id)}` }, h("strong", null, method.name)), " ", h("code", null, method.id), h("p", null, method.summary)))))))
      : h("p", { class: "card" }, "No method fits these words."));
    history.replaceState(null, "", text ? `/methods?q=${encodeURIComponent(text)}` : "/methods");
    if (text) announce(`${found.length} methods`);
  };
  const input = h("input", { type: "search", name: "q", value: start, autocomplete: "off", oninput: () => find(input.value).catch((error) => announce(error.message, "bad")) });
  await find(start);
  return h("section", null, h("h1", null, "Methods"), h("form", { role: "search", onsubmit: (event) => event.preventDefault() }, field("Search", input, "As in “ranked”, “critique”, “dpo”.")), list);
}

function group(all) {
  const out = new Map();
  all.forEach((method) => out.set(method.family, [...(out.get(method.family) ?? []), method]));
  return out;
}

/** The page of one method. */
export async function method(_, id) {
  const found = await get(`/v1/methods/${encodeURIComponent(id)}`);
  return h("article", { class: "page" }, h("p", { class: "chips" }, h("a", { href: "/methods" }, "All methods"), h("span", { class: "chip" }, found.family)),
    markdown(found.page, found.name));
}
