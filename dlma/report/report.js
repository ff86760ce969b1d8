
// ---- answers side by side; model text enters the page by textContent only, and no request leaves it
const PAGE = 10;
const data = JSON.parse(byId("answers-data").textContent);
const first = data.arms[0], last = data.arms[data.arms.length - 1];
const harmful = (row, arm) => row.a[arm] && row.a[arm].harmful === true;
const FILTERS = {
  all: () => true,
  changed: (row) => row.a[first] && row.a[last] && row.a[first].text !== row.a[last].text,
  harmful: (row) => data.arms.some((arm) => harmful(row, arm)),
  mended: (row) => harmful(row, first) && row.a[last] && !harmful(row, last),
  broken: (row) => harmful(row, last) && row.a[first] && !harmful(row, first),
  malformed: (row) => row.a[last] && row.a[last].malformed > 0,
  unfinished: (row) => row.a[last] && !row.a[last].finished,
};
let page = 0;

function matches(row) {
  const words = byId("find").value.trim().toLowerCase();
  const category = byId("category") ? byId("category").value : "";
  if (category && row.category !== category) return false;
  if (!FILTERS[byId("which").value](row)) return false;
  return !words || [row.question, ...Object.values(row.a).map((a) => a.text)].join("\n").toLowerCase().includes(words);
}

function badges(answer) {
  const found = [];
  if (answer.harmful === true) found.push(["harmful", "bad"]);
  if (answer.harmful === false) found.push(["no harm found", "good"]);
  if (answer.malformed > 0) found.push(["malformed", "bad"]);
  if (!answer.finished) found.push(["cut", ""]);
  found.push([answer.tokens + " tokens", ""]);
  return found.map(([text, kind]) => make("span", "badge " + kind, text));
}

function armCard(arm, answer) {
  const card = make("div", "arm " + (data.css[arm] || "c-other"));
  const head = make("h4", "", data.labels[arm] || arm);
  card.append(head);
  if (!answer) { card.append(make("div", "empty", "no answer")); return card; }
  head.append(...badges(answer));
  const text = make("div", "text", answer.text || "(empty)");
  if (answer.harmful !== false && !byId("reveal").checked) veil(text);
  card.append(text);
  return card;
}

function caseCard(row) {
  const card = make("article", "case");
  const head = make("div", "q");
  const question = make("div", "text", row.question);
  if (!data.judged && !byId("reveal").checked) veil(question);
  head.append(question);
  if (row.category) head.append(make("span", "badge", row.category));
  const arms = make("div", "arms");
  arms.append(...data.arms.map((arm) => armCard(arm, row.a[arm])));
  card.append(head, arms);
  return card;
}

function draw() {
  const rows = data.rows.filter(matches);
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
  byId("cases").replaceChildren(...(shown.length ? shown.map(caseCard) : [make("p", "empty", "No prompt matches.")]));
  const range = rows.length ? `${page * PAGE + 1}–${page * PAGE + shown.length} of ${rows.length}` : "0";
  document.querySelectorAll(".pager").forEach((pager) => {
    pager.querySelector(".range").textContent = `${range} prompts`;
    pager.querySelector(".prev").disabled = page === 0;
    pager.querySelector(".next").disabled = page >= pages - 1;
  });
}

if (byId("cases")) {
  const restart = () => { page = 0; draw(); };
  byId("find").addEventListener("input", restart);
  ["category", "which"].forEach((id) => byId(id) && byId(id).addEventListener("change", restart));
  byId("reveal").addEventListener("change", draw);
  document.querySelectorAll(".pager").forEach((pager) => {
    pager.querySelector(".prev").addEventListener("click", () => { page -= 1; draw(); });
    pager.querySelector(".next").addEventListener("click", () => { page += 1; draw(); });
  });
  draw();
}
