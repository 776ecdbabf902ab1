// Calls of the service. Every write carries the session's token, which another site cannot know.

/** What the service refused, in its own words. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the service answered with status ${status}`);
    this.status = status;
    this.code = body?.error?.code;
  }
}

let current = null;

/** Who is signed in: `{state: "open" | "out" | "in", name, scopes, csrf}`. */
export async function session() {
  if (current) return current;
  try {
    current = known(await call("GET", "/v1/session"));
  } catch (error) {
    if (error.status !== 401) throw error;
    return { state: "out", scopes: [] };
  }
  return current;
}

function known({ open, ...rest }) {
  return { state: open ? "open" : "in", ...rest };
}

async function call(method, path, body, headers = {}) {
  const sent = { ...headers };
  if (body !== undefined) sent["content-type"] = "application/json";
  if (method !== "GET" && current?.csrf) sent["x-csrf-token"] = current.csrf;
  let answer;
  try {
    answer = await fetch(path, {
      method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
    });
  } catch {
    throw new ApiError(0, { error: { message: "The service does not answer." } });
  }
  const text = await answer.text();
  let json = null;
  try { json = text ? JSON.parse(text) : null; } catch { json = null; }
  if (!answer.ok) {
    if (answer.status === 401) current = null;
    throw new ApiError(answer.status, json);
  }
  return json;
}

/** Reads; parameters that are empty are left out. */
export function get(path, query = {}) {
  const known = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(known).toString();
  return call("GET", search ? `${path}?${search}` : path);
}

/** Writes. */
export function post(path, body, headers) {
  return call("POST", path, body, headers);
}

/** Signs in with a key. */
export async function signIn(key) {
  current = known(await call("POST", "/v1/session", { key }));
  return current;
}

/** Signs out. */
export async function signOut() {
  await call("DELETE", "/v1/session");
  current = null;
}
