// The spread figure: a run under the pointer, or chosen by the arrow keys, says what it is; a click or Enter shows it.
const marked = document.getElementById("run-marks"), image = document.querySelector("#spread-of-runs img");
if (marked && image) {
  const { places: usual, narrow, curves } = JSON.parse(marked.content.textContent), byRow = inOrder;
  const names = heads.map((head) => head.textContent), make = (tag, more) => Object.assign(document.createElement(tag), more);
  const frame = make("span", { className: "marks", tabIndex: 0 }), ring = make("i", { hidden: true }), tip = make("output", { hidden: true }), panel = make("div", { id: "run", hidden: true });
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Runs: arrow keys choose one, Enter shows its curves and rerun command");
  const drawn = image.closest("picture") ?? image;
  drawn.before(frame);
  frame.append(drawn, ring, tip);
  frame.closest("figure").after(panel);
  frame.closest("figure").querySelector("figcaption").append(" Point at a run, or choose one with the arrow keys: a click or Enter shows its curves and how to train it again.");
  const cell = (row, column) => { const data = byRow[row].cells[column]; return (data.querySelector("code") ?? data).textContent; };
  const command = (row) => { const code = byRow[row].querySelector("code"); return code ? code.textContent : ""; };
  const about = (row) => names.map((name, column) => [name, cell(row, column)]).filter(([name, text]) => name !== "rerun" && text && text !== "–").map(([name, text]) => name + " " + text).join(" · ");
  const phone = matchMedia("screen and (max-width: 40rem)"), onPhone = () => narrow.length && image.closest("picture") && phone.matches;
  let current = -1, places = onPhone() ? narrow : usual;
  phone.addEventListener("change", () => { point(-1); places = onPhone() ? narrow : usual; });
  const point = (index) => {
    current = index;
    ring.hidden = tip.hidden = index < 0;
    if (index < 0) return;
    const [row, x, y] = places[index];
    ring.style.left = tip.style.left = x / 100 + "%";
    ring.style.top = y / 100 + "%";
    tip.style.top = "calc(" + y / 100 + "% + 12px)";
    tip.style.transform = phone.matches ? "translateX(-" + x / 100 + "%)" : x > 5000 ? "translateX(-100%)" : "";
    tip.textContent = about(row) + (command(row) ? " · " + command(row) : "");
  };
  const draw = (title, x, y) => {
    const svg = make("div", { innerHTML: "<svg></svg>" }).firstChild;
    const add = (tag, attributes, text) => { const part = document.createElementNS(svg.namespaceURI, tag); for (const name in attributes) part.setAttribute(name, attributes[name]); part.textContent = text ?? ""; svg.append(part); };
    const low = Math.min(...y), high = Math.max(...y), end = x[x.length - 1] || 1, span = high - low || 1;
    svg.setAttribute("viewBox", "0 0 320 130");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", title + " from " + y[0] + " to " + y[y.length - 1]);
    add("polyline", { points: x.map((step, place) => 40 + 270 * step / end + "," + (112 - 92 * (y[place] - low) / span)).join(" "), fill: "none", stroke: "currentColor", "stroke-width": 1.5 });
    add("text", { x: 0, y: 10, fill: "currentColor" }, title);
    add("text", { x: 36, y: 24, "text-anchor": "end", fill: "currentColor" }, high);
    add("text", { x: 36, y: 115, "text-anchor": "end", fill: "currentColor" }, low);
    add("text", { x: 310, y: 128, "text-anchor": "end", fill: "currentColor" }, "step " + end);
    return svg;
  };
  const show = (index) => {
    const row = places[index][0], charts = make("div", { className: "charts" });
    for (const [title, x, y] of curves[row] ?? []) if (y.length) charts.append(draw(title, x, y));
    panel.replaceChildren(make("p", { textContent: about(row) }), charts);
    if (command(row)) {
      const line = make("p", {}), button = make("button", { type: "button", textContent: "copy" });
      button.addEventListener("click", () => navigator.clipboard.writeText(command(row)).then(() => { button.textContent = "copied"; }));
      line.append(button, make("code", { textContent: command(row) }));
      panel.append(line);
    }
    panel.hidden = false;
  };
  const nearest = (event) => {
    const box = image.getBoundingClientRect();
    let best = -1, least = 14;
    places.forEach(([, x, y], index) => {
      const away = Math.hypot(event.clientX - box.left - box.width * x / 10000, event.clientY - box.top - box.height * y / 10000);
      if (away < least) [best, least] = [index, away];
    });
    return best;
  };
  frame.addEventListener("pointermove", (event) => point(nearest(event)));
  frame.addEventListener("pointerleave", () => point(-1));
  frame.addEventListener("click", (event) => { const index = nearest(event); if (index >= 0) { point(index); show(index); } });
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) point((current + step + places.length) % places.length);
    else if (event.key === "Enter" && current >= 0) show(current);
    else if (event.key === "Escape") { point(-1); panel.hidden = true; }
    else return;
    event.preventDefault();
  });
}
