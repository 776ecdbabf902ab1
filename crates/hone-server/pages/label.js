// One screen to say anything about an exchange, by hand or by keys, from a queue.

import { ApiError, get, post } from "./api.js";
import { conversation, filters, link, remark, values } from "./browse.js";
import { announce, field, h, letter, number } from "./dom.js";
import { empty, items, lines } from "./draft.js";
import { answer, together } from "./panels.js";

const KEYS = [
  ["j, k", "next and previous answer"], ["g, b", "this answer is good, bad"], ["1 to 9", "mark of the chosen aspect"],
  ["a", "next aspect"], ["c", "critique"], ["e", "edit"], ["m", "mark spans; a part that is selected in the text is taken over"], ["t", "steps"],
  ["[ and ]", "the left, the right one is better"], ["=", "both are as good"], ["o", "to the order; there, arrows move and = ties"],
  ["r", "rule"], ["Ctrl+Enter", "save and go on"], ["s", "skip"], ["z", "undo the last save"], ["Esc", "leave a field"], ["?", "this help"],
];
const SETTINGS = { name: "", aspects: "helpful, correct", top: "5", overlap: "1", blind: true };

/** A name for one thing said, by which it can be taken back. */
function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Where the part of a shown text that is selected lies in a text field with the same text; null: nothing is. */
function chosenPart(text) {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed || !text) return null;
  const range = selection.getRangeAt(0);
  if (!text.contains(range.startContainer) || !text.contains(range.endContainer)) return null;
  const before = document.createRange();
  before.selectNodeContents(text);
  before.setEnd(range.startContainer, range.startOffset);
  const start = lines(before.toString()).length;
  return [start, start + lines(range.toString()).length];
}

function settings() {
  try { return { ...SETTINGS, ...JSON.parse(localStorage.getItem("hone.label") ?? "{}") }; } catch { return { ...SETTINGS }; }
}

/** The page to label. */
export async function label(context) {
  const { who, query } = context;
  const may = (scope) => who.state === "open" || who.scopes.includes(scope) || who.scopes.includes("admin");
  if (!may("feedback") || !may("read")) {
    return h("section", null, h("h1", null, "Label"), h("p", { role: "alert" }, "Needs a key with the scopes read and feedback; this one lacks one of them."));
  }
  const screen = new Screen(context, settings());
  if (query.get("id")) await screen.open(await get(`/api/exchanges/${encodeURIComponent(query.get("id"))}`));
  else await screen.next();
  return screen.root;
}

class Screen {
  constructor(context, options) {
    this.context = context;
    this.options = options;
    this.options.name ||= context.who.name ?? "";
    this.saved = [];
    this.current = 0;
    this.aspect = 0;
    this.cursor = null;
    this.busy = false;
    this.place = h("div", { id: "item", onfocusin: (event) => {
      const on = event.target.closest("[data-answer]")?.dataset.answer;
      const index = this.item?.responses.findIndex((response) => response.id === on) ?? -1;
      if (index >= 0) this.choose(index, false);
    } });
    this.summary = h("ul", { class: "plain chips", "aria-label": "What you are about to say" });
    this.count = h("p", { class: "quiet", id: "count" });
    this.agreement = h("div");
    this.root = h("section", { class: "label" }, this.head(), this.place, this.bar(), this.help());
    const keys = (event) => this.key(event);
    document.addEventListener("keydown", keys);
    context.leave = () => document.removeEventListener("keydown", keys);
  }

  get by() {
    return `user:${this.options.name.trim()}`;
  }

  get scale() {
    return [1, Math.max(2, Math.min(9, Number(this.options.top) || 5))];
  }

  get aspects() {
    return this.options.aspects.split(",").map((aspect) => aspect.trim()).filter((aspect, index, all) => aspect && all.indexOf(aspect) === index);
  }

  get queue() {
    const filter = Object.fromEntries([...this.context.query].filter(([name]) => name !== "id"));
    return { ...filter, by: this.by, overlap: Number(this.options.overlap) || 1 };
  }

