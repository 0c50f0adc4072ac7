// The judge's room: keys, one answer a pair, sent until it is kept; drafts stay in this browser.
import { notice, place, send } from "./shell.js";

const room = document.querySelector("[data-room]");
const { purpose, workspace } = room.dataset;
// What is stored belongs to an address, and many workspaces are opened at one: each has its own
// names. One entry an answer, so that two tabs cannot overwrite what the other still has to send.
const PENDING = `amenable-pending-${workspace}-`;
const draftKey = (task) => `amenable-draft-${workspace}-${task}`;
const WAITS_MS = [500, 1000, 2000, 4000, 8000];
const MOST_FAILURES = 5; // answers "something is wrong here" before it is left to a person
const LONGEST_WAIT_MS = 60000; // longer than the server itself waits for its disk
const REST_MS = 400; // a second U within this time is the same wish

let shownAt = performance.now();
let restsUntil = 0;
let isBusy = false; // one thing at a time: an answer on its way, an undo, a pair being fetched
const stuck = new Map(); // answers that wait for a person's word, by their id

const pair = () => room.querySelector("[data-pair]");
const panel = () => room.querySelector("[data-panel]:not([hidden])");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A browser may refuse to store, or hold what is broken: judging goes on without it.
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

function allPending() {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PENDING));
  const found = keys.map(kept).filter((each) => each?.answer?.submission_id);
  return found.sort((one, other) => one.since - other.since);
}

// The server refuses what a page of another workspace sends: the same address may have changed hands.
async function post(path, body) {
  const reply = await send(path, body, {
    headers: {
      "content-type": "application/json",
      accept: "application/json",
      "x-amenable-workspace": workspace,
    },
    signal: AbortSignal.timeout(LONGEST_WAIT_MS),
  });
  return reply.json();
}

// One answer, one id: however often it is sent, it is kept once.
async function submit(choice, more = {}) {
  const now = pair();
  if (!now || isBusy || mustFirstSettle(now.dataset.task)) return;
  const answer = {
    submission_id: newId(),
    task_id: Number(now.dataset.task),
    fence: Number(now.dataset.fence),
    purpose,
    choice,
    seconds_spent: Math.min(86400, Math.round(performance.now() - shownAt) / 1000),
    ...more,
  };
  const entry = { answer, since: Date.now(), failures: 0 };
  entry.isStored = keep(PENDING + answer.submission_id, entry);
  await alone(() => deliver(entry));
}

async function alone(deed) {
  if (isBusy) return;
  isBusy = true;
  try {
    await deed();
  } catch (error) {
    notice(error.message, { wrong: true });
  } finally {
    isBusy = false;
  }
}

// Sends an answer until it is kept, or until a person has to say what becomes of it.
async function deliver(entry) {
  const key = PENDING + entry.answer.submission_id;
  stuck.delete(entry.answer.submission_id);
  for (let attempt = 0; ; attempt += 1) {
    if (entry.isStored && !kept(key)) {
      settled(entry); // another tab has sent or discarded it
      return refresh();
    }
    let news;
    try {
      news = await post("/judge/submissions", entry.answer);
    } catch (error) {
      if (error.status === 404 || error.status === 409) {
        settled(entry); // the pair is judged or gone: sending it again cannot change that
        notice(error.message, { wrong: true });
        return refresh();
      }
      if (error.status) entry.failures += 1;
      if (kept(key)) keep(key, entry); // unless another tab has sent or discarded it meanwhile
      if (error.status < 500 || entry.failures >= MOST_FAILURES) return hold(entry, error);
      say(error.status ? error.message : "Amenable does not answer.", "Trying again; you lose nothing.");
      await sleep(WAITS_MS[Math.min(attempt, WAITS_MS.length - 1)]);
      continue;
    }
    settled(entry);
    localStorage.removeItem(draftKey(entry.answer.task_id));
    if (entry.answer.purpose === purpose) show(news, "arriving");
    return;
  }
}

function settled(entry) {
  localStorage.removeItem(PENDING + entry.answer.submission_id);
  stuck.delete(entry.answer.submission_id);
  tell();
}

function hold(entry, error) {
  entry.message =
    { 401: "This browser is no longer let in. Open the link from the terminal.",
      412: "Another workspace is open at this address now." }[error.status] ?? error.message;
  stuck.set(entry.answer.submission_id, entry);
  tell();
}

// The newest answer that waits for a person's word, or nothing.
function tell() {
  const entry = [...stuck.values()].at(-1);
  const wait = stuck.size > 1 ? `${stuck.size} answers wait in this browser.` : "Your answer waits in this browser.";
  if (entry) say(entry.message, wait, { isHeld: true });
  else document.querySelector("[data-lost]").hidden = true;
}

function say(what, then, { isHeld = false } = {}) {
  document.querySelector("[data-lost-says]").textContent = `Not kept yet: ${what} ${then}`;
  document.querySelector("[data-again]").hidden = !isHeld;
  document.querySelector("[data-discard]").hidden = !isHeld;
  document.querySelector("[data-lost]").hidden = false;
}

function mustFirstSettle(task) {
  const waits = [...stuck.values()].some((entry) => String(entry.answer.task_id) === task);
  if (waits) notice("Your answer to this pair is not kept yet: try again, or discard it.", { wrong: true });
  return waits;
}

async function sendAgain() {
  for (const entry of [...stuck.values()]) await deliver(entry);
}

async function discard() {
  for (const entry of [...stuck.values()]) settled(entry);
  await refresh();
}

async function refresh() {
  show(await post("/judge/next", { purpose }), "arriving");
}

async function undo() {
  if (performance.now() < restsUntil || mustFirstSettle(pair()?.dataset.task)) return;
  await alone(async () => {
    show(await post("/judge/undo", { purpose }), "returning");
    restsUntil = performance.now() + REST_MS;
  });
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
  const draft = name === "mend" && kept(draftKey(now.dataset.task));
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
  keep(draftKey(pair().dataset.task), draft);
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

document.querySelector("[data-again]").addEventListener("click", () => alone(sendAgain));
document.querySelector("[data-discard]").addEventListener("click", () => alone(discard));

// Answers that never arrived, because a page or the server went away: send them first.
alone(async () => {
  for (const entry of allPending()) await deliver({ ...entry, isStored: true });
});
