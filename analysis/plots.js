// Draws the figures again so that they answer: hovering names the run, the legend switches series off. Needs Chart.js, report.js and zoom.js.
"use strict";
(() => {
  const { runs, plots, el, words, shown, events, zoomable } = window.report;
  const built = new Map(); // canvas -> {chart, panel}
  const off = new Map(); // plot number -> Set of legend keys that are switched off
  const tip = document.getElementById("tip");

  const probe = el("span", { hidden: "" });
  document.body.append(probe);
  const theme = (name) => ((probe.style.color = `var(--${name})`), getComputedStyle(probe).color);
  const narrow = () => innerWidth < 480;
  const isDark = () => document.documentElement.dataset.dark === "yes";

  /** A figure's colour as this theme shows it: white is the paper, black the ink, and dark colours are lifted on dark paper. */
  function shade(hex, alpha = 1) {
    if (hex === "none") return "transparent";
    if (hex === "#ffffff") return theme("card");
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
    const top = Math.max(r, g, b), low = Math.min(r, g, b), spread = top - low;
    let light = (top + low) / 2;
    const strength = spread ? spread / (1 - Math.abs(2 * light - 1)) : 0;
    const hue = !spread ? 0 : top === r ? ((g - b) / spread + 6) % 6 : top === g ? (b - r) / spread + 2 : (r - g) / spread + 4;
    if (isDark()) light = strength < 0.1 ? Math.max(1 - light, 0.55) : 0.52 + 0.28 * light;
    return `hsl(${hue * 60} ${strength * 100}% ${light * 100}% / ${alpha})`;
  }

  /** A filled five-pointed star, which Chart.js does not know. */
  function star(p, x, y, size, face, edge) {
    p.beginPath();
    for (let i = 0; i < 10; i++) {
      const reach = i % 2 ? size * 0.45 : size, turn = (i * Math.PI) / 5;
      p.lineTo(x + reach * Math.sin(turn), y - reach * Math.cos(turn));
    }
    p.closePath();
    Object.assign(p, { fillStyle: face, strokeStyle: edge, lineWidth: 1, lineJoin: "round" });
    p.fill();
    p.stroke();
  }

  const whose = (group) => ({ run: group.length === 1 ? group[0] : -1, group });

  function dataset(s, number) {
    const colour = shade(s.colour, s.alpha), face = s.face ? shade(s.face, s.face === "#ffffff" ? 1 : s.alpha) : colour;
    const size = s.marker ? Math.max(s.size, 2.2) : 0;
    return {
      series: s,
      data: s.x.map((x, i) => ({ x: x ?? NaN, y: s.y[i] ?? NaN, ...whose(s.runs ? s.runs[i] : []) })),
      showLine: s.line > 0 || Boolean(s.fill),
      borderColor: colour, borderWidth: s.fill ? 0 : s.line, borderDash: s.dash || [], borderJoinStyle: "round",
      backgroundColor: colour, fill: s.fill ? "shape" : false,
      pointRadius: size, pointHoverRadius: size + 2, pointHitRadius: size ? 9 : 0,
      pointStyle: s.marker === "star" ? false : s.marker || false, rotation: s.turned || 0,
      pointBackgroundColor: face, pointBorderColor: colour, pointBorderWidth: s.face === s.colour ? 0 : 1.5,
      order: -s.z, clip: size ? 6 : 0, hidden: isOff(s, number), animation: false, parsing: false, normalized: true,
    };
  }

  const isOff = (s, number) => Boolean(s.keys && s.keys.length && off.has(number) && s.keys.every((k) => off.get(number).has(k)));

  /** How many names stand along an axis in place of numbers. */
  const named = (axis) => axis.ticks.filter(([, label]) => /^[^\d]*[a-z]{3}/i.test(label)).length;

  function scale(axis) {
    const labels = new Map(axis.ticks), broken = (label) => (narrow() && label.length > 12 ? label.split(/(?<=:) /) : label);
    return {
      type: axis.log ? "logarithmic" : "linear", min: axis.limits[0], max: axis.limits[1],
      reverse: Boolean(axis.reverse),
      afterBuildTicks: (a) => a.chart.zoomed || (a.ticks = axis.ticks.map(([value]) => ({ value }))),
      ticks: { callback(value) { return broken(labels.get(value) ?? (this.chart.zoomed ? shown(value, {}) : "")); }, color: theme("quiet"), maxRotation: 40, autoSkip: !named(axis), autoSkipPadding: 8,
        font: { size: narrow() ? 10 : 11 } },
      grid: { color: theme("line"), tickColor: theme("line") }, border: { color: theme("quiet") },
    };
  }

  const beside = { // stars, the figure's own words, and a ring around the picked run
    id: "beside",
    afterDatasetsDraw(chart) {
      const { ctx, scales: { x, y }, width } = chart;
      ctx.save();
      chart.data.datasets.forEach((d, i) => d.series.marker === "star" && !d.hidden && chart.getDatasetMeta(i).data.forEach((at) =>
        star(ctx, at.x, at.y, d.pointRadius, d.pointBackgroundColor, shade("#1a1a1a"))));
      for (const t of chart.config.options.panel.texts) {
        const lines = t.words.split("\n"), size = width < 420 ? 9.5 : 11;
        Object.assign(ctx, { font: `${size}px system-ui, sans-serif`, fillStyle: shade(t.colour), textAlign: t.side });
        ctx.textBaseline = { center: "middle", bottom: "bottom", top: "top" }[t.height] || "alphabetic";
        Object.assign(ctx, { strokeStyle: theme("card"), lineWidth: 3, lineJoin: "round" });
        lines.forEach((words, i) => {
          const left = x.getPixelForValue(t.x), long = !t.turn && left + ctx.measureText(words).width > width;
          const line = long ? words.split(" (")[0] : words, down = (i - (lines.length - 1) / 2) * size * 1.3;
          ctx.save();
          ctx.translate(long && t.side === "left" ? Math.min(left, width - ctx.measureText(line).width - 2) : left,
            y.getPixelForValue(t.y) + down);
          ctx.rotate((-t.turn * Math.PI) / 180);
          if (t.turn) Object.assign(ctx, { textAlign: { bottom: "left", top: "right" }[t.height] || "center", textBaseline: "middle" });
          ctx.strokeText(line, 0, 0);
          ctx.fillText(line, 0, 0);
          ctx.restore();
        });
      }
      const picked = window.report.picked;
      Object.assign(ctx, { strokeStyle: theme("accent"), lineWidth: 2.5 });
      if (picked >= 0) chart.data.datasets.forEach((d, i) => d.hidden || d.data.forEach((point, j) => {
        if (point.run !== picked && !(point.group || []).includes(picked)) return;
        const at = chart.getDatasetMeta(i).data[j];
        ctx.beginPath();
        ctx.arc(at.x, at.y, 8, 0, 2 * Math.PI);
        ctx.stroke();
      }));
      ctx.restore();
    },
  };

  /** What is known of the point: a run by its id and columns, another point by its series and place. */
  function told(point, s, panel, number) {
    const rows = [];
    if (point.run >= 0) {
      const row = runs.rows[point.run];
      runs.columns.forEach((c, i) => c.tip && row[i] !== null && row[i] !== "" && rows.push([c.label, shown(row[i], c)]));
      return [row[0], rows];
    }
    const entry = plots[number].panels.flatMap((p) => (p.legend ? p.legend.entries : [])).find((e) => (s.keys || []).includes(e.key));
    for (const axis of ["x", "y"]) {
      const name = named(panel[axis]) && panel[axis].ticks.find(([at]) => at === point[axis]);
      const value = name ? name[1] : shown(point[axis], { measured: true });
      rows.push([plain(panel[axis].label) || axis, value]);
    }
    const several = point.group.filter((run) => run >= 0).map((run) => runs.rows[run][0]);
    const title = s.name || (entry ? plain(entry.label) : "");
    return [several.length ? `mean of ${several.length} runs` : title, rows, several.slice(0, 6)];
  }

  const plain = (pieces) => pieces.map(([text]) => text).join("");

  function hover({ chart, tooltip }) {
    const point = tooltip.dataPoints && tooltip.dataPoints[0];
    if (!tooltip.opacity || !point) return void (tip.hidden = true);
    const { panel, number } = chart.config.options;
    const [title, rows, several = []] = told(point.raw, point.dataset.series, panel, number);
    tip.replaceChildren(...(title ? [el("b", {}, title)] : []), el("dl", {}, ...rows.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)])), ...several.map((id) => el("code", {}, id)));
    tip.hidden = false;
    const box = chart.canvas.getBoundingClientRect(), margin = 8;
    let left = box.left + tooltip.caretX + 14, top = box.top + tooltip.caretY + 14;
    if (left + tip.offsetWidth > innerWidth - margin) left = Math.max(margin, box.left + tooltip.caretX - tip.offsetWidth - 14);
    if (top + tip.offsetHeight > innerHeight - margin) top = Math.max(margin, box.top + tooltip.caretY - tip.offsetHeight - 14);
    Object.assign(tip.style, { left: `${left}px`, top: `${top}px` });
  }

  /** Chart.js takes points that it need not parse for sorted by x and looks for the visible ones by halving: gaps lead it astray. */
  const unsorted = { id: "unsorted", beforeDatasetUpdate: (_, { meta }) => { meta._sorted = false; } };

  function draw(canvas, panel, number) {
    const chart = new Chart(canvas, {
      type: "scatter", plugins: [beside, unsorted], data: { datasets: panel.series.map((s) => dataset(s, number)) },
      options: {
        panel, number, animation: false, responsive: true, maintainAspectRatio: false, layout: { padding: { top: 6, right: 10 } },
        interaction: { mode: "nearest", intersect: true }, scales: { x: scale(panel.x), y: scale(panel.y) },
        plugins: { legend: { display: false }, tooltip: { enabled: false, external: hover } },
        onClick: (event, found) => {
          if (chart.dragged) return void (chart.dragged = false);
          const run = found.length ? chart.data.datasets[found[0].datasetIndex].data[found[0].index].run : -1;
          if (run >= 0) events.pick(run === window.report.picked ? -1 : run);
        },
      },
    });
    zoomable(canvas, chart);
    built.set(canvas, { chart, panel, number });
  }

  /** Arrow keys walk over the points in reading order; Enter picks the run; Escape lets go. */
  function walk(canvas, event) {
    const { chart } = built.get(canvas) || {};
    if (!chart) return;
    const points = chart.data.datasets.flatMap((d, datasetIndex) => d.hidden || !d.pointRadius ? [] :
      d.data.map((raw, index) => ({ datasetIndex, index, raw })).filter((p) => p.raw.x === p.raw.x && p.raw.y === p.raw.y));
    points.sort((a, b) => a.raw.x - b.raw.x || a.raw.y - b.raw.y);
    const now = chart.getActiveElements()[0];
    let at = points.findIndex((p) => now && p.datasetIndex === now.datasetIndex && p.index === now.index);
    if (event.key === "Enter" && at >= 0 && points[at].raw.run >= 0) events.pick(points[at].raw.run);
    else if (event.key === "Escape") at = -1;
    else if (event.key === "ArrowRight" || event.key === "ArrowDown") at = (at + 1) % points.length;
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") at = (Math.max(at, 0) - 1 + points.length) % points.length;
    else return;
    event.preventDefault();
    const active = at < 0 || !points.length ? [] : [{ datasetIndex: points[at].datasetIndex, index: points[at].index }];
    const place = active.length ? chart.getDatasetMeta(active[0].datasetIndex).data[active[0].index] : { x: 0, y: 0 };
    chart.setActiveElements(active);
    chart.tooltip.setActiveElements(active, { x: place.x, y: place.y });
    chart.update();
    if (!active.length) tip.hidden = true;
  }

  function swatch(e) {
    const c = el("canvas", { width: 44, height: 24, "aria-hidden": "true" }), p = c.getContext("2d"), colour = shade(e.colour);
    p.scale(2, 2);
    Object.assign(p, { strokeStyle: colour, fillStyle: e.fill ? colour : e.face ? shade(e.face) : colour, lineWidth: 1.8 });
    if (e.fill) p.fillRect(2, 2, 18, 8);
    if (e.line) { p.setLineDash((e.dash || []).map((d) => d * 0.7)); p.beginPath(); p.moveTo(1, 6); p.lineTo(21, 6); p.stroke(); p.setLineDash([]); }
    if (e.marker === "star") star(p, 11, 6.5, 5.5, shade(e.face), shade("#1a1a1a"));
    else if (e.marker) { p.beginPath(); const d = e.marker === "rectRot";
      if (e.marker === "circle") p.arc(11, 6, 3.6, 0, 7);
      else if (e.marker === "triangle") { p.moveTo(11, 2); p.lineTo(15, 10); p.lineTo(7, 10); p.closePath(); }
      else if (d) { p.moveTo(11, 1.5); p.lineTo(15.5, 6); p.lineTo(11, 10.5); p.lineTo(6.5, 6); p.closePath(); }
      else p.rect(7.5, 2.5, 7, 7);
      p.fill(); p.stroke(); }
    return c;
  }

  function legend(panel, number) {
    const list = el("div", { class: "legend", role: "group", "aria-label": "legend" });
    if (plain(panel.legend.title).trim()) list.append(el("span", { class: "quiet" }, ...words(panel.legend.title)));
    const used = new Set(plots[number].panels.flatMap((p) => p.series.flatMap((s) => s.keys || [])));
    const keys = panel.legend.entries.map((e) => e.key).filter((k) => used.has(k));
    for (const e of panel.legend.entries) {
      if (!used.has(e.key)) { list.append(el("span", { class: "key" }, swatch(e), el("span", {}, ...words(e.label)))); continue; }
      const button = el("button", { type: "button", class: "key", "aria-pressed": String(!(off.get(number) || new Set()).has(e.key)),
        title: "click: show or hide; double click: only this one" }, swatch(e), el("span", {}, ...words(e.label)));
      button.dataset.key = e.key;
      button.addEventListener("click", () => toggle(number, e.key));
      button.addEventListener("dblclick", () => only(number, e.key, keys));
      list.append(button);
    }
    return list;
  }

  function toggle(number, key) {
    const hidden = off.get(number) || new Set();
    hidden.has(key) ? hidden.delete(key) : hidden.add(key);
    off.set(number, hidden);
    refresh(number);
  }

  function only(number, key, keys) {
    const alone = keys.every((k) => k === key || (off.get(number) || new Set()).has(k));
    off.set(number, new Set(alone ? [] : keys.filter((k) => k !== key)));
    refresh(number);
  }

  function refresh(number) {
    for (const { chart, number: own } of built.values()) if (own === number) {
      chart.data.datasets.forEach((d) => (d.hidden = isOff(d.series, number)));
      chart.update("none");
    }
    for (const b of document.querySelectorAll(`[data-plot="${number}"] button.key`))
      b.setAttribute("aria-pressed", String(!off.get(number).has(Number(b.dataset.key))));
  }

  function build(figure) {
    const number = Number(figure.dataset.plot), plot = plots[number], stage = figure.querySelector(".panels");
    for (const canvas of stage.querySelectorAll(".frame > canvas")) { built.get(canvas)?.chart.destroy(); built.delete(canvas); }
    stage.style.setProperty("--columns", plot.columns);
    const drawn = plot.panels.map((panel) => {
      const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label":
        `${figure.dataset.title}: ${plain(panel.y.label)} against ${plain(panel.x.label)}. Arrow keys walk over the points.` });
      canvas.addEventListener("keydown", (event) => walk(canvas, event));
      canvas.addEventListener("blur", () => (tip.hidden = true));
      const names = narrow() ? named(panel.y) : Math.max(...plot.panels.map((p) => named(p.y)));
      const least = names ? `; min-height: ${3 + names * (narrow() ? 2.1 : 1.6)}rem; max-height: none` : "";
      const frame = el("div", { class: "frame", style: `--aspect: ${Math.min(Math.max(plot.aspect, 1.05), 1.75)}${least}` }, canvas);
      const up = plain(panel.y.label).trim(), right = plain(panel.x.label).trim();
      const block = el("div", { class: "panel" }, el("h4", {}, ...words(panel.title)),
        el("p", { class: "up" }, ...(up ? [`↑ `, ...words(panel.y.label)] : [])), frame,
        el("p", { class: "right" }, ...(right ? [...words(panel.x.label), ` →`] : [])),
        panel.legend && panel.legend.entries.length ? legend(panel, number) : el("div"));
      return { block, canvas, panel };
    });
    const single = plot.panels.filter((p) => p.legend).length === 1 && drawn.length > 1;
    stage.replaceChildren(...drawn.map((d) => d.block));
    if (single) stage.append(Object.assign(stage.querySelector(".legend"), { className: "legend wide" }));
    for (const d of drawn) draw(d.canvas, d.panel, number);
    figure.dataset.drawn = "yes";
  }

  const figures = [...document.querySelectorAll("figure[data-plot]")];
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting && !entry.target.dataset.drawn) build(entry.target);
  }), { rootMargin: "500px 0px" });
  figures.forEach((figure) => seen.observe(figure));
  addEventListener("beforeprint", () => figures.filter((f) => !f.dataset.drawn).forEach(build));
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });
  events.onTheme(() => figures.filter((f) => f.dataset.drawn).forEach(build));
  events.onPick(() => built.forEach(({ chart }) => chart.draw()));
})();
