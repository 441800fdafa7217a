// Pages are whole without this. It makes them live: whenever a job moves, what stands in #live is asked for
// anew, and only what differs is changed. And it lends a keyboard to those who like one.
(() => {
  "use strict";
  const PAUSE = 1500, SELDOM = 15000, SILENCE = 12000, AGAIN = 3000;
  const pulse = document.getElementById("pulse"), notice = document.getElementById("lost");
  let line = null, due = 0, lost = false;
  let heard = Date.now(), patient = heard; // what is shown was true then; since then an answer is awaited

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

  function hear() {
    heard = patient = Date.now();
    if (lost) {
      lost = false;
      notice.hidden = true;
      refresh();
    }
    say("live");
  }

  // What stands on the page may be wrong by now: it says so in place of its verdict.
  function lose(how) {
    if (!lost) htmx.trigger("#live", "htmx:abort"); // an answer that never comes would hold back those after it
    lost = true;
    say("not live");
    const told = `As of ${new Date(heard).toTimeString().slice(0, 5)}: the gateway doesn’t answer${how}`;
    if (notice.lastElementChild.textContent !== told) notice.lastElementChild.textContent = told;
    notice.hidden = false;
  }

  // Read as it comes, since even that nothing has moved is a sign of life.
  async function listen() {
    if (line || !document.getElementById("live")) return;
    const mine = line = new AbortController();
    let how = "";
    patient = Date.now();
    try {
      const answer = await fetch("/api/v1/events", { headers: { Accept: "text/event-stream" }, signal: mine.signal });
      if (!answer.ok) how = " as it should";
      else {
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let part = await reader.read(); !part.done; part = await reader.read()) {
          hear();
          if (/^(id|event|data):/m.test(part.value)) tell();
        }
      }
    } catch { /* broken, or given up */ }
    if (line !== mine) return;
    lose(how);
    setTimeout(() => { if (line === mine) { line = null; listen(); } }, AGAIN);
  }

  function leave() {
    const mine = line;
    line = null;
    mine?.abort();
  }

  // A browser opens few connections to one place: a page that nobody sees needs none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave();
    else { listen(); tell(); }
  });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", listen);
  setInterval(() => { if (line && Date.now() - patient > SILENCE) line.abort(); }, 1000);

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
