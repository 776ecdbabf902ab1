// What a person is about to say of one exchange: plain data, and what it becomes as feedback.

/** Nothing said yet. */
export function empty() {
  return {
    thumbs: new Map(), ratings: new Map(), pairs: [], order: null, spans: [], steps: new Map(), edits: new Map(),
    critiques: new Map(), rule: { text: "", scope: "" },
  };
}

/** Ratings and steps are kept under a response and a name. */
export function under(id, name) {
  return JSON.stringify([id, name]);
}

/**
 * The draft as feedback. Each item comes with a function that takes it back out of the draft.
 * @param draft what was said so far
 * @param by who says it, as in `user:ann`
 * @param texts the text of each response by id: an edit that changes nothing is none
 * @param scale lowest and highest mark
 */
export function items(draft, by, texts, scale) {
  const out = [];
  const add = (drop, form, fields) => out.push({ drop, said: { form, ...fields, by } });
  for (const [on, value] of draft.thumbs) add(() => draft.thumbs.delete(on), "thumb", { on, value });
  for (const [key, value] of draft.ratings) {
    const [on, aspect] = JSON.parse(key);
    add(() => draft.ratings.delete(key), "rating", { on, value, scale, ...(aspect && { aspect }) });
  }
  draft.pairs.forEach((pair, index) => {
    const drop = () => draft.pairs.splice(index, 1);
    const [better, worse] = pair.choice === "left" ? [pair.left, pair.right] : [pair.right, pair.left];
    // Two answers that are as good as each other stand in one place of a ranking.
    if (pair.choice === "tie") add(drop, "ranking", { order: [[pair.left, pair.right]] });
    else add(drop, "comparison", { better, worse });
  });
  if (draft.order) add(() => { draft.order = null; }, "ranking", { order: draft.order });
  draft.spans.forEach((span, index) => add(() => draft.spans.splice(index, 1), "span", {
    on: span.on, start: span.start, end: span.end, ...(span.label && { label: span.label }),
    ...(span.value !== null && { value: span.value }), ...(span.text && { text: span.text }),
  }));
  for (const [key, correct] of draft.steps) {
    const [on, index] = JSON.parse(key);
    add(() => draft.steps.delete(key), "step", { on, index, correct });
  }
  for (const [on, content] of draft.edits) {
    if (content.trim() && content !== lines(texts.get(on))) add(() => draft.edits.delete(on), "edit", { on, content });
  }
  for (const [on, text] of draft.critiques) {
    if (text.trim()) add(() => draft.critiques.delete(on), "critique", { ...(on && { on }), text });
  }
  const { text, scope } = draft.rule;
  if (text.trim()) {
    add(() => { draft.rule = { text: "", scope: "" }; }, "rule", { text, ...(scope.trim() && { scope }) });
  }
  return out;
}

/** A text as a text field gives it back: every line end is one `\n`. */
export function lines(text) {
  return text.replace(/\r\n?/g, "\n");
}

/**
 * The character of `text` at a place of a text field's value. The field writes every line end as one `\n`, and counts
 * 16-bit units; the store counts characters of the text as it came.
 */
export function character(text, place) {
  let units = 0;
  let count = 0;
  const characters = Array.from(text);
  for (let at = 0; at < characters.length && units < place; at += 1) {
    if (characters[at] === "\r" && characters[at + 1] === "\n") {
      at += 1;
      count += 1;
      units += 1;
    } else {
      units += characters[at].length;
    }
    count += 1;
  }
  return count;
}
