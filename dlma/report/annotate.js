"use strict";
// Texts enter the page by textContent only. No request leaves the page.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("page-data").textContent);
const TEXTS = ["question", "left", "right"];
let state = null;
let at = 0;

// ---- progress, kept in this browser under the page and the person
const slot = (name) => `dlma-annotate/${data.page}/${name}`;
function kept(name) {
  try { return JSON.parse(localStorage.getItem(slot(name))); } catch (error) { return null; }
}
function keep() {
  try {
    localStorage.setItem(slot(state.annotator), JSON.stringify(state));
    localStorage.setItem("dlma-annotate/name", state.annotator);
  } catch (error) { byId("unkept").hidden = false; }
}

// ---- one pair
const finished = () => at >= data.items.length;
const veiled = () => TEXTS.some((id) => byId(id).classList.contains("veiled"));
function buttons() {
  ["left", "tie", "right"].forEach((side) => { byId(`say-${side}`).disabled = veiled(); });
  byId("show").disabled = !veiled();
}
function lift(node) {
  node.classList.remove("veiled");
  buttons();
}
function draw() {
  byId("work").hidden = finished();
  byId("end").hidden = byId("again").hidden = !finished();
  if (finished()) return;
  const item = data.items[at];
  const said = state.labels[item.id];
  TEXTS.forEach((id) => {
    byId(id).textContent = item[id] || "(empty)";
    byId(id).classList.toggle("veiled", !said);
    byId(id).classList.toggle("chosen", said === id);
  });
  byId("where").textContent = `pair ${at + 1} of ${data.items.length}${said ? `, you said: ${said}` : ""}`;
  byId("done").style.width = `${(100 * Object.keys(state.labels).length) / data.items.length}%`;
  byId("back").disabled = at === 0;
  buttons();
}
function say(verdict) {
  if (finished() || veiled()) return;
  state.labels[data.items[at].id] = verdict;
  keep();
  at += 1;
  draw();
}
function back() {
  if (at > 0) { at -= 1; draw(); }
}

// ---- start, keys, download
function start() {
  const name = byId("name").value.trim();
  if (!name) { byId("name").focus(); return; }
  const before = kept(name);
  state = { annotator: name, labels: (before && before.labels) || {} };
  const open = data.items.findIndex((item) => !(item.id in state.labels));
  at = open < 0 ? data.items.length : open;
  byId("start").hidden = true;
  byId("save").hidden = false;
  byId("name").blur();
  keep();
  draw();
}
function download() {
  const found = { format: data.format, page: data.page, annotator: state.annotator, labels: state.labels };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
  link.download = `labels-${state.annotator.replace(/[^\w-]+/g, "_")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}
const KEYS = {
  ArrowLeft: () => say("left"), 1: () => say("left"),
  ArrowDown: () => say("tie"), 2: () => say("tie"),
  ArrowRight: () => say("right"), 3: () => say("right"),
  ArrowUp: back, " ": () => TEXTS.forEach((id) => lift(byId(id))),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!state) { if (event.key === "Enter") start(); return; }
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
TEXTS.forEach((id) => byId(id).addEventListener("click", () => lift(byId(id))));
["left", "tie", "right"].forEach((side) => byId(`say-${side}`).addEventListener("click", () => say(side)));
byId("show").addEventListener("click", KEYS[" "]);
byId("back").addEventListener("click", back);
byId("again").addEventListener("click", back);
byId("go").addEventListener("click", start);
byId("download").addEventListener("click", download);
byId("task").textContent = byId("ask").textContent = data.ask;
try { byId("name").value = localStorage.getItem("dlma-annotate/name") || ""; } catch (error) { byId("unkept").hidden = false; }
