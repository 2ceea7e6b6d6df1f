// The page: songs that are added, how far each is, and the one that is listened to.

import * as api from "./api.js";
import { announce, capitalised, clock, duration, h, megabytes, notice } from "./dom.js";
import { KEYS, Mixer } from "./mixer.js";

const SPEAK_MS = 8000;
const place = (id) => document.getElementById(id);

export const state = { jobs: [], uploads: new Map(), about: null, models: [], mixer: null };
let wanted = location.hash.slice(1); // the song that is to be opened when it is done
let playWhenOpen = false;
let lastSpoken = 0;
const nothing = document.querySelector("#player .empty"); // what is there while no song is open

// ---- what is chosen

function chosenModel() {
  const { value } = document.querySelector("input[name=model]:checked");
  return state.models.find((model) => model.name === value);
}

function choice() {
  const chosen = { model: chosenModel().name };
  const kind = document.querySelector("input[name=stems]:checked").value;
  if (kind.startsWith("two:")) {
    chosen.two_stems = kind.slice(4);
  } else if (kind === "some") {
    const targets = [...document.querySelectorAll("input[name=target]:checked")];
    chosen.targets = targets.map((box) => box.value).join(",");
  }
  chosen.niter = place("niter").value;
  chosen.precision = place("precision").value;
  return chosen;
}

function showChoice() {
  const { model, two_stems: two, targets } = choice();
  const stems = two ? `${two} and the rest` : targets?.replaceAll(",", ", ") ?? "all stems";
  place("options-short").textContent = `${model}, ${stems}`;
}

function showModels() {
  const sources = [...new Set(state.models.map((model) => model.sdr_source).filter(Boolean))];
  place("models").append(...state.models.map((model) => {
    const stem = Object.keys(model.sdr)[0];
    const sdr = stem
      ? `SDR of ${stem} ${model.sdr[stem].toFixed(2)} dB (${sources.indexOf(model.sdr_source) + 1})`
      : "no figures of SDR";
    const size = `${megabytes(model.bytes)}${model.here ? "" : ", is downloaded first"}`;
    const licence = model.license ?? "see its page for the licence";
    return h("label", { class: "model" },
      h("input", {
        type: "radio", name: "model", value: model.name, checked: model.default,
        onchange: () => { showStems(); showChoice(); },
      }),
      h("span", {}, h("strong", {}, model.name), ` ${model.advice}`,
        h("span", { class: "quiet" }, `${sdr} · ${size} · ${licence}`)));
  }), h("details", { class: "sources" }, h("summary", {}, "Whose figures these are"),
    h("ol", {}, ...sources.map((source) => h("li", {}, source)))));
}

function showStems() {
  const { targets } = chosenModel();
  const radio = (value, text, checked) => h("label", {},
    h("input", { type: "radio", name: "stems", value, checked, onchange: showChoice }), ` ${text}`);
  const boxes = targets.map((target) => h("label", {},
    h("input", {
      type: "checkbox", name: "target", value: target, checked: true,
      onchange: () => { document.querySelector("input[value=some]").checked = true; showChoice(); },
    }), ` ${target}`));
  place("stems").replaceChildren(h("legend", {}, "Stems"),
    radio("all", "all", true), radio(`two:${targets[0]}`, `${targets[0]} and the rest`, false),
    radio("some", "only these:", false), h("span", { class: "boxes" }, ...boxes));
}

// ---- songs

function sendFiles(files) {
  for (const file of files) {
    if (file.size > state.about.max_upload) {
      const most = megabytes(state.about.max_upload);
      notice(`${file.name} has ${megabytes(file.size)}; the server takes up to ${most}.`);
      continue;
    }
    send(file);
  }
}

async function send(file) {
  notice("");
  const entry = { name: file.name, progress: 0 };
  const key = Symbol(file.name);
  const { done, cancel } = api.upload(file, choice(), (progress) => {
    entry.progress = progress;
    showSongs();
  });
  entry.cancel = cancel;
  state.uploads.set(key, entry);
  showSongs();
  try {
    const job = await done;
    if (job) {
      wanted = job.id;
    }
  } catch (error) {
    notice(`${file.name}: ${error.message}`);
  } finally {
    state.uploads.delete(key);
    showSongs();
  }
}

async function tryExample() {
  notice("");
  playWhenOpen = true;
  try {
    wanted = (await api.example(choice())).id;
    consider();
  } catch (error) {
    notice(error.message);
  }
}

async function removeSong(job) {
  const done = job.state === "done";
  if (done && !confirm(`Remove ${job.title} and its stems?`)) {
    return;
  }
  try {
    await api.remove(job.id);
    announce(`${job.title}: ${done ? "removed" : "cancelled"}`);
  } catch (error) {
    if (error.status !== 404) {
      notice(error.message);
    }
  }
}

function words(job) {
  if (job.state === "queued") {
    return job.position === 1 ? "next" : `waiting, number ${job.position}`;
  }
  if (job.state === "running") {
    const left = job.seconds_left;
    return left == null ? `${job.step} …` : `about ${duration(left)} left`;
  }
  if (job.state === "failed") {
    return job.error.message;
  }
  const { nb_timesteps: length, rate } = job.sound;
  return `${clock(length / rate)} · ${job.choice.model} · ${megabytes(job.nb_bytes)}`;
}

// What is in the list by key. An element stays as long as it means the same, so that a click or
// the focus is not lost when numbers change.
const shown = new Map();

function item(key, signature, make, text, progress) {
  if (shown.get(key)?.signature !== signature) {
    shown.set(key, { signature, element: make() });
  }
  const { element } = shown.get(key);
  element.querySelector("p").textContent = text;
  for (const progressBar of element.querySelectorAll("progress")) {
    progressBar.value = progress;
  }
  return element;
}

