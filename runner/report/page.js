"use strict";
// Draws the charts of the page: each when it comes into view. Texts reach the page by textContent alone.
(() => {
  const { charts, moments } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const figures = [...document.querySelectorAll("figure")];
  const drawn = new Map(); // figure → its uPlot
  const zoomed = { step: null, time: null }; // the part of each axis that is shown, null: all of it
  let chosen = "step";

  const colour = name => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const axisOf = chart => (chart.axis === "time" ? "time" : chosen);

  function figure(value) {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace(/\.?0+e/, "e");
    return Number(value.toPrecision(size < 1e4 ? 4 : 7)).toLocaleString("en", { maximumFractionDigits: 6 });
  }

  function duration(seconds) {
    const whole = Math.round(Math.abs(seconds)), sign = seconds < 0 ? "-" : "";
    if (whole < 60) return sign + figure(Math.abs(seconds)) + "s";
    const minutes = Math.floor(whole / 60), hours = Math.floor(minutes / 60);
    const two = number => String(number).padStart(2, "0");
    return sign + (hours ? hours + "h " + two(minutes % 60) + "m" : minutes + "m " + two(whole % 60) + "s");
  }

  // From where to where an axis goes: the same for all charts, so that what happened at once stands below each other.
  function extent(axis) {
    const ends = charts.filter(chart => axisOf(chart) === axis).flatMap(chart => chart.series)
      .filter(one => one[axis].length).flatMap(one => [one[axis][0], one[axis][one[axis].length - 1]]);
    return [...new Set([Math.min(...ends), Math.max(...ends)])];
  }

  // The columns of uPlot: the common axis, then for each line its values, and the borders of its band behind them.
  function columns(chart, axis) {
    const tables = chart.series.map(one =>
      one.low ? [one[axis], one.values, one.high, one.low] : [one[axis], one.values]);
    return uPlot.join([...tables.map(ascending), [extent(axis)]]);
  }

  // A resumed run may have been on a box whose clock was behind: uPlot needs an axis that never falls.
  function ascending(table) {
    const xs = table[0];
    if (xs.every((x, place) => place === 0 || x >= xs[place - 1])) return table;
    const order = xs.map((_, place) => place).sort((a, b) => xs[a] - xs[b]);
    return table.map(column => order.map(place => column[place]));
  }

  function lines(chart) {
    const series = [{}], bands = [];
    for (const one of chart.series) {
      const stroke = colour("c" + (one.colour % 8));
      const dash = one.colour >= 8 ? [6, 3 + 2 * Math.floor(one.colour / 8)] : undefined;
      series.push({
        label: one.label, stroke: one.faint ? stroke + "50" : stroke, width: one.faint ? 1 : 1.6, dash,
        points: { show: one.values.length <= 40 && !one.faint, size: 5 },
        value: (_, value) => (value == null ? "–" : figure(value)),
      });
      if (!one.low) continue;
      bands.push({ series: [series.length, series.length + 1], fill: stroke + "30" });
      for (const border of ["high", "low"])
        series.push({ label: one.label + " " + border, stroke: "#0000", points: { show: false } });
    }
    return { series, bands };
  }

  function drawMoments(plot, axis) {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const moment of moments) {
      const x = Math.round(plot.valToPos(moment[axis], "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      const important = !["checkpoint", "phase"].includes(moment.kind);
      ctx.strokeStyle = important ? colour({ oom: "bad", ended: "text", resume: "c0" }[moment.kind] || "warn") : colour("line");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash(important ? [] : [3, 3]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  // What happened near the cursor, as text below the chart.
  function tellMoments(plot, axis, near) {
    const { left } = plot.cursor;
    const here = left < 0 ? [] : moments.filter(each => Math.abs(plot.valToPos(each[axis], "x") - left) < 6);
    near.textContent = here.slice(-4).map(each => each.kind + ": " + each.text).join(" · ");
  }

  function draw(where) {
    const chart = charts[Number(where.dataset.chart)], axis = axisOf(chart);
    drawn.get(where)?.destroy();
    where.querySelector(".near")?.remove();
    const { series, bands } = lines(chart);
    const near = document.createElement("div");
    near.className = "near";
    series[0] = { label: axis, value: (_, x) => (x == null ? "–" : axis === "time" ? duration(x) : figure(x)) };
    const look = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    const plot = new uPlot({
      width: Math.max(where.clientWidth - 12, 160), height: 220, series, bands,
      scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) } },
      axes: [
        { ...look, space: 70, values: (_, ticks) => ticks.map(axis === "time" ? duration : figure) },
        { ...look, size: 64, values: (_, ticks) => ticks.map(each => (each == null ? "" : figure(each))) },
      ],
      cursor: { sync: { key: axis, setSeries: false, scales: ["x", null] }, drag: { x: true, y: false } },
      hooks: {
        draw: [each => drawMoments(each, axis)],
        setCursor: [each => tellMoments(each, axis, near)],
        setSeries: [(each, place, { show }) => show != null && toggleBorders(each, chart, place, show)],
        setScale: [(each, scale) => scale === "x" && remember(each, axis)],
      },
    }, columns(chart, axis), where);
    hideBorders(plot, chart);
    if (zoomed[axis]) plot.setScale("x", zoomed[axis]);
    where.append(near);
    drawn.set(where, plot);
  }

  // Borders of bands, and single runs behind a mean, need no line of the legend.
  function hideBorders(plot, chart) {
    const rows = plot.root.querySelectorAll(".u-legend .u-series");
    let place = 1;
    for (const one of chart.series) {
      if (one.faint) rows[place].hidden = true;
      for (let border = 1; one.low && border < 3; border++) rows[place + border].hidden = true;
      place += one.low ? 3 : 1;
    }
  }

  // A band goes and comes with its line.
  function toggleBorders(plot, chart, chosen, show) {
    let place = 1;
    for (const one of chart.series) {
      if (one.low && place === chosen) for (const border of [1, 2]) plot.setSeries(place + border, { show });
      place += one.low ? 3 : 1;
    }
  }

  // A chart that is drawn later shows the same part as those that were zoomed before.
  function remember(plot, axis) {
    const { min, max } = plot.scales.x, xs = plot.data[0];
    zoomed[axis] = xs.length && min <= xs[0] && max >= xs[xs.length - 1] ? null : { min, max };
  }

  function redraw() {
    for (const where of drawn.keys()) draw(where);
  }

  function drawAll() {
    for (const where of figures) drawn.has(where) || draw(where);
  }

  function offerAxes() {
    const before = document.querySelector(".charts");
    if (!before) return;
    const line = document.createElement("p"), select = document.createElement("select");
    line.className = "axis";
    for (const name of ["step", "time"]) select.append(new Option(name, name));
    select.addEventListener("change", () => {
      chosen = select.value;
      zoomed.step = zoomed.time = null;
      redraw();
    });
    line.append("Over ", select, " · drag to zoom, double-click for all of it · click a name to hide its line");
    before.before(line);
  }

  const paper = on => {
    root.classList.toggle("paper", on);
    if (on) drawAll();
    redraw();
  };
  offerAxes();
  const seen = new IntersectionObserver(entries => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting && !drawn.has(target)) draw(target);
    root.dataset.ready ||= String(Math.round(performance.now()));
  }, { rootMargin: "300px" });
  figures.forEach(each => seen.observe(each));
  if (!figures.length) root.dataset.ready = String(Math.round(performance.now()));
  const sized = new ResizeObserver(entries => {
    for (const { target } of entries) {
      const plot = drawn.get(target), width = Math.max(target.clientWidth - 12, 160);
      if (plot && plot.width !== width) plot.setSize({ width, height: 220 });
    }
  });
  figures.forEach(each => sized.observe(each));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
})();
