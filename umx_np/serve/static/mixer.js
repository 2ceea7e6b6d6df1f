// The player as it is seen: a lane for the mixture and for each stem, and what moves them.

import {
  getJson, laneAddress, mixAddress, samples, stemFileAddress, zipAddress,
} from "./api.js";
import { announce, capitalised, clock, h, notice } from "./dom.js";
import { drawSpectrogram, drawWave } from "./draw.js";
import { Player } from "./player.js";

const STEP_SECONDS = 5;
const LEAST_LOOP_SECONDS = 0.2;
const DRAG_PIXELS = 5;
const MIXTURE = "mixture";

export const KEYS = [
  ["Space", "play or pause"],
  ["← →", `${STEP_SECONDS} seconds back or on`],
  ["Home", "to the beginning"],
  ["1 … 9", "mute or unmute a lane"],
  ["Shift 1 … 9", "solo a lane"],
  ["C", "compare: the original instead of your mix, and back"],
  ["[ ]", "begin or end a loop here"],
  ["Escape", "no loop"],
  ["?", "this help"],
];

function titleOf(lane) {
  if (lane === MIXTURE) {
    return "Original";
  }
  return lane.startsWith("no_") ? `Without ${lane.slice(3)}` : capitalised(lane);
}

export class Mixer {
  constructor(place, job, about) {
    this.place = place;
    this.job = job;
    this.sound = job.sound;
    this.seconds = this.sound.nb_timesteps / this.sound.rate;
    // The mixture is there to compare with: with its stems it would be heard twice.
    this.lanes = this.sound.lanes.map((name) => ({
      name, gain: 1, muted: name === MIXTURE, solo: false,
    }));
    this.comparing = false;
    this.player = null;
    this.frame = 0;
    this.loop = null; // or { from, to } in frames
    this.ending = new AbortController();
    this.#build(about);
    this.#listen();
    this.#drawWaves();
  }

  close() {
    this.ending.abort();
    this.player?.close();
    this.player?.context.close();
    this.place.replaceChildren();
  }

  // Made when something is to be heard: browsers want a click before that.
  #engine() {
    if (!this.player) {
      const context = new AudioContext({ sampleRate: this.sound.rate, latencyHint: "playback" });
      this.player = new Player(context, this.sound, (lane, first, count) =>
        samples(this.job, lane, first, count, this.ending.signal));
      this.player.frame = this.frame;
      this.player.loop = this.loop;
      this.player.addEventListener("change", () => this.#show());
      this.player.addEventListener("error", (event) => notice(event.detail.message));
      this.#level();
    }
    return this.player;
  }

  async toggle() {
    try {
      const player = this.#engine();
      if (player.playing) {
        player.pause();
      } else {
        await player.context.resume();
        await player.play();
      }
    } catch (error) {
      notice(`This browser cannot play it: ${error.message}`);
    }
  }

  seek(seconds) {
    this.frame = Math.min(Math.max(seconds, 0), this.seconds) * this.sound.rate;
    this.player?.seek(this.frame);
    this.#show();
  }

  position() {
    return (this.player ? this.player.position() : this.frame) / this.sound.rate;
  }

  // from, to in seconds; null is no loop.
  setLoop(from, to) {
    const ok = from !== null && to - from >= LEAST_LOOP_SECONDS;
    const frame = (seconds) =>
      Math.round(Math.min(Math.max(seconds, 0), this.seconds) * this.sound.rate);
    this.loop = ok ? { from: frame(from), to: frame(to) } : null;
    this.player?.setLoop(this.loop);
    announce(ok ? `Loop from ${clock(from)} to ${clock(to)}` : "No loop");
    this.#show();
  }

  // What a lane is heard with, by its own controls, the solos and the comparison.
  heard(lane) {
    if (this.comparing) {
      return lane.name === MIXTURE ? 1 : 0;
    }
    const solo = this.lanes.some((other) => other.solo);
    return (solo ? lane.solo : !lane.muted) ? lane.gain : 0;
  }

