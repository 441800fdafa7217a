// A picture is whole without this: here it can be enlarged and moved, and what was found goes with it.
(() => {
  "use strict";

  function button(words, sign, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "button small";
    made.textContent = sign;
    made.setAttribute("aria-label", words);
    made.title = words;
    made.addEventListener("click", act);
    return made;
  }

  function pyramid(place, columns, rows) {
    const size = Number(place.dataset.tile);
    const most = Math.ceil(Math.log2(Math.max(columns, rows)));
    return {
      width: columns, height: rows, tileSize: size, minLevel: 0, maxLevel: most,
      getTileUrl: (level, column, row) => `${place.dataset.tiles}/${level}/${column}_${row}`,
    };
  }

  function open(place) {
    const plain = place.querySelector("svg");
    if (!plain || !window.OpenSeadragon) return;
    const [, , columns, rows] = plain.getAttribute("viewBox").split(" ").map(Number);
    const frame = document.createElement("div");
    frame.className = "viewer";
    place.append(frame);
    plain.classList.add("unseen");
    const viewer = OpenSeadragon({
      element: frame,
      tileSources: place.dataset.tiles ? pyramid(place, columns, rows)
        : { type: "image", url: place.dataset.image, buildPyramid: false },
      drawer: "canvas",
      showNavigationControl: false,
      maxZoomPixelRatio: 20,
      visibilityRatio: 0.5,
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    viewer.addHandler("open", () => {
      const drawn = plain.cloneNode(true);
      drawn.classList.remove("unseen");
      drawn.querySelector("image").remove();
      drawn.setAttribute("preserveAspectRatio", "none");
      viewer.addOverlay({ element: drawn, location: new OpenSeadragon.Rect(0, 0, 1, rows / columns) });
      plain.remove();
      frame.querySelector("canvas")?.setAttribute("aria-hidden", "true");
      place.dataset.open = "";
    });
    const tools = document.createElement("div");
    viewer.addHandler("open-failed", () => {
      frame.remove();
      tools.remove();
      plain.classList.remove("unseen");
    });
    tools.className = "tools";
    tools.append(
      button("Enlarge", "+", () => viewer.viewport.zoomBy(1.5).applyConstraints()),
      button("Make smaller", "−", () => viewer.viewport.zoomBy(1 / 1.5).applyConstraints()),
      button("Show the whole picture", "Whole", () => viewer.viewport.goHome()),
    );
    place.append(tools);
  }

  function openAll() {
    for (const place of document.querySelectorAll(".picture:not([data-seen])")) {
      place.dataset.seen = "";
      open(place);
    }
  }

  openAll();
  document.body.addEventListener("htmx:afterSwap", openAll);
})();