const removeButton = (text, name, onclick) => h("button", {
  type: "button", class: "plain", "aria-label": `${text} ${name}`, onclick,
}, text);

const bar = (label) => h("progress", { max: 1, "aria-label": label });

function songElement(job, current) {
  const title = job.state === "done"
    ? h("button", {
      type: "button", class: "open", "aria-current": current ? "true" : null,
      onclick: () => open(job),
    }, job.title)
    : h("span", { class: "title" }, job.title);
  const text = { done: "Remove", failed: "Dismiss" }[job.state] ?? "Cancel";
  return h("li", { class: `song ${job.state}`, "data-id": job.id, "data-state": job.state },
    h("div", { class: "line" }, title, removeButton(text, job.title, () => removeSong(job))),
    h("p", { class: job.state === "failed" ? "failure" : "quiet" }),
    job.state === "running" ? bar(`Progress of ${job.title}`) : null);
}

const uploadElement = (entry) => h("li", { class: "song upload" },
  h("div", { class: "line" }, h("span", { class: "title" }, entry.name),
    removeButton("Cancel", entry.name, entry.cancel)),
  h("p", { class: "quiet" }),
  bar(`Upload of ${entry.name}`));

function showSongs() {
  const elements = [...state.uploads].map(([key, entry]) =>
    item(key, "upload", () => uploadElement(entry), "on its way", entry.progress));
  for (const job of state.jobs) {
    const current = state.mixer?.job.id === job.id;
    const make = () => songElement(job, current);
    elements.push(item(job.id, `${job.state} ${current}`, make, words(job), job.progress));
  }
  const list = place("songs");
  const there = list.children;
  if (elements.length !== there.length || elements.some((element, i) => element !== there[i])) {
    const focused = document.activeElement?.closest("#songs li")?.dataset.id;
    list.replaceChildren(...elements);
    if (focused && !list.contains(document.activeElement)) {
      list.querySelector(`li[data-id="${focused}"] button`)?.focus();
    }
  }
  for (const key of shown.keys()) {
    if (!state.uploads.has(key) && !state.jobs.some((job) => job.id === key)) {
      shown.delete(key);
    }
  }
  place("no-songs").hidden = elements.length > 0;
}

function open(job) {
  if (state.mixer?.job.id === job.id) {
    return;
  }
  state.mixer?.close();
  notice("");
  state.mixer = new Mixer(place("player"), job, state.about);
  wanted = "";
  history.replaceState(null, "", `#${job.id}`);
  document.title = `${job.title} · umx_np`;
  showSongs();
  place("player").scrollIntoView({ block: "nearest" }); // on a phone it is below
}

function close() {
  state.mixer.close();
  state.mixer = null;
  history.replaceState(null, "", location.pathname);
  document.title = "umx_np";
  place("player").replaceChildren(nothing);
}

// Open the song that is waited for when it is done.
function consider() {
  const job = state.jobs.find((candidate) => candidate.id === wanted);
  if (job?.state === "done") {
    open(job);
    announce(`${job.title} is separated`);
    if (playWhenOpen) {
      playWhenOpen = false;
      state.mixer.toggle();
    }
  }
}

function speak() {
  const running = state.jobs.find((job) => job.state === "running");
  if (running?.seconds_left != null && Date.now() - lastSpoken > SPEAK_MS) {
    lastSpoken = Date.now();
    announce(`${running.title}: ${Math.round(100 * running.progress)} percent, ${words(running)}`);
  }
}

function take(jobs) {
  for (const job of jobs) {
    const before = state.jobs.find((other) => other.id === job.id);
    if (before && before.state !== job.state && job.state === "failed") {
      announce(`${job.title} failed: ${job.error.message}`);
    }
  }
  state.jobs = jobs;
  if (state.mixer && !jobs.some((job) => job.id === state.mixer.job.id)) {
    close();
  }
  showSongs();
  consider();
  speak();
}

let events = null;

// A browser has few connections to a server; a page that nobody sees needs none.
function followWhileSeen() {
  events?.close();
  events = document.hidden ? null : follow();
}

function follow() {
  const source = new EventSource("api/events");
  source.onmessage = (event) => {
    notice(place("notice").dataset.away ? "" : place("notice").textContent);
    delete place("notice").dataset.away;
    take(JSON.parse(event.data).jobs);
  };
  source.onerror = () => {
    place("notice").dataset.away = "yes";
    notice(source.readyState === EventSource.CLOSED
      ? "The server was started again. Open the address that it printed."
      : "The server is away. Trying again …");
  };
  return source;
}

function listen() {
  const drop = place("drop");
  const file = place("file");
  file.addEventListener("change", () => {
    sendFiles(file.files);
    file.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) { // it left the window
      drop.classList.remove("over");
    }
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    sendFiles(event.dataTransfer.files);
  });
  place("example").addEventListener("click", tryExample);
  place("niter").addEventListener("change", showChoice);
  place("precision").addEventListener("change", showChoice);
  place("help-open").addEventListener("click", () => place("help").showModal());
  place("help-keys").append(...KEYS.map(([key, what]) =>
    h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, capitalised(what)))));
  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && !event.target.closest("input, select, dialog")) {
      place("help").showModal();
    }
  });
}

async function start() {
  if (location.search) {
    // The token has become a cookie; it need not stay in the history.
    history.replaceState(null, "", location.pathname + location.hash);
  }
  try {
    const asked = ["api/about", "api/models"].map(api.getJson);
    const [about, { models }] = await Promise.all(asked);
    Object.assign(state, { about, models });
  } catch (error) {
    notice(error.message);
    return;
  }
  showModels();
  showStems();
  showChoice();
  listen();
  followWhileSeen();
  document.addEventListener("visibilitychange", followWhileSeen);
}

start();
