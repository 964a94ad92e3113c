// Drag over a plot to look closer, double click (or Escape) to see all of it again. For a mouse: a finger scrolls the page.
"use strict";
(() => {
  const LEAST = 12; // pixels: a shorter drag is a click
  window.report.zoomable = (canvas, chart) => {
    const frame = window.report.el("div", { class: "zooming", hidden: "" });
    canvas.parentElement.append(frame);
    let from = null;

    const inside = (event) => {
      const box = canvas.getBoundingClientRect(), { left, right, top, bottom } = chart.chartArea;
      return { x: Math.min(Math.max(event.clientX - box.left, left), right), y: Math.min(Math.max(event.clientY - box.top, top), bottom) };
    };
    const wide = (to) => Math.abs(to.x - from.x) > LEAST && Math.abs(to.y - from.y) > LEAST;

    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button) return;
      from = inside(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = inside(event);
      frame.hidden = !wide(to);
      Object.assign(frame.style, { left: `${Math.min(from.x, to.x)}px`, top: `${Math.min(from.y, to.y)}px`,
        width: `${Math.abs(to.x - from.x)}px`, height: `${Math.abs(to.y - from.y)}px` });
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      const to = inside(event);
      chart.dragged = wide(to);
      if (chart.dragged) limit({ x: [from.x, to.x], y: [from.y, to.y] });
      from = null;
      frame.hidden = true;
    });
    canvas.addEventListener("pointercancel", () => { from = null; frame.hidden = true; });
    canvas.addEventListener("dblclick", () => limit(null));
    canvas.addEventListener("keydown", (event) => event.key === "Escape" && limit(null));

    function limit(pixels) {
      if (!pixels && !chart.zoomed) return;
      const { panel, scales } = chart.config.options;
      for (const axis of ["x", "y"]) {
        const ends = pixels ? pixels[axis].map((at) => chart.scales[axis].getValueForPixel(at)) : panel[axis].limits;
        [scales[axis].min, scales[axis].max] = [Math.min(...ends), Math.max(...ends)];
      }
      chart.zoomed = Boolean(pixels);
      chart.update("none");
    }
  };
})();
