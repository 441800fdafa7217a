// What a page has that no page of the console may have.
() => {
  const shown = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest(".unseen, .skip");
  const all = (which) => [...document.querySelectorAll(which)].filter(shown);
  const strange = [];
  if (!document.querySelector("#search")) strange.push("no search");
  for (const one of all(".state")) {
    if (!one.querySelector("svg.shape") || !one.textContent.trim()) strange.push("a bare colour: " + one.outerHTML);
  }
  for (const one of document.querySelectorAll("table")) {
    if (!one.caption?.textContent.trim()) strange.push("a table without a caption: " + one.className);
  }
  for (const one of all("svg[role=img]")) {
    if (!one.getAttribute("aria-label")) strange.push("a picture without words: " + one.outerHTML.slice(0, 80));
  }
  for (const one of all("time")) {
    if (!/ [A-Z]{2,5}$/.test(one.title) && !/^\d{4}-\d\d-\d\d$/.test(one.dateTime)) strange.push("a time of no zone");
  }
  for (const one of performance.getEntriesByType("resource")) {
    if (!one.name.startsWith(location.origin + "/")) strange.push("loaded from elsewhere: " + one.name);
  }
  if (document.querySelector("script:not([src]), style, [style], [onclick]")) strange.push("something inline");
  const reached = all("a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']");
  for (const one of reached) if (one.tabIndex > 0) strange.push("out of its turn: " + one.outerHTML.slice(0, 80));
  const boxes = reached.map((one) => one.getBoundingClientRect());
  for (let at = 1; at < boxes.length; at += 1) {
    const [before, here] = [boxes[at - 1], boxes[at]];
    if (here.bottom <= before.top && here.left < before.right) {
      strange.push("read before what is reached first: " + reached[at].outerHTML.slice(0, 80));
    }
  }
  return strange;
}
