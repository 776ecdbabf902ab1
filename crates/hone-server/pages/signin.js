// Signing in: a key of the service is given once, a session takes its place.

import { signIn as open } from "./api.js";
import { announce, field, h } from "./dom.js";

/** The page to sign in. */
export async function signIn({ go, query }) {
  const key = h("input", { type: "password", name: "key", required: true, autocomplete: "current-password", spellcheck: "false" });
  const wrong = h("p", { role: "alert", class: "bad" });
  const send = async (event) => {
    event.preventDefault();
    wrong.textContent = "";
    try {
      await open(key.value.trim());
    } catch (error) {
      wrong.textContent = error.message;
      key.focus();
      return;
    }
    announce("Signed in");
    const then = query.get("then") ?? "";
    // Only a path of this service: not //elsewhere, and nothing with a scheme.
    await go(/^\/(?![/\\])/.test(then) ? then : "/exchanges", true);
  };
  return h("form", { class: "narrow card", onsubmit: send }, h("h1", null, "Sign in"),
    field("API key", key, "Made with “hone serve keys add --scopes read,feedback NAME”."), wrong,
    h("button", { type: "submit", class: "main" }, "Sign in"));
}
