// Pages are whole without this. It makes them live: whenever a job moves, what stands in #live is asked for
// anew, and only what differs is changed. And it lends a keyboard to those who like one.
(() => {
  "use strict";
  const PAUSE = 1500, SELDOM = 15000;
  const pulse = document.getElementById("pulse");
  let source = null, due = 0, lost = false;

  const say = (words) => {
    if (!pulse || pulse.textContent === words) return;
    pulse.textContent = words;
    pulse.toggleAttribute("data-lost", lost);
  };

  // Nothing moves under the hands of somebody who is choosing or typing.
  function calm() {
    const live = document.getElementById("live");
    const at = document.activeElement;
    return live && !document.hidden && !live.querySelector("input[type=checkbox].pick:checked")
      && !(live.contains(at) && at.matches("input:not(.pick), select, textarea"));
  }

  function refresh() {
    due = 0;
    if (calm()) htmx.trigger(document.body, "moved");
  }

  function tell() {
    if (!due) due = setTimeout(refresh, PAUSE);
  }

  function listen() {
    if (source || !document.getElementById("live")) return;
    source = new EventSource("/api/v1/events");
    source.addEventListener("job", tell);
    source.onopen = () => { if (lost) tell(); lost = false; say("live"); };
    source.onerror = () => { lost = true; say("not live: the gateway doesn’t answer"); };
  }

  // A browser opens few connections to one place: a page that nobody sees needs none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && source) { source.close(); source = null; }
    if (!document.hidden) { listen(); tell(); }
  });
  addEventListener("pagehide", () => { if (source) source.close(); source = null; });
  addEventListener("pageshow", listen);

  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const answer = event.detail;
    const wanted = answer.target.id === "picture" ? 'id="picture-shown"' : 'id="live"';
    if (answer.xhr.status === 200 && !answer.xhr.responseText.includes(wanted)) {
      answer.shouldSwap = false;
      location.reload(); // signed out, or it is gone
    }
  });
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (old) => !(old.dataset && "still" in old.dataset);
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && node.tagName === "DETAILS") && !((name === "checked" || name === "value") && node.tagName === "INPUT");

  // -- choosing ---------------------------------------------------------------------------------------

  document.addEventListener("change", (event) => {
    if (event.target.matches("input.pick-all")) {
      for (const box of document.querySelectorAll("input.pick")) box.checked = event.target.checked;
    }
    if (event.target.matches("form.filters select, form.filters input")) event.target.form.requestSubmit();
  });

  // -- the keyboard -----------------------------------------------------------------------------------

  const places = { n: "/", j: "/jobs", p: "/peers", q: "/quality", a: "/audit", c: "/configuration" };
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      const box = document.getElementById("search");
      box.focus();
      box.select();
    } else if (event.key === "g") {
      going = Date.now();
    } else if (Date.now() - going < 1000 && places[event.key]) {
      location.href = places[event.key];
    } else if (event.key === "j" || event.key === "k") {
      const rows = [...document.querySelectorAll("a.row")];
      const next = rows.indexOf(document.activeElement) + (event.key === "j" ? 1 : -1);
      if (rows[next]) rows[next].focus();
    } else if (event.key === "x") {
      event.target.closest("tr")?.querySelector("input.pick")?.click();
    }
  });

  document.querySelector(".places [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  setInterval(tell, SELDOM);
  listen();
})();