  head() {
    const keep = (key) => (event) => {
      this.options[key] = event.target.type === "checkbox" ? event.target.checked : event.target.value;
      try { localStorage.setItem("hone.label", JSON.stringify(this.options)); } catch { /* Without storage it holds for this visit. */ }
    };
    const again = (key) => (event) => {
      keep(key)(event);
      if (this.item) this.draw();
    };
    const you = h("input", { name: "you", autocomplete: "username", required: true, value: this.options.name, oninput: keep("name"),
      onchange: () => { this.cursor = null; if (!this.item) this.next(); } });
    const narrow = (event) => {
      event.preventDefault();
      this.context.go(`/label?${values(event.target)}`);
    };
    const toggle = (event) => { if (event.target.open) this.agree(); };
    const folded = Boolean(this.options.name);
    return h("div", null,
      h("div", { class: "head" }, h("h1", null, "Label"),
        h("button", { type: "button", id: "show-help", "aria-keyshortcuts": "?", onclick: () => this.dialog.showModal() }, "Keys (?)")),
      h("details", { class: "card", id: "settings", open: !folded }, h("summary", null, "You and the queue"),
        h("div", { class: "grid" }, field("Your name", you, "Stored with what you say."),
          field("Aspects to rate", h("input", { name: "aspects", autocomplete: "off", value: this.options.aspects, onchange: again("aspects") }), "Separated by commas."),
          field("Highest mark", h("input", { name: "top", type: "number", min: "2", max: "9", value: this.options.top, onchange: again("top") })),
          field("People per exchange", h("input", { name: "overlap", type: "number", min: "1", max: "20", value: this.options.overlap, onchange: keep("overlap") }),
            "An exchange leaves the queue when so many have said something.")),
        h("p", { class: "row" }, h("input", { type: "checkbox", id: "blind", checked: this.options.blind, onchange: again("blind") }),
          h("label", { for: "blind" }, "Hide which model answered")),
        h("form", { onsubmit: narrow }, h("h2", null, "Only exchanges with"), h("div", { class: "grid" },
          filters(this.context.query, ["q", "model", "tag", "session", "form", "since", "until"])), h("button", { type: "submit" }, "Use this queue"))),
      h("details", { class: "card", id: "agreement", ontoggle: toggle }, h("summary", null, "Agreement"), this.agreement));
  }

  bar() {
    const button = (id, text, shortcut, act, main) => h("button", { type: "button", id, class: main ? "main" : "", "aria-keyshortcuts": shortcut, onclick: act }, text);
    this.undoButton = button("undo", "Undo", "z", () => this.undo());
    this.undoButton.disabled = true;
    return h("div", { class: "bar", role: "region", "aria-label": "Save" }, h("div", { class: "about" }, this.count, this.summary),
      h("div", { class: "row" }, this.undoButton, button("skip", "Skip", "s", () => this.skip()),
        button("save", "Save and next", "Control+Enter", () => this.save(), true)));
  }

  help() {
    this.dialog = h("dialog", { "aria-labelledby": "help-title", id: "help" }, h("h2", { id: "help-title" }, "Keys"),
      h("dl", { class: "keys" }, KEYS.map(([keys, what]) => h("div", null, h("dt", null, h("kbd", null, keys)), h("dd", null, what)))),
      h("form", { method: "dialog" }, h("button", { class: "main", autofocus: true }, "Close")));
    return this.dialog;
  }

  /** Takes the next exchange from the queue. */
  async next() {
    if (!this.options.name.trim()) {
      this.item = null;
      this.nothing("Say who you are first: your name stands above.");
      return;
    }
    // On from where the last one was; and at the end there may be new ones at the start.
    let got = null;
    for (const start of this.cursor ? [this.cursor, null] : [null]) {
      let before = start;
      do {
        // A long log is looked through part by part.
        got = await post("/api/queue/next", { ...this.queue, before });
        before = got.cursor;
      } while (!got.item && before);
      if (got.item) break;
    }
    this.cursor = got.item ? got.cursor : null;
    if (got.item) {
      await this.open(got.item, got.people);
      return;
    }
    this.item = null;
    this.nothing("Nothing is left to label in this queue.");
  }

  nothing(text) {
    this.place.replaceChildren(h("p", { class: "card", id: "empty" }, text));
    this.draft = empty();
    this.changed();
  }

