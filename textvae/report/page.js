"use strict";
// Every text the page shows is in its markup already; the script only points at it.
(() => {
  document.documentElement.classList.add("scripted");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- the curves: one cross-hair for all panels, moved by pointer or arrow keys ---
  const charts = all(".chart").map((svg) => ({
    svg,
    box: svg.parentElement,
    last: Number(svg.dataset.last),
    left: Number(svg.dataset.left),
    right: Number(svg.dataset.right),
    cross: svg.querySelector(".cross"),
    name: svg.closest("figure").querySelector("b").textContent,
    lines: all("g[data-steps]", svg).map((g) => ({
      name: g.dataset.name,
      steps: g.dataset.steps.split(" ").map(Number),
      values: g.dataset.values.split(" "),
    })),
  }));
  const readout = document.querySelector(".readout");
  let step = 0;

  const nearest = (values, wanted) => {
    let best = 0;
    values.forEach((value, place) => {
      if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = place;
    });
    return best;
  };

  const read = (wanted) => {
    const steps = charts[0].lines[0].steps;
    step = steps[nearest(steps, wanted)];
    const said = charts.map((chart) => {
      const place = chart.left + (step / Math.max(chart.last, 1)) * (chart.right - chart.left);
      chart.cross.setAttribute("x1", place);
      chart.cross.setAttribute("x2", place);
      chart.cross.style.visibility = "visible";
      const values = chart.lines.map((line) => {
        const value = line.values[nearest(line.steps, step)];
        return chart.lines.length > 1 ? `${line.name} ${value}` : value;
      });
      return `${chart.name}: ${values.join(", ")}`;
    });
    readout.textContent = `Step ${step.toLocaleString("en")} \u00b7 ${said.join(" \u00b7 ")}`;
  };

  for (const chart of charts) {
    const follow = (event) => {
      const box = chart.svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.svg.viewBox.baseVal.width;
      read(((x - chart.left) / (chart.right - chart.left)) * chart.last);
    };
    chart.box.addEventListener("pointermove", follow);
    chart.box.addEventListener("pointerdown", follow);
    chart.box.addEventListener("keydown", (event) => {
      const steps = charts[0].lines[0].steps;
      const here = nearest(steps, step);
      const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: steps.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      read(steps[Math.min(Math.max(to, 0), steps.length - 1)]);
    });
  }

  // --- the map ---
  const map = document.querySelector(".map");
  if (map) {
    const svg = map.querySelector("svg");
    const tip = map.querySelector(".tip");
    const halo = map.querySelector(".halo");
    const points = all("use", svg).map((use) => {
      const title = use.querySelector("title");
      const [text, labels] = title.textContent.split("\n");
      title.remove(); // or the browser's own tip would cover ours
      return {
        use, text, labels,
        x: Number(use.getAttribute("x")),
        y: Number(use.getAttribute("y")),
        kinds: (use.dataset.k || "").split(",").map(Number),
        off: false,
      };
    });
    let current = -1;

    const show = (place) => {
      current = place;
      tip.hidden = place < 0;
      if (place < 0) {
        halo.setAttribute("cx", -99);
        return;
      }
      const point = points[place];
      halo.setAttribute("cx", point.x);
      halo.setAttribute("cy", point.y);
      const words = document.createElement("bdi");
      words.textContent = point.text;
      tip.replaceChildren(words);
      if (point.labels) {
        const small = document.createElement("small");
        small.textContent = point.labels;
        tip.append(small);
      }
      const unit = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
      const [x, y] = [point.x * unit, point.y * unit];
      const left = Math.min(Math.max(x - tip.offsetWidth / 2, 6), map.clientWidth - tip.offsetWidth - 6);
      const above = y - tip.offsetHeight - 16;
      tip.style.left = `${left}px`;
      tip.style.top = `${above < 6 ? y + 16 : above}px`;
    };

    const under = (event, reach) => {
      const box = svg.getBoundingClientRect();
      const unit = svg.viewBox.baseVal.width / box.width;
      const [x, y] = [(event.clientX - box.left) * unit, (event.clientY - box.top) * unit];
      let best = -1;
      let least = (reach * unit) ** 2;
      points.forEach((point, place) => {
        const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (!point.off && distance < least) [best, least] = [place, distance];
      });
      return best;
    };

    // From a point, the nearest of those that lie within 45 degrees of the direction.
    const towards = (dx, dy) => {
      const from = points[current];
      let best = current;
      let least = Infinity;
      points.forEach((point, place) => {
        const [x, y] = [point.x - from.x, point.y - from.y];
        const along = x * dx + y * dy;
        const across = Math.abs(x * dy - y * dx);
        if (point.off || place === current || along <= 0 || across > along) return;
        if (along + across < least) [best, least] = [place, along + across];
      });
      return best;
    };
    const central = () => {
      const view = svg.viewBox.baseVal;
      const away = points.map((p) => (p.off ? Infinity : (p.x - view.width / 2) ** 2 + (p.y - view.height / 2) ** 2));
      return away.indexOf(Math.min(...away));
    };

    map.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") show(under(event, 18));
    });
    map.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") show(-1);
    });
    map.addEventListener("click", (event) => show(under(event, 28)));
    map.addEventListener("focusout", () => show(-1));
    map.addEventListener("keydown", (event) => {
      const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape") return show(-1);
      if (!(event.key in arrows)) return undefined;
      event.preventDefault();
      return show(current < 0 ? central() : towards(...arrows[event.key]));
    });

    // --- which label colours it, and which values are shown ---
    const legends = all(".legend");
    let by = 0;
    const last = 7;

    const only = (test) => {
      for (const point of points) {
        point.off = !test(point.kinds[by]);
        point.use.classList.toggle("off", point.off);
      }
      show(-1);
    };
    const release = () => {
      all('.legend button[aria-pressed="true"]').forEach((key) => key.setAttribute("aria-pressed", "false"));
      only(() => true);
    };
    const colour = document.getElementById("colour-by");
    if (colour) {
      colour.addEventListener("change", () => {
        by = Number(colour.value);
        legends.forEach((legend, place) => { legend.hidden = place !== by; });
        for (const point of points) {
          const kind = Math.min(point.kinds[by], last);
          point.use.setAttribute("class", `c${kind}`);
          point.use.setAttribute("href", `#m${kind}`);
        }
        all(".pick").forEach((pick) => { pick.value = ""; });
        release();
      });
    }
    for (const key of all(".legend button")) {
      key.addEventListener("click", () => {
        const pressed = key.getAttribute("aria-pressed") === "true";
        release();
        all(".pick").forEach((pick) => { pick.value = ""; });
        if (pressed) return;
        key.setAttribute("aria-pressed", "true");
        const value = key.dataset.value;
        only((kind) => (value === "others" ? kind >= last : kind === Number(value)));
      });
    }
    for (const pick of all(".pick")) {
      pick.addEventListener("change", () => {
        release();
        if (pick.value !== "") only((kind) => kind === Number(pick.value));
      });
    }
  }
})();
