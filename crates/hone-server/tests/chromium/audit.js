// What is wrong with the page that is shown, as a list of words: names, order of headings, width, contrast.
(() => {
  const faults = [];
  const say = (what, element) => faults.push(`${what}: ${element?.outerHTML.slice(0, 160) ?? ""}`);
  const visible = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  if (!document.documentElement.lang) say("no language");
  if (!document.title || document.title === "Hone") say("no title of its own");
  if (document.querySelectorAll("main").length !== 1) say("not one main part");
  if (document.querySelectorAll("h1").length !== 1) say("not one first heading");
  for (const landmark of ["header", "nav[aria-label]", "[role=status][aria-live]"]) {
    if (!document.querySelector(landmark)) say(`no ${landmark}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, index) => ids.indexOf(id) !== index).forEach((id) => say(`id twice ${id}`));
  for (const element of document.querySelectorAll("input, select, textarea")) {
    if (!element.labels?.length && !element.getAttribute("aria-label")) say("no label", element);
    else if (element.labels.length && !element.labels[0].textContent.trim()) say("empty label", element);
  }
  for (const element of document.querySelectorAll("button, a[href], summary, [role=group], [role=region], [role=img], article")) {
    const named = element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.textContent.trim();
    if (!named) say("no name", element);
  }
  document.querySelectorAll("img:not([alt])").forEach((image) => say("no alt", image));
  let level = 0;
  for (const heading of document.querySelectorAll("main :is(h1, h2, h3, h4)")) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) say("a heading skips a level", heading);
    level = own;
  }
  if (document.documentElement.scrollWidth > innerWidth) say(`wider than the window: ${document.documentElement.scrollWidth}`);

  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (seen.has(element) || !walker.currentNode.data.trim() || !visible(element) || element.closest(":disabled, svg, script, .skip")) continue;
    seen.add(element);
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) say(`contrast ${contrast.toFixed(2)}`, element);
  }
  for (const element of document.querySelectorAll("button, select, input:not([type=radio], [type=checkbox]), .picks > span")) {
    const box = element.getBoundingClientRect();
    // The least size of a target in WCAG 2.2.
    if (visible(element) && (box.width < 24 || box.height < 24)) say(`only ${box.width} by ${box.height}`, element);
  }
  return faults;
})()
