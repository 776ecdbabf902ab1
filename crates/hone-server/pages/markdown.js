// The part of Markdown that method pages use, made into elements; nothing in it is ever read as markup of a page.

import { h } from "./dom.js";

/** Elements for a text. The first heading is the page's own; without one, `title` is. */
export function markdown(text, title) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const out = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    if (line.startsWith("```")) {
      const end = lines.findIndex((other, index) => index > at && other.startsWith("```"));
      const stop = end < 0 ? lines.length : end;
      out.push(h("pre", { tabindex: "0" }, h("code", null, lines.slice(at + 1, stop).join("\n"))));
      at = stop + 1;
    } else if (heading) {
      out.push(h(`h${heading[1].length}`, null, inline(heading[2])));
      at += 1;
    } else if (/^\s*\|/.test(line) && /^\s*\|?[\s:|-]+\|?\s*$/.test(lines[at + 1] ?? "")) {
      const end = next(lines, at, (other) => /^\s*\|/.test(other));
      const [head, , ...rows] = lines.slice(at, end).map(cells);
      out.push(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", null,
        h("thead", null, h("tr", null, head.map((cell) => h("th", { scope: "col" }, inline(cell))))),
        h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => h("td", null, inline(cell)))))))));
      at = end;
    } else if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) {
      const end = next(lines, at, (other) => /^\s*([-*+]|\d+[.)])\s+/.test(other) || /^\s{2,}\S/.test(other));
      const items = [];
      for (const other of lines.slice(at, end)) {
        const item = /^\s*(?:[-*+]|\d+[.)])\s+(.*)$/.exec(other);
        if (item) items.push(item[1]);
        else items.push(`${items.pop()} ${other.trim()}`);
      }
      out.push(h(/^\s*\d/.test(line) ? "ol" : "ul", null, items.map((item) => h("li", null, inline(item)))));
      at = end;
    } else if (/^\s*>/.test(line)) {
      const end = next(lines, at, (other) => /^\s*>/.test(other));
      out.push(h("blockquote", null, inline(lines.slice(at, end).map((other) => other.replace(/^\s*>\s?/, "")).join(" "))));
      at = end;
    } else if (!line.trim()) {
      at += 1;
    } else {
      const end = next(lines, at, (other) => other.trim() && !/^(#{1,6}\s|```|\s*\||\s*([-*+]|\d+[.)])\s|\s*>)/.test(other));
      out.push(h("p", null, inline(lines.slice(at, end).join(" "))));
      at = end;
    }
  }
  if (!out.some((element) => element.tagName === "H1")) out.unshift(h("h1", null, title));
  return out.length ? wrap(out) : h("p", null);
}

function wrap(all) {
  const body = h("div", null);
  body.append(...all);
  return body;
}

/** The line after `at` at which something else starts. */
function next(lines, at, fits) {
  const end = lines.findIndex((line, index) => index > at && !fits(line));
  return end < 0 ? lines.length : end;
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.replaceAll("\\|", "|").trim());
}

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|\[([^\]]+)\]\(([^)\s]+)\)|(?<![\w*])\*([^*\s][^*]*?)\*(?![\w*])|(https?:\/\/[^\s<>)]+[^\s<>).,;:])/g;

function inline(text) {
  const out = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > from) out.push(text.slice(from, found.index));
    const [all, , code, strong, words, target, soft, address] = found;
    if (code !== undefined) out.push(h("code", null, code.trim()));
    else if (strong !== undefined) out.push(h("strong", null, inline(strong)));
    else if (words !== undefined) out.push(anchor(words, target));
    else if (soft !== undefined) out.push(h("em", null, inline(soft)));
    else out.push(anchor(address, address));
    from = found.index + all.length;
  }
  if (from < text.length) out.push(text.slice(from));
  return out;
}

function anchor(words, target) {
  // Pages name each other by file; nothing but the web and this service is linked.
  const method = /^(?:\.\/)?([a-z0-9-]+)\.md$/.exec(target);
  if (method) return h("a", { href: `/methods/${method[1]}` }, inline(words));
  if (/^https?:\/\//.test(target)) return h("a", { href: target, rel: "noopener noreferrer" }, words === target ? words : inline(words));
  return h("span", null, inline(words));
}
