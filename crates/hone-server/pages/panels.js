// The controls that say something about an answer, or about several. Each changes the draft and tells that it did.

import { marked } from "./browse.js";
import { field, h, letter, name } from "./dom.js";
import { character, lines, under } from "./draft.js";
import { rank } from "./rank.js";

const LABELS = ["unsupported", "wrong", "unclear", "rude", "good"];

/** Buttons of which one or none is chosen. */
function choice(label, options, value, choose) {
  const buttons = options.map(([key, text, kind, shortcut]) => h("button", {
    type: "button", class: `pick ${kind ?? ""}`, "aria-pressed": String(key === value), "aria-keyshortcuts": shortcut ?? null,
    "data-value": String(key),
    onclick: () => {
      value = key === value ? null : key;
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(options[index][0] === value)));
      choose(value);
    },
  }, text));
  return h("div", { role: "group", "aria-label": label, class: "picks" }, buttons);
}

/** A radio button per mark; chosen again, it is taken back. */
function marks(label, scale, value, choose) {
  const group = name("mark");
  const all = [];
  for (let mark = scale[0]; mark <= scale[1]; mark += 1) all.push(mark);
  const inputs = all.map((mark) => h("input", {
    type: "radio", name: group, value: String(mark), checked: mark === value, id: `${group}-${mark}`,
    onclick: (event) => {
      const again = value === mark;
      if (again) event.target.checked = false;
      value = again ? null : mark;
      choose(value);
    },
  }));
  return h("fieldset", { class: "marks" }, h("legend", null, label),
    h("div", { class: "picks" }, inputs.map((input) => h("span", null, input, h("label", { for: input.id }, input.value)))));
}

/** Everything that is said about one answer. `state` holds `item`, `draft`, `scale`, `aspects` and `changed`. */
export function answer(state, response, index) {
  const { draft } = state;
  const on = response.id;
  const called = letter(index);
  const set = (map, key) => (value) => {
    if (value === null || value === "") map.delete(key);
    else map.set(key, value);
    state.changed();
  };
  const text = h("div", { class: "text", "data-text": on });
  const tools = h("div", { class: "tools" });
  const draw = () => text.replaceChildren(...marked(response.text, draft.spans.filter((span) => span.on === on)));
  draw();
  tools.append(
    tool("critique", "Critique", draft.critiques.get(on), () => critique(state, on, `What is good or bad in ${called}, and why`, set(draft.critiques, on))),
    tool("edit", "Edit", draft.edits.get(on), () => edit(state, response, called, set(draft.edits, on))),
    tool("spans", "Mark spans", draft.spans.some((span) => span.on === on), () => spans(state, response, called, draw)),
    tool("steps", `Steps (${response.steps.length})`, [...draft.steps.keys()].some((key) => JSON.parse(key)[0] === on), () => steps(state, response, called, set)));
  return h("article", { class: "card answer", "data-answer": on, tabindex: "-1", "aria-label": `Answer ${called}` },
    h("h3", null, h("span", { class: "letter" }, called), state.blind ? "" : response.model ?? ""),
    text,
    choice(`Thumb for ${called}`, [[true, "✓ Good", "good", "g"], [false, "✗ Bad", "bad", "b"]], draft.thumbs.get(on) ?? null, set(draft.thumbs, on)),
    state.aspects.map((aspect) => marks(`${called}: ${aspect}`, state.scale, draft.ratings.get(under(on, aspect)) ?? null, set(draft.ratings, under(on, aspect)))),
    tools);
}

/** A part that is unfolded when it is wanted, and made only then. */
function tool(kind, title, used, make) {
  const body = h("div", { class: "body" });
  const part = h("details", { "data-tool": kind, ontoggle: () => {
    if (part.open && !body.firstChild) body.append(make());
  } }, h("summary", null, title), body);
  if (used) {
    body.append(make());
    part.open = true;
  }
  return part;
}

function critique(state, on, title, put) {
  return field(title, h("textarea", { rows: "4", name: "critique", value: state.draft.critiques.get(on) ?? "", oninput: (event) => put(event.target.value) }));
}

function edit(state, response, called, put) {
  const rows = Math.min(16, 2 + response.text.split("\n").length + Math.floor(response.text.length / 80));
  return field(`${called}, as it should be`, h("textarea", {
    rows: String(rows), name: "edit", value: state.draft.edits.get(response.id) ?? response.text,
    oninput: (event) => put(event.target.value === lines(response.text) ? "" : event.target.value),
  }), "Change the text itself; unchanged text is not stored.");
}

function steps(state, response, called, set) {
  if (!response.steps.length) return h("p", { class: "quiet" }, "This answer has no steps.");
  return h("ol", { class: "steps" }, response.steps.map((step, index) => {
    const key = under(response.id, index);
    return h("li", null, h("span", { class: "text" }, step),
      choice(`Step ${index + 1} of ${called}`, [[true, "✓ Right", "good"], [false, "✗ Wrong", "bad"]], state.draft.steps.get(key) ?? null, set(state.draft.steps, key)));
  }));
}

