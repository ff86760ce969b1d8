
// ---- parts that the server makes: it escapes every text in them, and the page's policy runs no script but this one
const SHOWN_AT_FIRST = 2;
const chosen = new Set();
const turns = {}; // by part, which answer of the server is the last that was asked for

function settings(section) {
  const found = new URLSearchParams();
  section.querySelectorAll("[name]").forEach((one) => { if (one.name !== "run") found.set(one.name, one.value); });
  return found;
}

async function fetched(address) {
  try {
    const reply = await fetch(address);
    return await reply.text();
  } catch (error) { return null; }
}

async function load(name, page) {
  const part = document.querySelector(`[data-from="${name}"]`);
  const asked = settings(part.closest("section"));
  chosen.forEach((run) => asked.append("run", run));
  if (page) asked.set("page", page);
  const turn = turns[name] = (turns[name] || 0) + 1;
  const text = await fetched(`/${name}?${asked}`);
  if (turn !== turns[name]) return;
  if (text === null) { part.replaceChildren(make("p", "note", "The server does not answer: start mode=serve again.")); return; }
  part.innerHTML = text;
  part.querySelectorAll("[name=run]").forEach((box) => { box.checked = chosen.has(box.value); });
  if (!byId("reveal").checked) part.querySelectorAll("[data-veil]").forEach(veil);
}

const loadChosen = () => ["answers", "tokens", "curves"].forEach((name) => load(name));
const partOf = (node) => node.closest("section").querySelector(".part").dataset.from;

document.querySelector("main").addEventListener("input", (event) => {
  const node = event.target;
  if (node.name === "run") {
    if (node.checked) chosen.add(node.value); else chosen.delete(node.value);
    loadChosen();
  } else if (node.id === "reveal") loadChosen();
  else if (node.name) load(partOf(node));
});
document.querySelector("main").addEventListener("click", (event) => {
  const button = event.target.closest("[data-page]");
  if (button) load(partOf(button), button.dataset.page);
});

load("runs").then(() => {
  [...document.querySelectorAll("[name=run]")].slice(0, SHOWN_AT_FIRST).forEach((box) => { box.checked = true; chosen.add(box.value); });
  loadChosen();
});