  async open(item, people) {
    this.item = item;
    this.people = people ?? 0;
    this.draft = empty();
    this.current = 0;
    this.aspect = 0;
    this.draw();
  }

  draw() {
    const { item } = this;
    this.texts = new Map(item.responses.map((response) => [response.id, response.text]));
    const state = { item, draft: this.draft, scale: this.scale, aspects: this.aspects, blind: this.options.blind, changed: () => this.changed() };
    this.place.replaceChildren(
      h("div", { class: "head" }, h("h2", { tabindex: "-1", id: "item-title" }, "Prompt"), h("a", { href: link(item.id) }, "See all of it")),
      conversation(item) ?? h("p", { class: "quiet" }, "None."), h("h2", null, "Answers"),
      h("div", { class: "answers" }, item.responses.map((response, index) => answer(state, response, index))),
      h("h2", null, "Together"), h("div", { class: "answers" }, together(state)));
    this.choose(0, false);
    this.changed();
  }

  choose(index, focus = true) {
    const answers = [...this.place.querySelectorAll("[data-answer]")];
    if (!answers.length) return;
    this.current = Math.max(0, Math.min(answers.length - 1, index));
    answers.forEach((one, at) => one.classList.toggle("current", at === this.current));
    if (focus) {
      answers[this.current].focus();
      answers[this.current].scrollIntoView({ block: "nearest" });
    }
    this.showAspect();
  }

  showAspect() {
    this.place.querySelectorAll(".marks.current").forEach((one) => one.classList.remove("current"));
    this.card?.querySelectorAll(".marks")[this.aspect]?.classList.add("current");
  }

  get card() {
    return this.place.querySelectorAll("[data-answer]")[this.current];
  }

  /** What is said now, in words, with the means to take each back. */
  changed() {
    const letters = new Map((this.item?.responses ?? []).map((response, index) => [response.id, letter(index)]));
    const said = this.item ? items(this.draft, this.by, this.texts, this.scale) : [];
    this.summary.replaceChildren(...said.map(({ said, drop }) => {
      const line = remark({ ...said, by: null }, letters);
      const on = said.on ? `${letters.get(said.on)}: ` : "";
      const take = h("button", { type: "button", class: "small", "aria-label": `Take back: ${said.form} ${on}`, onclick: () => {
        drop();
        this.draw();
        document.getElementById("save").focus();
      } }, "✗");
      line.prepend(on);
      line.append(take);
      return line;
    }));
    this.count.textContent = said.length === 0 ? "Nothing said yet" : said.length === 1 ? "1 thing said" : `${said.length} things said`;
    document.getElementById("save")?.toggleAttribute("disabled", !this.item || said.length === 0);
    document.getElementById("skip")?.toggleAttribute("disabled", !this.item);
  }

