// A run while it goes: words, figures, curves and the film strip, asked for every second and a half.
import { place } from "./shell.js";
import { Curves } from "./curves.js";

const EVERY_MS = 1500;

class Live {
  constructor(section) {
    this.section = section;
    this.path = section.dataset.live;
    const holder = section.querySelector("[data-curves]");
    this.points = JSON.parse(holder.dataset.points || "[]");
    this.curves = new Curves(holder);
    this.curves.draw(this.points);
    this.frames = -1;
    if (["queued", "running"].includes(section.dataset.status)) this.later();
  }

  later() {
    setTimeout(() => (document.hidden ? this.later() : this.ask()), EVERY_MS);
  }

  async ask() {
    try {
      const last = this.points.at(-1);
      const reply = await fetch(`${this.path}?after=${last ? last.step : -1}`, {
        headers: { accept: "application/json" },
      });
      if (!reply.ok) throw new Error(String(reply.status));
      this.show(await reply.json());
    } catch {
      this.section.classList.add("lost");
    }
    this.later();
  }

  show(news) {
    this.section.classList.remove("lost");
    if (news.status !== this.section.dataset.status && news.status !== "running") {
      location.reload(); // the loop has moved on: the page says how
      return;
    }
    if (news.progress) this.showProgress(news.progress);
    if (news.points.length) {
      this.points.push(...news.points);
      this.curves.draw(this.points);
    }
    if (news.film && news.num_frames !== this.frames) {
      this.frames = news.num_frames;
      const film = document.querySelector("[data-film]");
      place(film, news.film);
      document.querySelector("[data-film-section]").hidden = false;
    }
  }

  showProgress(progress) {
    const put = (name, text) => {
      const element = this.section.querySelector(`[data-${name}]`);
      if (element && element.textContent !== text) element.textContent = text;
    };
    put("doing", progress.doing);
    put("count", progress.count);
    put("left", progress.left);
    put("spent", progress.spent);
    put("rate", progress.rate);
    put("rate-unit", progress.rate_unit);
    this.section.querySelector("[data-fill]").setAttribute("width", progress.percent);
    this.section.querySelector("[role=progressbar]").setAttribute("aria-valuenow", progress.percent);
  }
}

for (const section of document.querySelectorAll("[data-live]")) new Live(section);