  #level() {
    for (const lane of this.lanes) {
      this.player?.setLevel(lane.name, this.heard(lane));
    }
  }

  change(what) {
    what();
    this.#level();
    this.#show();
  }

  #build(about) {
    const { job } = this;
    this.playButton = h("button", {
      type: "button", class: "play", onclick: () => this.toggle(),
    });
    this.time = h("output", { class: "time", "aria-label": "Position" });
    this.compare = h("button", {
      type: "button", "aria-pressed": "false",
      onclick: () => this.change(() => { this.comparing = !this.comparing; }),
    }, "Compare with original");
    this.clear = h("button", {
      type: "button", class: "plain", onclick: () => this.setLoop(null),
    }, "No loop");
    this.slider = h("input", {
      type: "range", class: "position", min: 0, max: this.seconds.toFixed(2), step: 0.1, value: 0,
      "aria-label": "Position in the song", oninput: () => this.seek(Number(this.slider.value)),
    });
    this.rows = this.lanes.map((lane, number) => this.#row(lane, number + 1));
    const { model } = job.choice;
    this.place.replaceChildren(
      h("h2", {}, job.title),
      h("p", { class: "quiet" },
        `${clock(this.seconds)} · ${this.sound.rate / 1000} kHz · ${model}`),
      h("div", { class: "transport" }, this.playButton, this.time, this.compare, this.clear),
      h("div", { class: "lanes" }, h("div", { class: "rail" }, this.slider),
        ...this.rows.map((row) => row.element)),
      this.#takeAway(about),
    );
    this.#show();
  }

  #row(lane, number) {
    const title = titleOf(lane.name);
    const button = (text, label, what) => h("button", {
      type: "button", class: "small", "aria-pressed": "false", "aria-label": `${label} ${title}`,
      title: label, onclick: () => this.change(what),
    }, text);
    const row = {
      lane,
      mute: button("M", "Mute", () => { lane.muted = !lane.muted; }),
      solo: button("S", "Solo", () => { lane.solo = !lane.solo; }),
      gain: h("input", {
        type: "range", min: 0, max: 1.5, step: 0.01, value: 1, "aria-label": `Level of ${title}`,
        oninput: () => this.change(() => { lane.gain = Number(row.gain.value); }),
      }),
      wave: h("canvas", { class: "wave", role: "img", "aria-label": `Waveform of ${title}` }),
      picture: h("canvas", {
        class: "picture", role: "img", hidden: true,
        "aria-label": `Spectrogram of ${title}, 40 Hz to 20 kHz`,
      }),
      region: h("div", { class: "region", hidden: true }),
      head: h("div", { class: "head" }),
    };
    row.spectrum = h("button", {
      type: "button", class: "small", "aria-pressed": "false",
      "aria-label": `Spectrogram of ${title}`, title: "Spectrogram",
      onclick: () => this.#spectrogram(row),
    }, "≋");
    row.element = h("section", {
      class: "lane", role: "group", "aria-label": title, "data-lane": lane.name,
    },
      h("div", { class: "controls" },
        h("h3", {}, h("span", { class: "key", "aria-hidden": "true" }, String(number)), title),
        h("div", { class: "buttons" }, row.mute, row.solo, row.spectrum,
          h("a", {
            class: "small button", href: laneAddress(this.job, lane.name), download: true,
            "aria-label": `Download ${title}`, title: "Download",
          }, "↓")),
        row.gain),
      h("div", { class: "stack" }, row.wave, row.picture, row.region, row.head));
    return row;
  }

  #takeAway(about) {
    const select = h("select", { onchange: () => this.#links() },
      ...about.formats.map((format) => h("option", { value: format }, format)));
    this.format = select;
    this.zip = h("a", { class: "button", download: true }, "All stems, as a zip");
    this.mix = h("a", { class: "button", download: true }, "This mix");
    // One file for DJ programs, which holds these stems and no others.
    const sorted = (names) => [...names].filter((name) => name !== MIXTURE).sort().join();
    const stemFile = about.stem_file.length
      && sorted(about.stem_file) === sorted(this.sound.lanes)
      ? [h("a", { class: "button", download: true, href: stemFileAddress(this.job) },
        "Stem file for DJs")]
      : [];
    return h("section", { class: "away", "aria-labelledby": "away-title" },
      h("h3", { id: "away-title" }, "Take away"),
      h("label", {}, "Format ", select), this.zip, this.mix, ...stemFile);
  }

  #links() {
    const format = this.format.value;
    this.zip.href = zipAddress(this.job, format);
    const gains = Object.fromEntries(
      this.lanes.map((lane) => [lane.name, this.heard(lane)]).filter(([, gain]) => gain > 0));
    const silent = !Object.keys(gains).length;
    this.mix.href = silent ? "#" : mixAddress(this.job, format, gains);
    this.mix.toggleAttribute("aria-disabled", silent);
    for (const row of this.rows) {
      row.element.querySelector("a").href = laneAddress(this.job, row.lane.name, format);
    }
  }

  #show() {
    const playing = this.player?.playing ?? false;
    this.playButton.textContent = playing ? "Pause" : "Play";
    this.playButton.classList.toggle("on", playing);
    this.compare.setAttribute("aria-pressed", String(this.comparing));
    this.clear.hidden = !this.loop;
    for (const row of this.rows) {
      row.mute.setAttribute("aria-pressed", String(row.lane.muted));
      row.solo.setAttribute("aria-pressed", String(row.lane.solo));
      row.gain.setAttribute("aria-valuetext", `${Math.round(100 * row.lane.gain)} percent`);
      row.element.classList.toggle("silent", !this.heard(row.lane));
    }
    const { from, to } = this.loop ?? { from: null, to: null };
    this.#mark(from === null ? null : from / this.sound.rate, to / this.sound.rate);
    this.#links();
    this.#move();
    if (playing && !this.moving) {
      this.moving = requestAnimationFrame(() => this.#follow());
    }
  }

  // Show a region from, to in seconds; null is none.
  #mark(from, to) {
    for (const { region } of this.rows) {
      region.hidden = from === null;
      region.style.left = `${(100 * from) / this.seconds}%`;
      region.style.width = `${(100 * (to - from)) / this.seconds}%`;
    }
  }

  #follow() {
    this.moving = null;
    this.#move();
    if (this.player?.playing && !this.ending.signal.aborted) {
      this.moving = requestAnimationFrame(() => this.#follow());
    }
  }

  #move() {
    const seconds = this.position();
    for (const { head } of this.rows) {
      head.style.left = `${(100 * seconds) / this.seconds}%`;
    }
    const text = `${clock(seconds)} / ${clock(this.seconds)}`;
    if (this.time.textContent !== text) {
      this.time.textContent = text;
      this.slider.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(this.seconds)}`);
    }
    this.slider.value = seconds;
  }

  async #drawWaves() {
    try {
      this.peaks ??= await getJson(`api/jobs/${this.job.id}/peaks`);
    } catch (error) {
      notice(error.message);
      return;
    }
    if (this.ending.signal.aborted) {
      return;
    }
    const { lanes, samples_a_column: size } = this.peaks;
    const all = Object.values(lanes).flatMap(({ low, high }) => [...low.map(Math.abs), ...high]);
    const greatest = all.reduce((a, b) => Math.max(a, b), 1);
    for (const row of this.rows) {
      const peaks = lanes[row.lane.name];
      drawWave(row.wave, peaks, (peaks.low.length * size) / this.sound.nb_timesteps, greatest);
    }
  }

  async #spectrogram(row) {
    const shown = row.picture.hidden;
    row.spectrum.setAttribute("aria-pressed", String(shown));
    row.picture.hidden = !shown;
    row.wave.hidden = shown;
    if (!shown || row.drawn) {
      return;
    }
    try {
      const lane = encodeURIComponent(row.lane.name);
      const address = `api/jobs/${this.job.id}/lanes/${lane}/spectrogram`;
      drawSpectrogram(row.picture, await getJson(address));
      row.drawn = true;
    } catch (error) {
      notice(error.message);
    }
  }

  #listen() {
    const { signal } = this.ending;
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    const redraw = () => this.peaks && this.#drawWaves();
    window.addEventListener("resize", redraw, { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal });
    for (const row of this.rows) {
      const stack = row.element.querySelector(".stack");
      stack.addEventListener("pointerdown", (event) => this.#drag(event), { signal });
    }
  }

  // A click goes there; dragging makes a loop.
  #drag(event) {
    if (event.button !== 0) {
      return;
    }
    const stack = event.currentTarget;
    const at = (pointer) => {
      const box = stack.getBoundingClientRect();
      return Math.min(Math.max((pointer.clientX - box.left) / box.width, 0), 1) * this.seconds;
    };
    const first = event.clientX;
    const from = at(event);
    let dragged = false;
    const move = (pointer) => {
      dragged ||= Math.abs(pointer.clientX - first) > DRAG_PIXELS;
      if (dragged) {
        this.#mark(...[from, at(pointer)].sort((a, b) => a - b));
      }
    };
    const end = (pointer) => {
      stack.removeEventListener("pointermove", move);
      if (pointer.type === "pointerup" && dragged) {
        this.setLoop(...[from, at(pointer)].sort((a, b) => a - b));
      } else if (pointer.type === "pointerup") {
        this.seek(from);
      }
      this.#show();
    };
    stack.setPointerCapture(event.pointerId);
    stack.addEventListener("pointermove", move);
    stack.addEventListener("pointerup", end, { once: true });
    stack.addEventListener("pointercancel", end, { once: true });
  }

  #key(event) {
    const { target } = event;
    // Of the keys that are ours, sliders have some of their own, other fields all.
    const slides = target.matches("input[type=range]") && /^(Arrow|Home)/.test(event.key);
    const busy = target.closest("input:not([type=range]), select, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || slides || busy) {
      return;
    }
    const digit = /^Digit([1-9])$/.exec(event.code);
    const lane = digit && this.lanes[Number(digit[1]) - 1];
    const { rate } = this.sound;
    const actions = {
      " ": () => !target.closest("button, a, summary") && (this.toggle(), true),
      ArrowLeft: () => (this.seek(this.position() - STEP_SECONDS), true),
      ArrowRight: () => (this.seek(this.position() + STEP_SECONDS), true),
      Home: () => (this.seek(0), true),
      c: () => (this.compare.click(), true),
      "[": () => (this.setLoop(this.position(), (this.loop?.to ?? Infinity) / rate), true),
      "]": () => (this.setLoop((this.loop?.from ?? 0) / rate, this.position()), true),
      Escape: () => this.loop && (this.setLoop(null), true),
    };
    let handled = false;
    if (lane) {
      this.change(() => {
        if (event.shiftKey) {
          lane.solo = !lane.solo;
        } else {
          lane.muted = !lane.muted;
        }
      });
      handled = true;
    } else {
      handled = actions[event.key]?.() ?? false;
    }
    if (handled) {
      event.preventDefault();
    }
  }
}
