// Parallel coordinates: a range chosen on an axis keeps the lines that pass there, and counts them.
const brush = document.getElementById("brush");
if (brush) {
  const { axes, runs, kinds } = JSON.parse(document.getElementById("brush-data").content.textContent);
  const namespace = Object.assign(document.createElement("div"), { innerHTML: "<svg></svg>" }).firstChild.namespaceURI;
  const made = (tag, attributes, parent) => {
    const part = document.createElementNS(namespace, tag);
    for (const name in attributes) part.setAttribute(name, attributes[name]);
    parent?.append(part);
    return part;
  };
  const [WIDTH, TOP, BOTTOM, MARGIN] = [900, 34, 300, 70];
  const across = (axis) => MARGIN + (WIDTH - 2 * MARGIN) * axis / (axes.length - 1);
  const down = (place) => BOTTOM - (BOTTOM - TOP) * place / 1000;
  const svg = made("svg", { viewBox: "0 0 " + WIDTH + " 316", role: "group", "aria-label": "Runs as lines over " + axes.map((axis) => axis.name).join(", ") });
  const scroll = Object.assign(document.createElement("div"), { className: "scroll", tabIndex: 0 });
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Runs by their settings");
  scroll.append(svg);
  // Lines of one value lie side by side, by steps that fill evenly.
  const offset = (number, axis) => axes[axis].apart * (((number * 0.618034 + axis * 0.37) % 1) - 0.5);
  const lines = runs.map(([row, kind, ...places], number) => made("polyline", {
    class: kinds[kind].name,
    points: places.map((place, axis) => across(axis).toFixed(1) + "," + down(place + offset(number, axis)).toFixed(1)).join(" "),
  }));
  svg.append(...runs.map((_, number) => number).sort((a, b) => runs[a][1] - runs[b][1]).map((number) => lines[number]));
  const ranges = axes.map(() => null), said = document.createElement("p"), buttons = document.createElement("p");
  said.className = "said";
  said.setAttribute("role", "status");
  const words = (axis) => {
    const [low, high] = ranges[axis], inside = axes[axis].stops.filter(([place]) => place >= low && place <= high).map(([, text]) => text);
    const text = inside.length > 1 ? inside[0] + " to " + inside[inside.length - 1] : inside.length ? inside[0] : "no value";
    return axes[axis].name + " " + text;
  };
  let kept = runs;
  const update = () => {
    const set = axes.map((_, axis) => axis).filter((axis) => ranges[axis]);
    kept = runs.filter(([, , ...places], number) => {
      const inside = set.every((axis) => places[axis] >= ranges[axis][0] && places[axis] <= ranges[axis][1]);
      lines[number].classList.toggle("off", !inside);
      return inside;
    });
    const failed = kept.filter(([, kind]) => kinds[kind].name === "failed").length;
    said.textContent = kept.length + " of " + runs.length + " runs, " + failed + " of them failed" + (kept.length ? " (" + Math.round(100 * failed / kept.length) + " %)" : "") + (set.length ? ": " + set.map(words).join("; ") : "");
    bands.forEach(([band, group], axis) => {
      const range = ranges[axis];
      band.setAttribute("visibility", range ? "visible" : "hidden");
      if (range) {
        band.setAttribute("y", down(range[1]) - 5);
        band.setAttribute("height", down(range[0]) - down(range[1]) + 10);
      }
      group.setAttribute("aria-label", axes[axis].name + ": " + (range ? words(axis).slice(axes[axis].name.length + 1) : "all values"));
    });
    for (const button of buttons.children) button.disabled = !set.length;
    if (chosen && !set.length) choose(null);
  };
  const choose = (only) => {
    chosen = only;
    filter();
  };
  const bands = axes.map((axis, number) => {
    const x = across(number), group = made("g", { class: "axis", tabindex: 0, role: "group" }, svg);
    made("rect", { x: x - 26, y: TOP - 12, width: 52, height: BOTTOM - TOP + 24 }, group);
    made("line", { x1: x, x2: x, y1: TOP, y2: BOTTOM }, group);
    const band = made("rect", { class: "range", x: x - 9, width: 18, visibility: "hidden" }, group);
    made("text", { class: "name", x, y: 16, "text-anchor": "middle" }, group).textContent = axis.label;
    for (const [place, text] of axis.ticks) made("text", { class: "tick", x: x + 13, y: down(place) + 4 }, group).textContent = text;
    let from = null;
    const at = (event) => {
      const box = svg.getBoundingClientRect(), y = (event.clientY - box.top) * 316 / box.height;
      return Math.max(0, Math.min(1000, 1000 * (BOTTOM - y) / (BOTTOM - TOP)));
    };
    group.addEventListener("pointerdown", (event) => {
      from = at(event);
      if (group.setPointerCapture && event.pointerId) group.setPointerCapture(event.pointerId);
      group.focus({ preventScroll: true });
      event.preventDefault();
    });
    group.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = at(event), near = axis.stops.length <= 12 ? 1000 / (2 * Math.max(1, axis.stops.length - 1)) * 0.6 : 0;
      ranges[number] = Math.abs(to - from) < 8 ? null : [Math.min(from, to) - near, Math.max(from, to) + near];
      update();
    });
    const drop = (event) => {
      if (from === null) return;
      const moved = Math.abs(at(event) - from) >= 8;
      from = null;
      if (!moved) {
        ranges[number] = null;
        update();
      }
    };
    group.addEventListener("pointerup", drop);
    group.addEventListener("pointercancel", drop);
    group.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key], { stops } = axis, last = stops.length - 1;
      if (event.key === "Escape") ranges[number] = null;
      else if (step) {
        const inside = stops.map((_, place) => place).filter((place) => ranges[number] && stops[place][0] >= ranges[number][0] && stops[place][0] <= ranges[number][1]);
        let [low, high] = inside.length ? [inside[0], inside[inside.length - 1]] : step > 0 ? [-1, -1] : [last + 1, last + 1];
        if (event.shiftKey && inside.length) high = Math.max(low, Math.min(last, high + step));
        else {
          const move = Math.max(-low, Math.min(last - high, step));
          [low, high] = [low + move, high + move];
        }
        ranges[number] = [stops[low][0], stops[high][0]];
      } else return;
      update();
      event.preventDefault();
    });
    return [band, group];
  });
  const keys = document.createElement("p");
  kinds.forEach(({ name, text, count }) => {
    if (!count) return;
    const key = Object.assign(document.createElement("span"), { className: "key " + name });
    const whole = Object.assign(document.createElement("span"), { className: "whole" });
    whole.append(key, text + " (n = " + count + ")");
    keys.append(whole, " ");
  });
  const button = (text, action) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    made.addEventListener("click", action);
    buttons.append(made);
  };
  button("Clear", () => { ranges.fill(null); update(); });
  button("Show these runs in the table", () => { choose(new Set(kept.map(([row]) => inOrder[row]))); location.hash = "runs"; });
  brush.append(scroll, keys, said, buttons);
  brush.hidden = false;
  update();
}
