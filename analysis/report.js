// The page itself: light or dark, the run table, and which run is picked. Everything shown is set as text, never as markup.
"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const runs = read("data-runs"), plots = read("data-plots");
  const el = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const words = (pieces) => pieces.map(([text, style]) => (style ? el(style, {}, text) : text));

  function shown(value, column) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    if (column.whole) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
    return column.measured && !Number.isInteger(value) ? value.toPrecision(4) : String(Number(value.toPrecision(4)));
  }

  // ---- light and dark
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)"), toggle = document.getElementById("theme");
  const themed = [], kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("theme", value); } catch { /* a folder without storage still has a theme */ } } };
  const choices = ["auto", "light", "dark"];
  function setTheme(choice) {
    root.dataset.theme = choice;
    root.dataset.dark = choice === "dark" || (choice === "auto" && system.matches) ? "yes" : "no";
    toggle.textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[choice];
    themed.forEach((tell) => tell());
  }
  setTheme(choices.includes(kept.get()) ? kept.get() : "auto");
  system.addEventListener("change", () => setTheme(root.dataset.theme));
  toggle.addEventListener("click", () => {
    const next = choices[(choices.indexOf(root.dataset.theme) + 1) % choices.length];
    kept.set(next);
    setTheme(next);
  });

  // ---- the run table
  const LIMIT = 1000, place = document.getElementById("run-table"), box = document.getElementById("filter");
  const status = document.getElementById("run-count"), chips = [...document.querySelectorAll("#states button")];
  const stateAt = runs.columns.findIndex((c) => c.key === "state"), reasonAt = runs.columns.findIndex((c) => c.key === "reason");
  const texts = runs.rows.map((row) => runs.columns.map((c, i) => `${row[i] ?? ""} ${shown(row[i], c)}`).join(" ").toLowerCase());
  const RANK = { failed: 0, damaged: 0, missing: 1, done: 2 };
  let order = { column: -1, up: true }, state = "", all = false;
  const body = el("tbody"), head = el("tr"), visible = runs.columns.map((c, i) => i).filter((i) => i !== reasonAt);

  function sorted(rows) {
    const by = order.column, flip = order.up ? 1 : -1;
    if (by < 0) return rows.sort((a, b) => (RANK[runs.rows[a][stateAt]] ?? 1) - (RANK[runs.rows[b][stateAt]] ?? 1) || a - b);
    return rows.sort((a, b) => {
      const [p, q] = [runs.rows[a][by], runs.rows[b][by]];
      if (p === null || q === null) return (p === null) - (q === null) || a - b; // what is missing stands last either way
      return flip * (typeof p === "number" ? p - q : String(p).localeCompare(String(q), "en", { numeric: true })) || a - b;
    });
  }

  function line(number) {
    const row = runs.rows[number], made = el("tr", { "data-run": number, class: number === report.picked ? "picked" : "" });
    for (const i of visible) {
      const column = runs.columns[i], cell = el("td", { class: column.numeric ? "n" : "" });
      if (i === 0) {
        const pick = el("button", { type: "button", class: "run", title: "ring this run in the plots" }, row[0]);
        pick.addEventListener("click", () => events.pick(number === report.picked ? -1 : number));
        cell.append(pick);
        if (row[reasonAt]) cell.append(el("span", { class: "reason" }, row[reasonAt]));
      } else if (i === stateAt) cell.append(el("span", { class: `state ${row[i] === "done" ? "ok" : "off"}` }, row[i]));
      else cell.textContent = shown(row[i], column);
      made.append(cell);
    }
    return made;
  }

  function refill() {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = sorted(runs.rows.map((_, i) => i).filter((i) =>
      (!state || runs.rows[i][stateAt] === state) && wanted.every((word) => texts[i].includes(word))));
    const drawn = all ? kept : kept.slice(0, LIMIT);
    body.replaceChildren(...drawn.map(line));
    status.replaceChildren(`${kept.length.toLocaleString("en")} of ${runs.rows.length.toLocaleString("en")} runs`);
    if (drawn.length < kept.length) {
      const more = el("button", { type: "button" }, `show all ${kept.length.toLocaleString("en")}`);
      more.addEventListener("click", () => { all = true; refill(); });
      status.append(`, the first ${LIMIT.toLocaleString("en")} shown `, more);
    }
  }

  for (const i of visible) {
    const column = runs.columns[i], th = el("th", { scope: "col", class: column.numeric ? "n" : "", title: column.words || "" });
    const button = el("button", { type: "button" }, column.label, el("span", { class: "arrow", "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      order = order.column === i ? { column: order.up ? i : -1, up: !order.up } : { column: i, up: true };
      if (order.column < 0) order.up = true;
      [...head.children].forEach((h) => h.removeAttribute("aria-sort"));
      if (order.column === i) th.setAttribute("aria-sort", order.up ? "ascending" : "descending");
      refill();
    });
    th.append(button);
    head.append(th);
  }
  let due = 0;
  box.addEventListener("input", () => { clearTimeout(due); due = setTimeout(refill, runs.rows.length > 300 ? 120 : 0); });
  for (const chip of chips) chip.addEventListener("click", () => {
    state = chip.dataset.state;
    chips.forEach((c) => c.setAttribute("aria-pressed", String(c === chip)));
    refill();
  });

  // ---- the picked run, ringed in the plots and marked in the table
  const bar = document.getElementById("picked"), picks = [];
  const events = {
    onTheme: (tell) => themed.push(tell),
    onPick: (tell) => picks.push(tell),
    pick(number) {
      report.picked = number;
      bar.hidden = number < 0;
      if (number >= 0) bar.querySelector("code").textContent = runs.rows[number][0];
      for (const row of body.children) row.classList.toggle("picked", Number(row.dataset.run) === number);
      picks.forEach((tell) => tell());
    },
  };
  bar.querySelector(".clear").addEventListener("click", () => events.pick(-1));
  bar.querySelector(".find").addEventListener("click", () => {
    box.value = runs.rows[report.picked][0];
    state = "";
    chips.forEach((c) => c.setAttribute("aria-pressed", String(!c.dataset.state)));
    refill();
    document.getElementById("runs-title").scrollIntoView();
    body.querySelector("button")?.focus({ preventScroll: true });
  });

  const report = (window.report = { runs, plots, el, words, shown, events, picked: -1 });
  place.replaceChildren(el("table", {}, el("thead", {}, head), body));
  refill();
})();
