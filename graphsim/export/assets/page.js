(() => {
  "use strict";
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const timelines = ["chart-prefill", "chart-decode", "chart-step"];
  const config = (id) => ({ displayModeBar: false, scrollZoom: timelines.includes(id) });

  // --- theme: the reader's system decides until the button is used
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function coloured(value, names) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, names));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, names)]));
    }
    return typeof value === "string" && value in names ? names[value] : value;
  }

  const widths = {};
  const places = Object.keys(figures).map((id) => document.getElementById(id)).filter(Boolean);

  function draw(these = places) {
    root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    const ink = colour("--ink"), line = colour("--line"), muted = colour("--muted");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
    for (const place of these) {
      const { data, layout } = coloured(figures[place.id], { INK: ink, MUTED: muted, LINE: line });
      layout.width = widths[place.id] = place.clientWidth;
      layout.uirevision = "kept"; // what the reader zoomed and hid stays so
      layout.font = { color: ink, family: "system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif", size: 12 };
      for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout)])) {
        if (/^[xy]axis\d*$/.test(name)) layout[name] = { ...axis, ...layout[name] };
      }
      layout.hoverlabel = { bgcolor: "#0f172a", bordercolor: "#475569", font: { color: "#f1f5f9" }, align: "left" };
      if (layout.width < 640) { // legends need a line per entry
        if (layout.showlegend !== false) layout.height += 15 * data.length;
        layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 52) };
      }
      Plotly.react(place, data, layout, config(place.id));
    }
  }
  document.getElementById("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    draw();
  });
  dark.addEventListener("change", () => draw());
  draw();
  const resized = new ResizeObserver(() => requestAnimationFrame(() => {
    draw(places.filter((place) => place.clientWidth !== widths[place.id]));
  }));
  for (const place of places) resized.observe(place);

  // --- tabs
  for (const nav of document.querySelectorAll(".tabs")) {
    const buttons = [...nav.querySelectorAll("button")];
    const tabs = [...document.getElementById(nav.dataset.for).children];
    const show = (name) => {
      for (const tab of tabs) tab.hidden = tab.dataset.tab !== name;
      for (const button of buttons) button.classList.toggle("on", button.dataset.tab === name);
    };
    for (const button of buttons) button.addEventListener("click", () => show(button.dataset.tab));
    show(buttons[0].dataset.tab);
  }

  // --- hover over a layer's operations
  const tip = document.getElementById("tip");
  function showTip(node, x, y) {
    tip.textContent = node.dataset.tip;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - width - 6)) + "px";
    tip.style.top = (y + 16 + height > innerHeight ? Math.max(6, y - height - 12) : y + 16) + "px";
  }
  for (const node of document.querySelectorAll("svg.layer .node")) {
    node.addEventListener("pointermove", (event) => showTip(node, event.clientX, event.clientY));
    node.addEventListener("pointerleave", () => { tip.hidden = true; });
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", node.dataset.tip);
    node.addEventListener("focus", () => {
      node.dispatchEvent(new Event("layer:show", { bubbles: true }));
      const box = node.getBoundingClientRect();
      showTip(node, box.right, box.top);
    });
    node.addEventListener("blur", () => { tip.hidden = true; });
  }

  // --- zoom and move
  for (const svg of document.querySelectorAll("svg.layer")) {
    const home = svg.dataset.box.split(" ").map(Number);
    let box = [...home];
    const apply = () => svg.setAttribute("viewBox", box.join(" "));
    const scale = () => Math.max(box[2] / svg.clientWidth, box[3] / svg.clientHeight) || 1;
    const fit = () => { // a tall layer starts readable, at its top
      box = [...home];
      const width = svg.clientWidth || 800, height = svg.clientHeight || 600;
      if (home[3] / height > 1.35) {
        const unit = Math.min(Math.max(1.0, home[2] / width), 1.6);
        box = [home[0] + home[2] / 2 - unit * width / 2, home[1], unit * width, unit * height];
      }
      apply();
    };
    const zoom = (factor, x, y) => {
      const area = svg.getBoundingClientRect();
      const unit = scale();
      const left = box[0] + box[2] / 2 - unit * area.width / 2, top = box[1] + box[3] / 2 - unit * area.height / 2;
      const px = left + (x - area.left) * unit, py = top + (y - area.top) * unit;
      const next = Math.min(Math.max(box[2] * factor, home[2] / 40), home[2] * 6) / box[2];
      box = [px - (px - box[0]) * next, py - (py - box[1]) * next, box[2] * next, box[3] * next];
      apply();
    };
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(event.deltaY * 0.0012), event.clientX, event.clientY);
    }, { passive: false });
    const held = new Map();
    svg.addEventListener("pointerdown", (event) => { held.set(event.pointerId, event); });
    addEventListener("pointerup", (event) => { held.delete(event.pointerId); });
    addEventListener("pointercancel", (event) => { held.delete(event.pointerId); });
    svg.addEventListener("pointermove", (event) => {
      const last = held.get(event.pointerId);
      if (!last) return;
      if (held.size === 1) {
        const unit = scale();
        box[0] -= (event.clientX - last.clientX) * unit;
        box[1] -= (event.clientY - last.clientY) * unit;
        apply();
      } else {
        const other = [...held.values()].find((item) => item.pointerId !== event.pointerId);
        const far = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
        zoom(far(last) / far(event), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
      }
      held.set(event.pointerId, event);
    });
    svg.addEventListener("dblclick", fit);
    svg.addEventListener("layer:show", (event) => { // moves a focused operation into view
      const area = svg.getBoundingClientRect(), node = event.target.getBoundingClientRect();
      const inside = node.left >= area.left && node.right <= area.right && node.top >= area.top && node.bottom <= area.bottom;
      if (inside) return;
      box[0] += ((node.left + node.right - area.left - area.right) / 2) * scale();
      box[1] += ((node.top + node.bottom - area.top - area.bottom) / 2) * scale();
      apply();
    });
    const bar = svg.parentElement.insertBefore(document.createElement("div"), svg);
    bar.className = "zoom";
    for (const [sign, label, act] of [
      ["+", "Zoom in", (x, y) => zoom(0.8, x, y)], ["−", "Zoom out", (x, y) => zoom(1.25, x, y)], ["⤢", "Fit", fit],
    ]) {
      const button = bar.appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", textContent: sign, title: label, ariaLabel: label });
      button.addEventListener("click", () => {
        const area = svg.getBoundingClientRect();
        act(area.left + area.width / 2, area.top + area.height / 2);
      });
    }
    const watch = new ResizeObserver(() => { if (svg.clientWidth) fit(); });
    watch.observe(svg);
  }

  document.getElementById("explore")?.addEventListener("click", () => {
    const page = JSON.parse(document.getElementById("explore-page").textContent);
    window.open(URL.createObjectURL(new Blob([page], { type: "text/html" })));
  });
})();
