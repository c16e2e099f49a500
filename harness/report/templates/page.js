// Without scripts everything is there to be read and selected; these add copying, sorting and filtering.
document.documentElement.classList.add("scripted");
for (const code of document.querySelectorAll("td code, .copy pre")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy";
  button.setAttribute("aria-label", code.matches("pre") ? "copy the file" : "copy: " + code.textContent);
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = "copied"; }
    catch { getSelection().selectAllChildren(code); button.textContent = document.execCommand("copy") ? "copied" : "selected"; }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
  code.before(button);
}
const table = document.getElementById("all-runs"), rows = [...table.tBodies[0].rows], inOrder = [...rows];
const number = (text) => text === "" || text === "–" ? NaN : Number(text.replace("−", "-"));
table.querySelectorAll("th[data-sort]").forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].textContent;
    rows.sort((a, b) => {
      const x = number(key(a)), y = number(key(b));
      if (isNaN(x) || isNaN(y)) {
        if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;  // what is not known stands last
        return (up ? 1 : -1) * key(a).localeCompare(key(b));
      }
      return up ? x - y : y - x;
    });
    table.tBodies[0].append(...rows);
  });
});
let chosen = null;  // rows that are chosen elsewhere on the page; none: all
const verdict = document.getElementById("verdict"), text = document.getElementById("text"), count = document.getElementById("count");
const filter = () => {
  const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const cells = [...row.cells].map((cell) => (cell.querySelector("code") ?? cell).textContent.toLowerCase());
    const fits = (!chosen || chosen.has(row)) && (!verdict.value || row.dataset.verdict === verdict.value) && words.every((word) => cells.some((cell) => cell.includes(word)));
    row.hidden = !fits;
    shown += fits;
  }
  count.textContent = shown + " of " + rows.length + " runs" + (chosen ? ", chosen by their settings" : "");
};
verdict.addEventListener("change", filter);
text.addEventListener("input", filter);
filter();
// Columns to choose.
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => { for (const row of [table.tHead.rows[0], ...rows]) row.cells[column].hidden = !box.checked; });
  label.append(box, " " + head.textContent);
  document.getElementById("columns").append(label);
});
// A link into what is folded opens it; the contents follow what is read.
const unfold = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.matches("details")) part.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const follow = () => {
  let current = "main";
  for (const id of links.keys()) if (document.getElementById(id).getBoundingClientRect().top < 120) current = id;
  links.forEach((link, id) => id === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
};
addEventListener("scroll", follow, { passive: true });
follow();