  async once(work) {
    if (this.busy) return;
    this.busy = true;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof ApiError)) console.error(error);
      announce(error.message, "bad");
    } finally {
      this.busy = false;
    }
  }

  save() {
    return this.once(async () => {
      const said = this.item ? items(this.draft, this.by, this.texts, this.scale) : [];
      if (!said.length || !this.options.name.trim()) {
        announce(said.length ? "Say who you are first." : "Nothing is said yet; to go on, skip.", "bad");
        return;
      }
      const keys = [];
      try {
        for (const { said: one } of said) {
          keys.push(key());
          await post("/v1/feedback", { exchange: this.item.id, ...one }, { "idempotency-key": keys.at(-1) });
        }
      } catch (error) {
        // All or nothing: what was stored before the failure goes, and the draft is still there to be mended.
        await post("/api/queue/undo", { keys }).catch(() => {});
        throw error;
      }
      this.saved.push({ keys, item: this.item, draft: this.draft, people: this.people });
      this.undoButton.disabled = false;
      const done = said.length === 1 ? "Saved 1 thing" : `Saved ${said.length} things`;
      await this.after();
      announce(this.item ? done : `${done}. The queue is empty.`);
    });
  }

  skip() {
    return this.once(async () => {
      if (!this.item) return;
      await post("/api/queue/skip", { id: this.item.id, ...this.queue });
      await this.after();
      announce(this.item ? "Skipped" : "Skipped. The queue is empty.");
    });
  }

  async after() {
    if (this.context.query.get("id")) {
      await this.context.go(link(this.item.id));
      return;
    }
    await this.next();
    document.getElementById("item-title")?.focus();
    scrollTo(0, 0);
    if (document.getElementById("agreement")?.open) await this.agree();
  }

  /** Deletes what was saved last, and shows it again as a draft. */
  undo() {
    return this.once(async () => {
      const last = this.saved.at(-1);
      if (!last) return;
      await post("/api/queue/undo", { keys: last.keys });
      this.saved.pop();
      this.undoButton.disabled = this.saved.length === 0;
      this.item = last.item;
      this.people = last.people;
      this.draft = last.draft;
      this.current = 0;
      this.draw();
      document.getElementById("item-title")?.focus();
      announce("Undone: what you said is a draft again");
    });
  }

  async agree() {
    try {
      const { by: _, overlap: __, ...filter } = this.queue;
      const found = await get("/api/queue/agreement", filter);
      const rows = found.measures.map((one) => h("tr", null, h("th", { scope: "row" }, one.aspect ? `${one.form}: ${one.aspect}` : one.form),
        h("td", null, number(one.units)), h("td", null, number(one.people)), h("td", null, number(one.alpha)), h("td", null, number(one.kappa))));
      this.agreement.replaceChildren(h("p", { class: "quiet" }, `Of the newest ${number(found.exchanges)} exchanges of this queue, ${number(found.shared)} were labelled by two people or more.`),
        rows.length ? h("div", { class: "scroll" }, h("table", null, h("thead", null, h("tr", null, ["Form", "Judged by two or more", "People", "Krippendorff’s α", "Cohen’s κ"].map((head) => h("th", { scope: "col" }, head)))), h("tbody", null, rows)))
          : "", h("p", { class: "quiet" }, "1 is full agreement, 0 is chance. κ stands where just two people judged."));
    } catch (error) {
      this.agreement.replaceChildren(h("p", { role: "alert" }, error.message));
    }
  }

  key(event) {
    if (this.dialog.open) return;
    const typing = event.target.closest?.("input:not([type=radio], [type=checkbox]), textarea, select");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.save();
      return;
    }
    if (event.key === "Escape" && typing) {
      typing.blur();
      this.choose(this.current);
      return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") this.dialog.showModal();
    else if (event.key === "z") this.undo();
    else if (event.key === "s") this.skip();
    else if (!this.item) return;
    else if (event.key === "j") this.choose(this.current + 1);
    else if (event.key === "k") this.choose(this.current - 1);
    else if (event.key === "a") {
      this.aspect = (this.aspect + 1) % Math.max(1, this.aspects.length);
      this.showAspect();
      announce(this.aspects[this.aspect] ?? "");
    } else if ("gb".includes(event.key)) this.card?.querySelector(`.pick[aria-keyshortcuts="${event.key}"]`)?.click();
    else if (/^[1-9]$/.test(event.key)) this.card?.querySelectorAll(".marks")[this.aspect]?.querySelector(`input[value="${event.key}"]`)?.click();
    else if ("[]=".includes(event.key)) this.place.querySelector(`[data-part=choice] .pick[aria-keyshortcuts="${event.key}"]`)?.click();
    else if ("cemt".includes(event.key)) this.unfold({ c: "critique", e: "edit", m: "spans", t: "steps" }[event.key]);
    else if (event.key === "r") this.place.querySelector("[name=rule]")?.focus();
    else if (event.key === "o") this.place.querySelector("[data-part=order] .grip")?.focus();
    else return;
    event.preventDefault();
  }

  unfold(kind) {
    const part = this.card?.querySelector(`[data-tool=${kind}]`);
    if (!part) return;
    const chosen = kind === "spans" ? chosenPart(this.card.querySelector("[data-text]")) : null;
    const focus = () => {
      const first = part.querySelector(".body textarea, .body button, .body input");
      first?.focus();
      if (chosen) first?.setSelectionRange(...chosen);
    };
    // What is in it is made once it is told that it is open, which is before this is told.
    if (!part.open) part.addEventListener("toggle", focus, { once: true });
    else focus();
    part.open = true;
  }
}
