// The page of `harness serve`: it asks for JSON every few seconds and shows it. Texts go in as text, never as HTML.
"use strict";
const main = document.getElementById("main");
const COLOURS = Array.from({length: 8}, (_, i) => `var(--line${i})`);  // of the style, where dark pages have their own
const POLL = 2000;
let timer = null, view = 0;
const chosen = new Map();  // runs to compare, by study and trial

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined).map(child => child instanceof Node ? child : String(child)));
  return node;
}
const show = value => value === null || value === undefined ? "–" : Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3);
const time = s => s === null || s === undefined ? "–" : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}
function copy(text, label = "Copy") {
  const button = el("button", {class: "plain", type: "button", title: text, onclick: async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { window.prompt("Copy:", text); }
    setTimeout(() => { button.textContent = label; }, 1500);
  }}, label);
  return button;
}
function table(header, rows) {
  const cell = (tag, value, numeric) => el(tag, numeric ? {class: "number"} : {}, value);
  return el("div", {class: "scroll"}, el("table", {},
    el("thead", {}, el("tr", {}, ...header.map(([name, numeric]) => cell("th", name, numeric)))),
    el("tbody", {}, ...rows.map(row => el("tr", {}, ...row.map((value, i) => cell("td", value, header[i][1])))))));
}
const word = text => el("span", {class: text}, text);
function bar(study) {
  return el("span", {class: "whole"}, el("progress", {max: study.planned || 1, value: study.finished, "aria-label": "finished runs"}), ` ${study.finished} of ${study.planned}`);
}
const link = name => `#/study/${encodeURIComponent(name)}`;
const pageOf = name => `/studies/${encodeURIComponent(name)}/report/index.html`;

// ------------------------------------------------------------------------------------------------ curves as pictures
function chart(title, lines, unit) {
  const W = 460, H = 240, left = 52, bottom = 34, top = 24, right = 10;
  const points = lines.flatMap(line => line.points).filter(p => p[1] !== null);
  if (!points.length) return el("p", {class: "soft"}, `${title}: nothing recorded yet.`);
  let [x0, x1] = [Math.min(...points.map(p => p[0])), Math.max(...points.map(p => p[0]))];
  let [y0, y1] = [Math.min(...points.map(p => p[1])), Math.max(...points.map(p => p[1]))];
  if (x0 === x1) { x0 -= 1; x1 += 1; }
  if (y0 === y1) { y0 -= .5; y1 += .5; }
  const x = v => left + (v - x0) / (x1 - x0) * (W - left - right), y = v => H - bottom - (v - y0) / (y1 - y0) * (H - top - bottom);
  const svg = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const root = svg("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: ${lines.length} runs, from ${show(y0)} to ${show(y1)}`});
  root.append(svg("text", {x: left, y: 16, "font-weight": 600}, title));
  for (const value of [y0, (y0 + y1) / 2, y1]) root.append(svg("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end"}, show(value)),
    svg("line", {x1: left, x2: W - right, y1: y(value), y2: y(value), stroke: "currentColor", "stroke-opacity": .15}));
  root.append(svg("text", {x: left, y: H - 10}, String(Math.round(x0))), svg("text", {x: W - right, y: H - 10, "text-anchor": "end"}, `${Math.round(x1)} ${unit}`));
  lines.forEach((line, i) => {
    let path = "", open = false;
    for (const [step, value] of line.points) {
      if (value === null) { open = false; continue; }
      path += `${open ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`; open = true;
    }
    const drawn = svg("path", {d: path, fill: "none", style: `stroke: ${COLOURS[i % COLOURS.length]}`, "stroke-width": 1.8});
    drawn.append(svg("title", {}, line.name));
    root.append(drawn);
    const known = line.points.filter(([, value]) => value !== null);
    if (known.length === 1) {  // one evaluation is no line
      const dot = svg("circle", {cx: x(known[0][0]).toFixed(1), cy: y(known[0][1]).toFixed(1), r: 4, style: `fill: ${COLOURS[i % COLOURS.length]}`});
      dot.append(svg("title", {}, line.name));
      root.append(dot);
    }
  });
  return root;
}
function legend(names) {
  return el("ul", {class: "legend"}, ...names.map((name, i) => el("li", {}, el("i", {style: `background:${COLOURS[i % COLOURS.length]}`}), name)));
}
function charts(runs) {
  const names = runs.map(run => run.name);
  return el("div", {},
    el("div", {class: "charts"}, chart("Training loss", runs.map((run, i) => ({name: names[i], points: run.train_loss})), "updates"),
      chart("Dev score", runs.map((run, i) => ({name: names[i], points: run.dev_score})), "updates")),
    legend(names));
}

