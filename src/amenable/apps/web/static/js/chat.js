// Chat: one prompt to both, each reply in its own colour as it is spoken.
import { errorOf, notice, place, send } from "./shell.js";

const exchanges = document.querySelector("[data-exchanges]");
const composer = document.querySelector("[data-composer]");

class Voice {
  constructor(select) {
    this.select = select;
    this.messages = [];
  }

  get model() {
    return this.select.value;
  }

  get kind() {
    return this.select.selectedOptions[0].dataset.kind;
  }
}

const voices = [...document.querySelectorAll("[data-model]")].map((select) => new Voice(select));
let speaking = null;

function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

async function ask(text) {
  document.querySelector("[data-empty]")?.remove();
  const exchange = clone("exchange");
  exchange.querySelector(".asked").textContent = text;
  exchanges.append(exchange);
  const replies = exchange.querySelector(".replies");
  if (voices.length === 1) replies.classList.add("alone");
  const places = voices.map((voice) => opened(voice, replies));
  exchange.scrollIntoView({ block: "nearest" });
  speaking = new AbortController();
  busy(true);
  await Promise.all(voices.map((voice, position) => speak(voice, text, places[position])));
  speaking = null;
  busy(false);
  if (!sees.hidden) show();
}

function opened(voice, replies) {
  const said = clone("said");
  said.classList.add(voice.kind, "speaking");
  const name = said.querySelector(".said-voice");
  name.classList.add(voice.kind);
  name.textContent = voice.model;
  said.setAttribute("aria-label", `Reply of ${voice.model}`);
  replies.append(said);
  return said;
}

async function speak(voice, text, said) {
  const messages = [...voice.messages, { role: "user", content: text }];
  const reply = said.querySelector(".reply");
  const raw = said.querySelector(".reply-raw");
  const knobs = new FormData(composer);
  let heard = "";
  // A reply's first words take a moment; a model that has to be loaded first takes some.
  const patience = setTimeout(() => {
    said.classList.add("loading");
    reply.textContent = "The model is being loaded.";
  }, 1500);
  const begun = () => {
    clearTimeout(patience);
    if (said.classList.contains("loading")) reply.textContent = "";
    said.classList.remove("loading");
  };
  try {
    const answer = await fetch("/chat/replies", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify({
        model: voice.model,
        messages,
        max_new_tokens: Number(knobs.get("max_new_tokens")) || 160,
        temperature: Number(knobs.get("temperature")) || 0,
        seed: Number(knobs.get("seed")) || 0,
      }),
      signal: speaking.signal,
    });
    if (!answer.ok) throw new Error(await errorOf(answer));
    for await (const event of events(answer.body)) {
      begun();
      if (event.error) throw new Error(event.error);
      if (event.piece) {
        heard += event.piece;
        reply.textContent = raw.textContent = heard;
      }
      if (event.sample_id) {
        heard = event.text;
        raw.textContent = event.text;
        place(reply, event.html);
        finish(said, event);
      }
    }
    if (!heard) reply.textContent = "It ended at once, without a word.";
  } catch (error) {
    begun();
    if (error.name === "AbortError") stopped(said);
    else if (heard) notice(error.message, { wrong: true });
    else {
      said.classList.add("wrong");
      reply.textContent = error.message;
    }
  } finally {
    said.classList.remove("speaking");
    voice.messages = heard ? [...messages, { role: "assistant", content: heard }] : voice.messages;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}

function stopped(said) {
  const foot = said.querySelector(".said-foot");
  foot.querySelector(".said-facts").textContent = "stopped by you";
  foot.querySelector(".thumbs").remove(); // they need the kept sample's id, which comes at its end
  foot.hidden = false;
}

function finish(said, event) {
  const foot = said.querySelector(".said-foot");
  foot.hidden = false;
  foot.querySelector(".said-facts").textContent = event.facts;
  const why = foot.querySelector(".why");
  const keep = async (isGood) => {
    try {
      const reason = why.querySelector("input").value;
      await send("/chat/verdicts", { sample_id: event.sample_id, is_good: isGood, reason });
      return true;
    } catch (error) {
      notice(error.message, { wrong: true });
      return false;
    }
  };
  const thumbs = [...foot.querySelectorAll("[data-thumb]")];
  for (const thumb of thumbs)
    thumb.addEventListener("click", async () => {
      if (!(await keep(thumb.dataset.thumb === "up"))) return;
      for (const each of thumbs) each.setAttribute("aria-pressed", String(each === thumb));
      why.hidden = false;
      why.querySelector("input").focus();
    });
  why.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const chosen = thumbs.find((each) => each.getAttribute("aria-pressed") === "true");
    if (await keep(chosen.dataset.thumb === "up")) {
      why.hidden = true;
      notice("Kept, with your reason.");
    }
  });
}

const CALLED = { base: "base", instruct: "instruct", hybrid: "hybrid", other: "another" };

// Another model is another conversation, and wears its own colour.
function changed(voice) {
  voice.messages = [];
  const head = voice.select.closest(".voice-head");
  head.className = `voice-head ${voice.kind}`;
  head.querySelector("[data-voice-name]").textContent = CALLED[voice.kind];
}

function busy(is) {
  composer.querySelector("[data-send]").hidden = is;
  composer.querySelector("[data-stop]").hidden = !is;
}

const prompt = document.getElementById("prompt");
const sees = document.querySelector("[data-sees]");

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

async function show() {
  const draft = prompt.value.trim();
  const next = draft ? [{ role: "user", content: draft }] : [];
  const seen = voices
    .map(({ model, messages }) => ({ model, messages: [...messages, ...next] }))
    .filter(({ messages }) => messages.length);
  if (!seen.length) {
    notice("Type or ask something first: then you see its tokens.");
    return;
  }
  try {
    const reply = await send("/chat/tokens", { voices: seen });
    place(sees, await reply.text());
    sees.hidden = false;
  } catch (error) {
    notice(error.message, { wrong: true });
  }
}

if (composer) {
  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = prompt.value.trim();
    if (!text || speaking) return;
    prompt.value = "";
    grow();
    ask(text);
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      composer.requestSubmit();
    }
  });
  prompt.addEventListener("input", grow);
  composer.querySelector("[data-stop]").addEventListener("click", () => speaking?.abort());
  document.addEventListener("click", (event) => {
    const suggestion = event.target.closest("[data-suggest]");
    if (suggestion && !speaking) ask(suggestion.dataset.suggest);
  });
  document.querySelector("[data-see]").addEventListener("click", () => {
    if (sees.hidden) show();
    else sees.hidden = true;
  });
  document.querySelector("[data-fresh]").addEventListener("click", () => location.reload());
  for (const voice of voices) voice.select.addEventListener("change", () => changed(voice));
}
