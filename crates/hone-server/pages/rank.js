// An order of answers: dragged by hand, or moved by keys and buttons.

import { announce, h } from "./dom.js";

/**
 * A list to put in order.
 * @param entries `{id, name, text}` of each answer
 * @param changed told of the places, best first, each a list of ids; null: nothing is said of the order
 */
export function rank(entries, start, changed) {
  let order = start ? start.flat() : entries.map((entry) => entry.id);
  /** Ids that stand in one place with the one above. */
  const tied = new Set(start ? start.flatMap((place) => place.slice(1)) : []);
  let set = start !== null;
  const named = new Map(entries.map((entry) => [entry.id, entry]));
  const list = h("ol", { class: "rank", "aria-label": "Order, best first" });

  const places = () => order.reduce((out, id, index) => {
    if (index > 0 && tied.has(id)) out.at(-1).push(id);
    else out.push([id]);
    return out;
  }, []);
  const tell = () => {
    set = true;
    changed(places());
    draw();
  };
  const move = (id, to) => {
    const from = order.indexOf(id);
    if (to < 0 || to >= order.length || to === from) return;
    order.splice(from, 1);
    order.splice(to, 0, id);
    tell();
    announce(`${named.get(id).name} is now at place ${to + 1} of ${order.length}`);
  };
  const focus = (id, what) => list.querySelector(`[data-id="${CSS.escape(id)}"] ${what}`)?.focus();

  function draw() {
    list.replaceChildren(...order.map((id, index) => {
      const { name, text } = named.get(id);
      const keys = (event) => {
        const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (by) {
          move(id, index + by);
          focus(id, ".grip");
        } else if (event.key === "=" && index > 0) {
          tie();
        } else return;
        event.preventDefault();
        event.stopPropagation();
      };
      const tie = () => {
        if (!tied.delete(id)) tied.add(id);
        tell();
        focus(id, ".grip");
      };
      const shift = (by, what) => () => {
        move(id, index + by);
        focus(id, what);
      };
      return h("li", { "data-id": id, class: index > 0 && tied.has(id) ? "tied" : "" },
        h("button", { type: "button", class: "grip", title: "Drag, or move with the arrow keys",
          "aria-label": `${name}, place ${index + 1} of ${order.length}${tied.has(id) ? ", tied with the one above" : ""}; move with the arrow keys`,
          onkeydown: keys, onpointerdown: (event) => drag(event, id) }, "⠿"),
        h("span", { class: "letter" }, name), h("span", { class: "clip" }, text),
        h("button", { type: "button", class: "small up", "aria-label": `Move ${name} up`, disabled: index === 0, onclick: shift(-1, ".up") }, "↑"),
        h("button", { type: "button", class: "small down", "aria-label": `Move ${name} down`, disabled: index === order.length - 1, onclick: shift(1, ".down") }, "↓"),
        h("button", { type: "button", class: "small tie", "aria-pressed": String(tied.has(id)), "aria-label": `${name} is as good as the one above`, disabled: index === 0, onclick: tie }, "="));
    }));
    keep.setAttribute("aria-pressed", String(set));
    clear.disabled = !set;
  }

  function drag(event, id) {
    if (event.button) return;
    event.preventDefault();
    const row = list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    row.classList.add("dragged");
    const over = (move) => {
      // The row goes where the pointer is: before the first other row whose middle lies below it.
      const others = [...list.children].filter((other) => other !== row);
      const next = others.find((other) => {
        const box = other.getBoundingClientRect();
        return move.clientY < box.top + box.height / 2;
      });
      if ((next ?? null) !== row.nextElementSibling) list.insertBefore(row, next ?? null);
    };
    const drop = () => {
      removeEventListener("pointermove", over);
      removeEventListener("pointerup", drop);
      removeEventListener("pointercancel", drop);
      row.classList.remove("dragged");
      const after = [...list.children].map((item) => item.dataset.id);
      if (after.join("\n") === order.join("\n")) return;
      order = after;
      tell();
      focus(id, ".grip");
      announce(`${named.get(id).name} is now at place ${order.indexOf(id) + 1} of ${order.length}`);
    };
    addEventListener("pointermove", over);
    addEventListener("pointerup", drop);
    addEventListener("pointercancel", drop);
  }

  const keep = h("button", { type: "button", id: "keep-order", onclick: tell }, "This order");
  const clear = h("button", { type: "button", onclick: () => {
    set = false;
    tied.clear();
    order = entries.map((entry) => entry.id);
    changed(null);
    draw();
    keep.focus();
  } }, "No order");
  draw();
  return h("div", null, list, h("div", { class: "row" }, keep, clear));
}