function spans(state, response, called, draw) {
  const { draft } = state;
  const on = response.id;
  // A field has a caret, so parts of it are chosen by keyboard as by mouse. A read-only one has none, so this one is
  // like any other but for that it refuses every change.
  const source = h("textarea", { "aria-readonly": "true", inputmode: "none", spellcheck: "false", rows: "5", name: "span-text", value: response.text,
    onbeforeinput: (event) => event.preventDefault(), ondrop: (event) => event.preventDefault() });
  const label = h("input", { name: "span-label", list: name("labels"), autocomplete: "off", value: state.lastLabel ?? "" });
  const kinds = h("datalist", { id: label.getAttribute("list") }, LABELS.map((text) => h("option", { value: text })));
  const value = h("select", { name: "span-value", value: state.lastValue ?? "-1" },
    h("option", { value: "-1" }, "bad"), h("option", { value: "1" }, "good"), h("option", { value: "" }, "neither"));
  const words = h("input", { name: "span-words", autocomplete: "off" });
  const wrong = h("p", { class: "bad", role: "alert" });
  const list = h("ul", { class: "plain", "aria-label": `Marked parts of ${called}` });
  const refresh = () => {
    const characters = Array.from(response.text);
    list.replaceChildren(...draft.spans.filter((span) => span.on === on).map((span) => {
      const part = characters.slice(span.start, span.end).join("");
      return h("li", null, h("mark", { class: span.value < 0 ? "bad" : "" }, part), ` ${span.label} `,
        h("button", { type: "button", class: "small", "aria-label": `Take the mark on “${part}” away`, onclick: () => {
          draft.spans.splice(draft.spans.indexOf(span), 1);
          refresh();
          state.changed();
        } }, "✗"));
    }));
    draw();
  };
  const add = () => {
    const start = character(response.text, source.selectionStart);
    const end = character(response.text, source.selectionEnd);
    wrong.textContent = start < end ? "" : "Choose a part of the text first.";
    if (start >= end) {
      source.focus();
      return;
    }
    draft.spans.push({ on, start, end, label: label.value.trim(), value: value.value === "" ? null : Number(value.value), text: words.value.trim() });
    [state.lastLabel, state.lastValue] = [label.value, value.value];
    words.value = "";
    refresh();
    state.changed();
  };
  refresh();
  return h("div", null, field(`Choose a part of ${called}`, source, "Or select it in the answer above and press m."), h("div", { class: "grid" },
    field("What it is", label), field("How it is", value), field("Why (if you like)", words)), kinds, wrong,
  h("button", { type: "button", "data-action": "mark", onclick: add }, "Mark this part"), list);
}

/** What is said about several answers, or about none. */
export function together(state) {
  const { item, draft } = state;
  const named = new Map(item.responses.map((response, index) => [response.id, letter(index)]));
  const parts = [];
  if (item.responses.length > 1) parts.push(pairs(state, named), order(state, named));
  const rule = (key) => (event) => {
    draft.rule[key] = event.target.value;
    state.changed();
  };
  parts.push(h("section", { class: "card", "aria-label": "Rule" }, h("h3", null, "Rule for later answers"),
    field("Rule", h("textarea", { rows: "2", name: "rule", value: draft.rule.text, oninput: rule("text") }), "As in “no emojis”."),
    field("Where it holds", h("input", { name: "scope", value: draft.rule.scope, oninput: rule("scope"), autocomplete: "off" }), "Left empty: everywhere.")));
  parts.push(h("section", { class: "card", "aria-label": "On the whole" }, h("h3", null, "On the whole exchange"),
    critique(state, "", "Critique", (text) => {
      if (text) draft.critiques.set("", text);
      else draft.critiques.delete("");
      state.changed();
    })));
  return parts;
}

function pairs(state, named) {
  const { item, draft } = state;
  const ids = item.responses.map((response) => response.id);
  const options = () => ids.map((id) => h("option", { value: id }, named.get(id)));
  const left = h("select", { name: "left", value: ids[0] }, options());
  const right = h("select", { name: "right", value: ids[1] }, options());
  const find = () => draft.pairs.findIndex((pair) =>
    (pair.left === left.value && pair.right === right.value) || (pair.left === right.value && pair.right === left.value));
  const row = h("div");
  const refresh = () => {
    if (left.value === right.value) {
      row.replaceChildren(h("p", { class: "quiet" }, "Choose two different answers."));
      return;
    }
    const pair = draft.pairs[find()];
    const chosen = !pair ? null : pair.choice === "tie" || pair.left === left.value ? pair.choice : { left: "right", right: "left" }[pair.choice];
    row.replaceChildren(choice("Which is better", [["left", `${named.get(left.value)} is better`, "", "["],
      ["tie", "As good as each other", "", "="], ["right", `${named.get(right.value)} is better`, "", "]"]], chosen, (picked) => {
      const at = find();
      if (at >= 0) draft.pairs.splice(at, 1);
      if (picked) draft.pairs.push({ left: left.value, right: right.value, choice: picked });
      state.changed();
    }));
  };
  left.addEventListener("change", refresh);
  right.addEventListener("change", refresh);
  refresh();
  return h("section", { class: "card", "data-part": "choice", "aria-label": "Choice between two" }, h("h3", null, "Which is better?"),
    ids.length > 2 && h("div", { class: "grid" }, field("One answer", left), field("Another answer", right)), row);
}

function order(state, named) {
  const { item, draft } = state;
  const entries = item.responses.map((response) => ({ id: response.id, name: named.get(response.id), text: response.text }));
  return h("section", { class: "card", "data-part": "order", "aria-label": "Order" }, h("h3", null, "Put them in order, best first"),
    rank(entries, draft.order, (places) => {
      draft.order = places;
      state.changed();
    }));
}
