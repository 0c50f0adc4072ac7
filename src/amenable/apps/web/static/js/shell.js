// What every page has: the switch between light and dark, notices, tooltips, answers of the server.
const root = document.documentElement;

function isDark() {
  const chosen = root.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

document.getElementById("theme-switch")?.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  document.dispatchEvent(new CustomEvent("theme"));
});

export function notice(text, { wrong = false } = {}) {
  const line = document.createElement("p");
  line.className = wrong ? "notice wrong" : "notice";
  line.textContent = text;
  document.getElementById("notices")?.append(line);
  setTimeout(() => line.remove(), wrong ? 9000 : 4000);
}

// Every error of the server has one shape: {"error": "one sentence"}.
export async function send(path, body, options = {}) {
  const reply = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify(body),
    ...options,
  });
  if (!reply.ok) throw Object.assign(new Error(await errorOf(reply)), { status: reply.status });
  return reply;
}

export async function errorOf(reply) {
  try {
    return (await reply.json()).error ?? `The page answered ${reply.status}.`;
  } catch {
    return `The page answered ${reply.status}.`;
  }
}

// The one place where HTML of our own server enters a page; it was made by templates that escape.
export function place(element, html) {
  element.innerHTML = html;
  window.htmx?.process(element);
}

document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  let text = `The page answered ${xhr.status}.`;
  try {
    text = JSON.parse(xhr.responseText).error;
  } catch {
    // the answer was no JSON: the status says enough
  }
  notice(text, { wrong: true });
});
document.addEventListener("htmx:sendError", () =>
  notice("Amenable does not answer. Is it still running in the terminal?", { wrong: true }),
);

// A button that copies the text of what it names.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = before), 1400);
});

// Replies as text or formatted: one switch, both sides.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-raw-switch]")) {
    document.body.classList.toggle("show-raw", event.target.checked);
  }
});