// ---------------------------------------------------------------------------------------------------------- the views
async function studiesView() {
  const data = await get("/api/studies");
  document.getElementById("folder").textContent = data.results;
  const rows = data.studies.map(s => [el("a", {href: link(s.name)}, s.title), el("code", {}, s.name), word(s.state), bar(s),
    s.failed ? el("span", {class: "failed"}, s.failed) : 0, s.crashed ? el("span", {class: "crashed"}, s.crashed) : 0,
    s.at_risk ? el("span", {class: "risk"}, s.at_risk) : s.training ? 0 : "", time(s.seconds_left), s.page ? el("a", {href: pageOf(s.name)}, "page") : "–"]);
  const broken = Object.entries(data.unreadable).map(([name, why]) => el("p", {class: "crashed"}, `${name}: ${why}`));
  return [el("h1", {}, "Studies"), rows.length ? table([["study"], ["folder"], ["state"], ["finished"], ["failed", true], ["crashed", true], ["at risk", true], ["time left", true], ["report"]], rows)
    : el("p", {}, "No study here yet: `harness sweep` begins one."), ...broken];
}
const card = (label, value, className) => el("div", {}, label, el("b", className ? {class: className} : {}, value));
async function studyView(name) {
  const s = await get(`/api/studies/${encodeURIComponent(name)}`);
  const parts = [el("h1", {}, s.title), el("p", {class: "soft"}, s.stand_in ? `${s.stand_in}. ` : "", el("code", {}, s.name), " ",
    s.page ? el("a", {href: pageOf(s.name)}, "Report") : "No report yet.", " ", el("a", {href: `#/runs?study=${encodeURIComponent(s.name)}`}, "All its runs"))];
  parts.push(el("div", {class: "cards"}, card("State", s.state, s.state), card("Finished", `${s.finished} of ${s.planned}`), card("Failed", s.failed, s.failed ? "failed" : ""),
    card("Crashed", s.crashed, s.crashed ? "crashed" : ""), card("Training", s.training), card("At risk", s.at_risk, s.at_risk ? "risk" : ""), card("Time left", time(s.seconds_left)),
    card("Workers", s.workers ? `${s.workers} on ${s.device}` : "–")));
  if (s.early_warning) parts.push(el("p", {class: "soft"}, s.early_warning));
  if (s.packs.length) {
    parts.push(el("h2", {}, "Training now"), table([["runs"], ["done"], ["steps", true], ["steps/s", true], ["since", true], ["at risk"]], s.packs.map(p => [
      el("span", {}, ...p.trials.map(t => el("div", {}, el("code", {}, t)))), el("span", {}, el("progress", {max: 1, value: p.share, "aria-label": "share done"}), ` ${Math.round(100 * p.share)} %`),
      p.steps ? `${p.steps_done} of ${p.steps}` : "–", p.steps_per_second ? p.steps_per_second.toFixed(1) : "–", time(p.seconds),
      p.lost.some(x => x) ? el("span", {class: "risk"}, p.trials.filter((t, i) => p.lost[i]).join(", ")) : p.lost.some(x => x === false) ? "none" : "not told yet"])));
    const live = Object.entries(s.live_losses).filter(([, values]) => values.length);
    if (live.length) parts.push(el("h2", {}, "Training loss so far"), el("div", {class: "charts"}, chart("Training loss", live.map(([trial, values]) => ({name: trial, points: values.map((v, i) => [(i + 1) * 2.5, v])})), "% of the updates"), legend(live.map(([trial]) => trial))));
  }
  if (s.cells instanceof Array) parts.push(el("h2", {}, "Cells"), table([["settings"], ["finished", true], ["failed", true], ["crashed", true], ["missing", true], ["training", true]],
    s.cells.slice(0, 300).map((c, i) => [s.labels[i], c.finished, c.failed, c.crashed, c.missing, c.training])));
  const again = trial => s.commands.rerun ? copy(`${s.commands.rerun} --trial ${trial}`, "Copy rerun") : "";
  if (s.crashed_trials.length) parts.push(el("h2", {}, "Crashed"), table([["run"], ["error"], ["attempts", true], [""]], s.crashed_trials.slice(0, 50).map(t => [el("code", {}, t.trial), t.error, t.attempts, again(t.trial)])));
  if (s.failed_trials.length) parts.push(el("h2", {}, `Failed (${s.failed_trials.length}${s.failed_trials.length > 20 ? ", the first 20 here" : ""})`), table([["run"], [""]], s.failed_trials.slice(0, 20).map(t => [el("code", {}, t), again(t)])));
  parts.push(el("h2", {}, "Commands"), ...Object.entries(s.commands).map(([what, command]) => el("p", {}, el("code", {}, what === "rerun" ? `${command} --trial ID` : command), " ", copy(command))));
  return parts;
}
const filter = {query: "", verdict: "", study: "", order: ""};
async function runsView(parameters) {
  for (const name of Object.keys(filter)) if (parameters.has(name)) filter[name] = parameters.get(name);
  const [data, all] = await Promise.all([get(`/api/runs?${new URLSearchParams(filter)}`), get("/api/studies")]);
  const set = (name, value) => { filter[name] = value; location.hash = `#/runs?${new URLSearchParams(filter)}`; };
  const options = (values, current) => values.map(([value, text]) => el("option", {value, selected: value === current}, text));
  const form = el("form", {onsubmit: event => { event.preventDefault(); set("query", event.target.query.value); }},
    el("label", {}, "Words", el("input", {name: "query", type: "search", value: filter.query, placeholder: "lr 2e-5 seed3"})),
    el("label", {}, "Verdict", el("select", {name: "verdict", onchange: e => set("verdict", e.target.value)}, ...options([["", "all"], ...["ok", "failed", "crashed", "missing", "finished"].map(v => [v, v])], filter.verdict))),
    el("label", {}, "Study", el("select", {name: "study", onchange: e => set("study", e.target.value)}, ...options([["", "all"], ...all.studies.map(s => [s.name, s.name])], filter.study))),
    el("button", {class: "plain"}, "Filter"));
  const sortable = (name, text) => el("button", {type: "button", "data-key": name, onclick: () => set("order", filter.order === `-${name}` ? name : `-${name}`)}, text, filter.order === name ? " ↑" : filter.order === `-${name}` ? " ↓" : "");
  const key = run => `${run.study}\n${run.trial}`;
  const pick = run => el("input", {type: "checkbox", "aria-label": `compare ${run.trial}`, checked: chosen.has(key(run)), onchange: event => {
    if (event.target.checked) chosen.set(key(run), run); else chosen.delete(key(run));
    compare(area);
  }});
  const area = el("div", {id: "compare"});
  const rows = data.runs.map(run => [pick(run), run.study, run.settings, run.seed, el("span", {class: run.verdict}, run.verdict, run.reason ? `: ${run.reason}` : ""), show(run.score), show(run.best), show(run.loss), time(run.seconds), run.command ? copy(run.command, "Copy rerun") : ""]);
  compare(area);
  return [el("h1", {}, "Runs"), form, area, el("p", {class: "soft"}, `${data.total.toLocaleString("en")} ${data.total === 1 ? "run" : "runs"}` + (data.total > data.runs.length ? `, of which the first ${data.runs.length} are shown` : "") + "; tick some to compare them."),
    table([["compare"], ["study"], ["settings"], ["seed"], ["verdict"], [sortable("score", "score"), true], ["best", true], [sortable("loss", "training loss"), true], [sortable("seconds", "time"), true], [""]], rows)];
}
async function compare(area) {
  const runs = [...chosen.values()].slice(0, COLOURS.length);
  if (!runs.length) { area.replaceChildren(); return; }
  const found = await Promise.all(runs.map(async run => {
    const name = `${run.study}: ${run.settings}, seed ${run.seed}`;
    try { return {name, ...await get(`/api/studies/${encodeURIComponent(run.study)}/curves/${encodeURIComponent(run.trial)}`)}; }
    catch { return {name: `${name} (no curves)`, train_loss: [], dev_score: []}; }
  }));
  area.replaceChildren(el("h2", {}, "Compared"), charts(found), el("p", {}, el("button", {class: "plain", type: "button", onclick: () => { chosen.clear(); render(); }}, "Clear")));
}

