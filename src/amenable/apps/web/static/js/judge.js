// The judge's room: keys, one answer a pair, sent until it is kept; drafts stay in this browser.
import { notice, place, send } from "./shell.js";

const room = document.querySelector("[data-room]");
const purpose = room.dataset.purpose;
const PENDING = `amenable-pending-${purpose}`;
const draftKey = (task) => `amenable-draft-${task}`;
const WAITS_MS = [500, 1000, 2000, 4000, 8000];

let shownAt = performance.now();
let isSending = false;

const pair = () => room.querySelector("[data-pair]");
const panel = () => room.querySelector("[data-panel]:not([hidden])");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// One answer, one id: however often it is sent, it is kept once.
async function submit(choice, more = {}) {
  const now = pair();
  if (!now || isSending) return;
  const answer = {
    submission_id: newId(),
    task_id: Number(now.dataset.task),
    fence: Number(now.dataset.fence),
    purpose,
    choice,
    seconds_spent: Math.min(86400, Math.round(performance.now() - shownAt) / 1000),
    ...more,
  };
  localStorage.setItem(PENDING, JSON.stringify(answer));
  if (await deliver(answer)) localStorage.removeItem(draftKey(answer.task_id));
}

async function deliver(answer) {
  isSending = true;
  try {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const reply = await send("/judge/submissions", answer);
        localStorage.removeItem(PENDING);
        lost(false);
        show(await reply.json(), "arriving");
        return true;
      } catch (error) {
        if (error.status === 409 || error.status === 422 || error.status === 400 || error.status === 404) {
          localStorage.removeItem(PENDING);
          lost(false);
          notice(error.message, { wrong: true });
          await refresh();
          return false;
        }
        if (error.status === 401) {
          notice("This browser is no longer let in. Open the link from the terminal; your answer waits here.", { wrong: true });
          return false;
        }
        lost(true); // no answer, or the server is in trouble: the same answer again, a little later
        await sleep(WAITS_MS[Math.min(attempt, WAITS_MS.length - 1)]);
      }
    }
  } finally {
    isSending = false;
  }
}

async function refresh() {
  const reply = await send("/judge/next", { purpose });
  show(await reply.json(), "arriving");
}

async function undo() {
  if (isSending) return;
  try {
    const reply = await send("/judge/undo", { purpose });
    show(await reply.json(), "returning");
  } catch (error) {
    notice(error.message, { wrong: true });
  }
}

function lost(is) {
  document.querySelector("[data-lost]").hidden = !is;
}

function show(news, how) {
  place(room, news.html);
  pair()?.classList.add(how);
  document.querySelector("[data-done]").textContent = news.done;
  document.querySelector("[data-of]").textContent = news.of_words;
  document.querySelector(".judge-count").hidden = !news.of_words;
  document.querySelector("[data-line]").setAttribute("width", news.percent);
  document.querySelector("[data-says]").textContent = news.says;
  document.querySelector("[data-improve]").hidden = !news.can_improve || !pair();
  shownAt = performance.now();
  scrollTo(0, 0);
}

function open(name) {
  const now = pair();
  if (!now) return;
  for (const each of now.querySelectorAll("[data-panel]")) each.hidden = each.dataset.panel !== name;
  now.classList.add("opened");
  const draft = name === "mend" && JSON.parse(localStorage.getItem(draftKey(now.dataset.task)) ?? "null");
  if (draft) take(draft.side, draft.text);
  panel()?.scrollIntoView({ block: "nearest" });
}

function close() {
  const now = pair();
  for (const each of now.querySelectorAll("[data-panel]")) each.hidden = true;
  now.classList.remove("opened");
  document.activeElement?.blur();
}

function take(side, text) {
  const now = pair();
  const source = now.querySelector(`[data-side="${side}"] [data-text]`).textContent;
  const box = now.querySelector("[data-mend-box]");
  const area = box.querySelector("textarea");
  box.hidden = false;
  area.value = text ?? source;
  area.dataset.side = side;
  now.querySelector("[data-submit-words]").textContent = "Keep the mended reply";
  now.querySelector("[data-enter]").textContent = "Ctrl Enter";
  area.focus();
}

function sendMended(form) {
  const area = form.querySelector("textarea");
  const text = area.value.trim();
  if (!area.dataset.side || !text) submit("both_bad");
  else submit("both_bad", { mended: text, mended_side: area.dataset.side });
}

room.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { choose, open: name, take: side, skip } = button.dataset;
  if (choose) submit(choose);
  else if (name) open(name);
  else if (side) take(side);
  else if (skip) submit("skip", { reason: skip });
  else if ("undo" in button.dataset) undo();
  else if ("close" in button.dataset) close();
});
room.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-panel]")) return;
  event.preventDefault();
  if (event.target.dataset.panel === "mend") sendMended(event.target);
});
room.addEventListener("input", (event) => {
  if (!event.target.matches("[data-mend-box] textarea")) return;
  const draft = { side: event.target.dataset.side, text: event.target.value };
  localStorage.setItem(draftKey(pair().dataset.task), JSON.stringify(draft));
});

const ROOM_KEYS = {
  1: () => submit("left"),
  2: () => submit("right"),
  0: () => submit("tie"),
  x: () => open("mend"),
  s: () => open("skip"),
  u: undo,
};

function panelKey(key) {
  const now = panel();
  if (key === "escape") return close;
  if (now.dataset.panel === "mend") {
    if (key === "enter") return () => sendMended(now);
    return { 1: () => take("left"), 2: () => take("right") }[key];
  }
  const reason = now.querySelectorAll("[data-skip]")[Number(key) - 1];
  return reason && (() => submit("skip", { reason: reason.dataset.skip }));
}

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const isTyping = event.target.matches("textarea, input:not([type=checkbox])");
  if (isTyping) {
    if (key === "enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      sendMended(panel());
    } else if (key === "escape") close();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (key === "enter" && event.target.matches("button, a, summary")) return; // Enter presses what has the focus
  const deed = panel() ? panelKey(key) : ROOM_KEYS[key];
  if (!deed) return;
  event.preventDefault();
  deed();
});

// An answer that never arrived, because this page or the server went away: send it first.
const pending = localStorage.getItem(PENDING);
if (pending) deliver(JSON.parse(pending));
