// Which page is shown. Pages are told their parameters and give back an element.

import { ApiError, session, signOut } from "./api.js";
import { announce, h } from "./dom.js";
import { exchange, exchanges } from "./browse.js";
import { dashboard } from "./dashboard.js";
import { label } from "./label.js";
import { method, methods } from "./methods.js";
import { run, runs } from "./runs.js";
import { signIn } from "./signin.js";

const PAGES = [
  [/^\/(?:exchanges)?$/, exchanges, "Exchanges"],
  [/^\/exchanges\/(.+)$/, exchange, "Exchange"],
  [/^\/label$/, label, "Label"],
  [/^\/dashboard$/, dashboard, "Dashboard"],
  [/^\/runs$/, runs, "Runs"],
  [/^\/runs\/(.+)$/, run, "Run"],
  [/^\/methods$/, methods, "Methods"],
  [/^\/methods\/(.+)$/, method, "Method"],
  [/^\/signin$/, signIn, "Sign in"],
];
const MENU = [["/exchanges", "Exchanges"], ["/label", "Label"], ["/dashboard", "Dashboard"], ["/runs", "Runs"],
  ["/methods", "Methods"]];

let shown = 0;
/** What the page that is shown wants undone when it goes: listeners, timers. */
let leaving = null;

/** Goes to a page of the service. */
export function go(path, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  return show();
}

async function show() {
  const turn = (shown += 1);
  const main = document.getElementById("main");
  const { pathname, searchParams } = new URL(location.href);
  const [pattern, page, title] = PAGES.find(([pattern]) => pattern.test(pathname)) ?? [/(.*)/, missing, "Not found"];
  main.setAttribute("aria-busy", "true");
  let content;
  const context = { go, query: searchParams, leave: null };
  try {
    const who = await session();
    if (who.state === "out" && page !== signIn) return go(`/signin?then=${encodeURIComponent(pathname + location.search)}`, true);
    context.who = who;
    menu(who, pathname);
    content = await page(context, ...pattern.exec(pathname).slice(1).map(decode));
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return go(`/signin?then=${encodeURIComponent(pathname + location.search)}`, true);
    content = failure(error);
  }
  // The reader has gone on to another page meanwhile.
  if (turn !== shown) return undefined;
  leaving?.();
  leaving = context.leave;
  main.replaceChildren(content);
  main.removeAttribute("aria-busy");
  const heading = main.querySelector("h1");
  document.title = heading ? `${heading.textContent} · Hone` : `${title} · Hone`;
  if (turn > 1) {
    heading?.setAttribute("tabindex", "-1");
    heading?.focus();
    scrollTo(0, 0);
  }
  return undefined;
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function menu(who, path) {
  document.getElementById("nav").replaceChildren(h("ul", null, MENU.map(([href, text]) => {
    const here = path === href || path.startsWith(`${href}/`) || (path === "/" && href === "/exchanges");
    return h("li", null, h("a", { href, "aria-current": here ? "page" : null }, text));
  })));
  const place = document.getElementById("who");
  if (who.state !== "in") {
    place.replaceChildren();
    return;
  }
  const leave = async () => {
    try {
      await signOut();
      go("/signin");
    } catch (error) {
      announce(error.message, "bad");
    }
  };
  place.replaceChildren(h("span", { class: "quiet" }, who.name), h("button", { type: "button", id: "sign-out", onclick: leave }, "Sign out"));
}

function failure(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const text = error instanceof ApiError ? error.message : "This page has a defect; the browser's console has more.";
  return h("section", null, h("h1", null, "That did not work"), h("p", { role: "alert" }, text),
    h("button", { type: "button", onclick: () => show() }, "Try again"));
}

async function missing() {
  return h("section", null, h("h1", null, "Not found"), h("p", null, "There is no page here."));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || link.target || link.hasAttribute("download") || (url.hash && url.pathname === location.pathname)) return;
  if (!PAGES.some(([pattern]) => pattern.test(url.pathname))) return;
  event.preventDefault();
  go(url.pathname + url.search);
});
addEventListener("popstate", () => show());
show();