// What has the focus keeps it when the page is drawn anew: it is found again by what it says.
const keyOf = node => `${node.tagName} ${node.dataset.key || node.getAttribute("aria-label") || node.title || node.textContent}`;
const reachable = () => [...main.querySelectorAll("a, button, input, select")];
function focused() {
  const active = document.activeElement;
  if (active === main || !main.contains(active)) return null;
  const key = keyOf(active);
  return {key, place: reachable().filter(node => keyOf(node) === key).indexOf(active)};
}
function refocus(before) {
  const node = before && reachable().filter(other => keyOf(other) === before.key)[before.place];
  if (node) node.focus({preventScroll: true});
  return Boolean(node);
}

async function render(again = false) {
  clearTimeout(timer);
  const mine = ++view, [path, query = ""] = location.hash.slice(1).split("?");
  const parts = path.split("/").filter(Boolean), age = document.getElementById("age");
  try {
    const busy = again && main.contains(document.activeElement) && /INPUT|SELECT/.test(document.activeElement.tagName);
    if (!busy) {
      const nodes = parts[0] === "study" ? await studyView(decodeURIComponent(parts[1])) : parts[0] === "runs" ? await runsView(new URLSearchParams(query)) : await studiesView();
      if (mine !== view) return;
      const before = focused();
      main.replaceChildren(...nodes);
      if (!refocus(before) && !again) main.focus({preventScroll: true});
    }
    age.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    age.textContent = "no answer from the server";
    if (!again) main.replaceChildren(el("p", {class: "crashed"}, error.message));
  }
  if (parts[0] !== "runs") timer = setTimeout(() => render(true), POLL);
}
window.addEventListener("hashchange", () => render());
render();
