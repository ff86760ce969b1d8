"use strict";
// What all pages share: theme, tooltips, blurred text.
const byId = (id) => document.getElementById(id);

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- theme and tooltips
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
});
document.addEventListener("mousemove", (event) => {
  const tip = byId("tip");
  const text = event.target.dataset ? event.target.dataset.tip : undefined;
  tip.classList.toggle("on", Boolean(text));
  if (!text) return;
  tip.textContent = text;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
});

// ---- text that may be harmful is blurred until it is pressed
function veil(node) {
  node.classList.add("veiled");
  node.tabIndex = 0;
  node.setAttribute("role", "button");
  node.setAttribute("aria-label", "Possibly harmful text, hidden. Press to show.");
  const lift = () => {
    node.classList.remove("veiled");
    ["role", "tabindex", "aria-label"].forEach((name) => node.removeAttribute(name));
  };
  node.addEventListener("click", lift, { once: true });
  node.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); lift(); } });
}

document.querySelectorAll("[data-veil]").forEach(veil);
