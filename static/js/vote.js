/**
 * The voting page: shows a battle, takes the answer by button or key, reveals the names in place
 * and goes on to the next battle, which was loaded meanwhile.
 */

import {
  castVote, fetchNext, isGone, keepBattles, markDefect, Refused, release, skipBattle, takeBackDefect,
} from "./battle.js";
import { Players } from "./players.js";

/** @typedef {import("./battle.js").Battle} Battle */
/** @typedef {import("./battle.js").Choice} Choice */
/** @typedef {import("./battle.js").Empty} Empty */
/** @typedef {import("./battle.js").Entrant} Entrant */
/** @typedef {import("./battle.js").Next} Next */
/** @typedef {import("./battle.js").Reveal} Reveal */
/** @typedef {import("./players.js").Hearing} Hearing */
/** @typedef {import("./players.js").Side} Side */
/** @typedef {"watching" | "sending" | "revealed" | "troubled" | "waiting" | "empty"} State */

/** Long enough to read two names, short enough not to wait for it. */
const REVEAL_MS = 2500;

/** When an empty page asks for a pair: soon at first, then ever later up to the longest pause. */
const LOOK_AGAIN_MS = 5000;
const LATER = 1.5;
const LOOK_AGAIN_MS_AT_MOST = 60_000;

/** How often a page that plays says so. The site gives a pair away of which it heard nothing for two minutes. */
const KEEP_MS = 30_000;
/** After so long without a word the pair that was loaded ahead may be another voter's by now. */
const MAY_BE_GONE_MS = 100_000;
const GIVEN_AWAY =
  "This pair is no longer yours, because this page was idle for too long. Please go on with the next pair.";

/** @type {Side[]} */
const SIDES = ["a", "b"];

/** @type {Record<Choice, string>} */
const VERDICT = {
  a: "A is better",
  b: "B is better",
  tie: "Tie",
  both_bad: "Both are bad",
};

/** @type {Record<string, Choice>} */
const CHOICE_OF_KEY = {
  ArrowLeft: "a", 1: "a",
  ArrowRight: "b", 2: "b",
  ArrowDown: "tie", t: "tie", 3: "tie",
  ArrowUp: "both_bad", 4: "both_bad",
};

/** @type {Record<string, Hearing>} */
const HEARING_OF_KEY = { a: "a", b: "b", m: "mute" };

/**
 * @template {Element} T
 * @param {string} selector
 * @returns {T}
 */
function find(selector) {
  const element = document.querySelector(selector);
  if (!element) throw new Error(`The voting page has no ${selector}.`);
  return /** @type {T} */ (element);
}

/** A switch that remembers itself; without storage it lasts for the page. */
class Remembered {
  /** @param {string} name @param {boolean} initial */
  constructor(name, initial) {
    this.name = `vote.${name}`;
    this.value = initial;
    try {
      const kept = localStorage.getItem(this.name);
      if (kept !== null) this.value = kept === "on";
    } catch {
      // storage is blocked: start from the initial value
    }
  }

  /** @param {boolean} value */
  set(value) {
    this.value = value;
    try {
      localStorage.setItem(this.name, value ? "on" : "off");
    } catch {
      // storage is blocked: the value lasts for this page
    }
  }
}

const arena = /** @type {HTMLElement} */ (find("[data-arena]"));
const voteForm = /** @type {HTMLFormElement} */ (find("[data-vote-form]"));
const skipForm = /** @type {HTMLFormElement} */ (find("[data-skip-form]"));
const choiceButtons = /** @type {HTMLButtonElement[]} */ ([...voteForm.querySelectorAll("button")]);
const stage = /** @type {HTMLElement} */ (find("[data-stage]"));
const after = /** @type {HTMLElement} */ (find("[data-after]"));
const trouble = /** @type {HTMLElement} */ (find("[data-trouble]"));
const troubleAction = /** @type {HTMLButtonElement} */ (find("[data-trouble-action]"));
const nextButton = /** @type {HTMLButtonElement} */ (find("[data-next]"));
const startButton = /** @type {HTMLButtonElement} */ (find("[data-start]"));
const toggleButton = /** @type {HTMLButtonElement} */ (find("[data-toggle]"));
const timing = /** @type {HTMLInputElement} */ (find("[data-timing]"));
const clock = /** @type {HTMLOutputElement} */ (find("[data-clock]"));
const soundBox = /** @type {HTMLElement} */ (find("[data-sound]"));
const soundOn = /** @type {HTMLButtonElement} */ (find("[data-sound-on]"));
const hearGroup = /** @type {HTMLElement} */ (find("[data-hear-group]"));
const promptImage = /** @type {HTMLAnchorElement} */ (find("[data-prompt-image]"));
const lightbox = /** @type {HTMLDialogElement} */ (find("[data-lightbox]"));
const csrfToken = /** @type {HTMLInputElement} */ (find("[name=csrfmiddlewaretoken]")).value;
const nextUrl = /** @type {string} */ (arena.dataset.nextUrl);
const keepUrl = /** @type {string} */ (arena.dataset.keepUrl);

const figureOf = {
  a: /** @type {HTMLElement} */ (find("figure[data-side=a]")),
  b: /** @type {HTMLElement} */ (find("figure[data-side=b]")),
};
const nameplate = {
  a: /** @type {HTMLElement} */ (find("[data-nameplate=a]")),
  b: /** @type {HTMLElement} */ (find("[data-nameplate=b]")),
};

/** Only where a panel votes. */
const defects = /** @type {HTMLElement | null} */ (document.querySelector("[data-defects]"));
const defectButtons = [...(defects?.querySelectorAll("button") ?? [])];

const players = new Players(find("[data-video=a]"), find("[data-video=b]"));
const autoAdvance = new Remembered("auto-advance", true);
const shortcuts = new Remembered("shortcuts", true);
const sound = new Remembered("sound", false);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** @type {Battle | null} */
let battle = JSON.parse(find("#battle-data").textContent ?? "null");
/** @type {Promise<Next> | null} */
let upcoming = null;
/** The battle of `upcoming`, once it is loaded. @type {Battle | null} */
let ahead = null;
/** When the site last heard of the battles that this page holds. */
let keptAt = Date.now();
/** @type {State} */
let state = "empty";
/** @type {Animation | null} */
let countdown = null;

/** @param {State} next */
function enter(next) {
  state = next;
  arena.dataset.state = next;
  voteForm.hidden = next === "revealed" || next === "troubled";
  after.hidden = next !== "revealed";
  trouble.hidden = next !== "troubled";
  skipForm.hidden = next === "revealed";
  if (defects && next !== "revealed") defects.hidden = true;
}

/** @param {string} sentence */
function announce(sentence) {
  find("[data-announce]").textContent = sentence;
}

/** @param {boolean} open */
function openVoting(open) {
  for (const button of choiceButtons) button.setAttribute("aria-disabled", String(!open));
}

// ---- showing a battle ----

/** @param {Battle} shown */
function show(shown) {
  if (battle && battle !== shown) release(battle);
  battle = shown;
  find("[data-battle]").toggleAttribute("hidden", false);
  find("[data-empty]").toggleAttribute("hidden", true);
  find("[data-category]").textContent = shown.category_label;
  const prompt = /** @type {HTMLElement} */ (find("[data-prompt]"));
  prompt.textContent = shown.prompt;
  prompt.lang = shown.language;
  keptAt = Date.now();
  voteForm.action = shown.vote_url;
  skipForm.action = shown.skip_url;
  showImage(shown.image);
  clearReveal();
  stage.dataset.shape = shape(shown);
  players.load(shown);
  begin();
}

/** @param {{ width: number, height: number }} size */
function shape({ width, height }) {
  if (width === height) return "square";
  return width > height ? "wide" : "tall";
}

/** @param {string | null} url */
function showImage(url) {
  promptImage.hidden = !url;
  if (!url) return;
  promptImage.href = url;
  /** @type {HTMLImageElement} */ (promptImage.querySelector("img")).src = url;
}

/** Start the battle that is on the page. */
function begin() {
  if (!battle) return;
  enter("watching");
  openVoting(false);
  soundBox.hidden = !battle.audio;
  find("[data-sound-hint]").toggleAttribute("hidden", !battle.audio);
  find("[data-muted-hint]").toggleAttribute("hidden", !battle.muted);
  hear(battle.audio && sound.value ? "a" : "mute");
  startButton.hidden = !calm.matches;
  if (!calm.matches) void players.play();
}

/** @param {Empty} empty */
function showEmpty(empty) {
  enter("empty");
  players.pause();
  find("[data-battle]").toggleAttribute("hidden", true);
  find("[data-empty]").toggleAttribute("hidden", false);
  sayEmpty(empty);
  announce(empty.reason);
  if (empty.again) lookAgain(LOOK_AGAIN_MS);
}

/** @param {Empty} empty */
function sayEmpty({ title, reason, again }) {
  find("[data-empty-title]").textContent = title;
  find("[data-empty-reason]").textContent = reason;
  find("[data-empty-again]").toggleAttribute("hidden", !again || !reason);
  find("[data-empty-form]").toggleAttribute("hidden", !again);
  find("[data-empty-form] button").textContent = reason ? "Check for new pairs" : "Next pair";
}

/**
 * While the page is empty and in view, ask now and then: clips may be in the making, or others may
 * hold the last pairs.
 *
 * @param {number} pause in milliseconds
 */
function lookAgain(pause) {
  setTimeout(async () => {
    await inView();
    const answer = await fetchNext(nextUrl, csrfToken, []).catch(() => null);
    if (state !== "empty") return;
    if (answer?.battle) {
      show(answer.battle);
      return;
    }
    if (answer) sayEmpty(answer);
    if (!answer || answer.again) {
      lookAgain(Math.min(Math.max(pause, LOOK_AGAIN_MS) * LATER, LOOK_AGAIN_MS_AT_MOST));
    }
  }, pause);
}

/** @returns {Promise<void>} */
function inView() {
  if (document.visibilityState === "visible") return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(), { once: true });
  });
}

// ---- voting ----

/** @param {Choice} choice */
async function vote(choice) {
  if (!battle || state !== "watching") return;
  if (!players.started) {
    announce("Voting opens when both clips have started.");
    return;
  }
  const voted = battle;
  const byKeyboard = voteForm.contains(document.activeElement);
  enter("sending");
  markChosen(choice);
  try {
    reveal(await castVote(voted, choice, csrfToken));
    if (byKeyboard) nextButton.focus();
  } catch (error) {
    if (error instanceof Refused) {
      clearReveal();
      fail(error.message, "Next pair", next);
    } else {
      // The choice is kept, and the site counts a vote sent twice once.
      const { message } = /** @type {Error} */ (error);
      fail(`${message} Your choice is kept: ${VERDICT[choice]}.`, "Send again", () => {
        enter("watching");
        void vote(choice);
      });
    }
  }
}

/** @param {Choice} choice */
function markChosen(choice) {
  for (const side of SIDES) figureOf[side].classList.toggle("chosen", choice === side);
  for (const button of choiceButtons) button.classList.toggle("sent", button.value === choice);
}

/** @param {Reveal} revealed */
function reveal(revealed) {
  markChosen(revealed.choice);
  const { a, b } = revealed;
  if (a) fillNameplate("a", a, revealed.choice === "a");
  if (b) fillNameplate("b", b, revealed.choice === "b");
  for (const counter of document.querySelectorAll("[data-my-votes]")) {
    counter.textContent = String(revealed.my_votes);
    counter.closest("[hidden]")?.removeAttribute("hidden"); // before the first vote it says nothing
  }
  if (revealed.panel) find("[data-given]").textContent = String(revealed.panel.given);
  const hidden = `Thanks. Names stay hidden to keep experiments blind.${defects ? " You can mark defects below." : ""}`;
  const names = a && b
    ? `A was ${a.name} by ${a.lab}, B was ${b.name} by ${b.lab}.`
    : hidden;
  find("[data-after-words]").textContent = `${VERDICT[revealed.choice]}${a ? "" : "."}`;
  find("[data-after-more]").textContent = a ? "" : hidden;
  enter("revealed");
  announce(`${VERDICT[revealed.choice]}. ${names}`);
  if (defects && revealed.defects_url && revealed.take_back_url) {
    offerDefects(defects, revealed.defects_url, revealed.take_back_url);
  }
  if (autoAdvance.value) startCountdown();
}

/** @param {Side} side @param {Entrant} entrant @param {boolean} picked */
function fillNameplate(side, entrant, picked) {
  const name = document.createElement(entrant.url ? "a" : "span"); // codenames have no page yet
  name.className = "plate-name";
  if (name instanceof HTMLAnchorElement) name.href = entrant.url;
  name.textContent = entrant.name;
  const lab = document.createElement("span");
  lab.className = "plate-lab";
  lab.textContent = entrant.lab;
  nameplate[side].replaceChildren(name, " ", lab);
  if (picked) {
    const pick = document.createElement("span");
    pick.className = "plate-pick";
    pick.textContent = "Your choice";
    nameplate[side].append(" ", pick);
  }
  nameplate[side].hidden = false;
}

function clearReveal() {
  stopCountdown();
  for (const side of SIDES) {
    figureOf[side].classList.remove("chosen");
    nameplate[side].hidden = true;
  }
  for (const button of choiceButtons) button.classList.remove("sent");
}

/**
 * A press marks, at the second that is shown; a second press takes the mark back.
 *
 * @param {HTMLElement} box @param {string} markUrl @param {string} takeBackUrl
 */
function offerDefects(box, markUrl, takeBackUrl) {
  box.hidden = false;
  showDefects([]);
  for (const button of defectButtons) {
    button.hidden = !battle?.audio && "ofSound" in button.dataset;
    button.onclick = async () => {
      stopCountdown(); // whoever marks one may mark more
      const { side = "", kind = "" } = button.dataset;
      const trouble = find("[data-defects-trouble]");
      const isMarked = button.getAttribute("aria-pressed") === "true";
      try {
        const marked = isMarked
          ? await takeBackDefect(takeBackUrl, { side, kind }, csrfToken)
          : await markDefect(markUrl, { side, kind, second: players.position }, csrfToken);
        trouble.toggleAttribute("hidden", true);
        if (!box.hidden) showDefects(marked.defects);
      } catch (error) {
        trouble.textContent = /** @type {Error} */ (error).message;
        trouble.toggleAttribute("hidden", false);
      }
    };
  }
}

/** @param {import("./battle.js").Defect[]} marked */
function showDefects(marked) {
  for (const button of defectButtons) {
    const { side, kind } = button.dataset;
    const defect = marked.find((one) => one.side === side && one.kind === kind);
    button.setAttribute("aria-pressed", String(Boolean(defect)));
    const at = /** @type {HTMLElement} */ (button.querySelector("[data-at]"));
    at.textContent = defect?.second == null ? "" : `${defect.second.toFixed(1)} s`;
  }
}

async function skip() {
  if (!battle || state === "sending" || state === "revealed" || state === "waiting") return;
  const skipped = battle;
  enter("sending");
  try {
    await skipBattle(skipped, csrfToken);
  } catch (error) {
    if (!(error instanceof Refused)) {
      fail(/** @type {Error} */ (error).message, "Skip again", () => void skip());
      return;
    }
    // Refused: the battle is over already, and going on is what was asked for.
  }
  announce("Skipped.");
  await next();
}

/** @param {string} sentence @param {string} action @param {() => void} run */
function fail(sentence, action, run) {
  enter("troubled");
  find("[data-trouble-words]").textContent = sentence;
  troubleAction.textContent = action;
  troubleAction.onclick = run;
}

// ---- the next battle ----

/**
 * Ask for the next battle while the voter watches this one. An answer without a battle is not
 * kept: once this one is decided there may be another, so next() asks again before it complains.
 */
function prepareNext() {
  if (upcoming || !battle) return;
  const asked = fetchNext(nextUrl, csrfToken, [battle.id]);
  const forget = () => {
    if (upcoming === asked) upcoming = null;
  };
  upcoming = asked;
  asked.then((answer) => {
    if (answer.battle && upcoming === asked) ahead = answer.battle;
    else forget();
  }, forget);
}

/** Tell the site that this page still shows its pairs, and learn which of them others have by now. */
async function keep() {
  const watched = state === "watching" ? battle : null;
  const loaded = ahead;
  const held = [watched, loaded].flatMap((one) => (one ? [one.id] : []));
  if (!held.length) return;
  const open = await keepBattles(keepUrl, held, csrfToken).catch(() => null);
  if (!open) return; // no answer: the next time tells
  keptAt = Date.now();
  if (loaded && loaded === ahead && !open.includes(loaded.id)) {
    release(loaded);
    ahead = upcoming = null;
  }
  if (watched && watched === battle && state === "watching" && !open.includes(watched.id)) {
    players.pause();
    fail(GIVEN_AWAY, "Next pair", () => void next());
  }
}

async function next() {
  if (state === "waiting") return;
  stopCountdown();
  const byKeyboard = document.activeElement === nextButton && nextButton.matches(":focus-visible");
  enter("waiting");
  openVoting(false);
  if (byKeyboard) choiceButtons[0].focus();
  if (ahead && Date.now() - keptAt > MAY_BE_GONE_MS) await keep();
  const prepared = upcoming;
  upcoming = ahead = null;
  try {
    let answer = await prepared?.catch(() => null); // a failed load ahead is tried once more
    if (!answer?.battle) answer = await fetchNext(nextUrl, csrfToken, []);
    if (answer.battle) show(answer.battle);
    else showEmpty(answer);
  } catch (error) {
    clearReveal();
    fail(/** @type {Error} */ (error).message, "Try again", () => void next());
  }
}

function startCountdown() {
  const bar = find("[data-progress]");
  countdown = bar.animate(
    [{ transform: "scaleX(0)" }, { transform: "scaleX(1)" }],
    { duration: REVEAL_MS, fill: "forwards" },
  );
  countdown.onfinish = () => void next();
}

function stopCountdown() {
  countdown?.cancel();
  countdown = null;
}

/** Whoever reads a name or reaches for a control is not hurried on. */
function holdCountdownOver(/** @type {HTMLElement} */ element) {
  // pointerover also fires when the panel appears under a resting pointer; moving is deliberate.
  element.addEventListener("pointermove", (event) => {
    if (event.movementX || event.movementY) countdown?.pause();
  });
  element.addEventListener("pointerleave", () => resumeCountdown());
  element.addEventListener("focusin", (event) => {
    if (/** @type {Element} */ (event.target).matches(":focus-visible")) countdown?.pause();
  });
  element.addEventListener("focusout", () => resumeCountdown());
}

function resumeCountdown() {
  if (countdown?.playState === "paused") countdown.play();
}

// ---- playback and sound ----

/** @param {Hearing} hearing */
function hear(hearing) {
  players.hear(hearing);
  const offer = Boolean(battle?.audio) && !sound.value;
  soundOn.hidden = !offer;
  hearGroup.hidden = offer;
}

/** The voter asked to hear a side: sound is on from now, on later pairs too. @param {Hearing} hearing */
function chooseHearing(hearing) {
  if (!battle?.audio) return;
  sound.set(hearing !== "mute");
  hear(hearing);
  if (hearing === "mute") {
    soundOn.hidden = true; // muted by hand: keep the switch where the hand is
    hearGroup.hidden = false;
  }
}

function showPosition() {
  const { length, position } = players;
  timing.max = String(length || 1);
  timing.value = String(position);
  timing.setAttribute("aria-valuetext", `${position.toFixed(1)} of ${length.toFixed(1)} seconds`);
  timing.style.setProperty("--length", String(length || 1));
  clock.textContent = position.toFixed(2);
}

function followPosition() {
  if (players.playing) showPosition();
  requestAnimationFrame(followPosition);
}

function showPlayback() {
  showPosition();
  const { playing, hearing } = players;
  toggleButton.classList.toggle("is-playing", playing);
  toggleButton.setAttribute("aria-label", playing ? "Pause both clips" : "Play both clips");
  if (playing) startButton.hidden = true;
  for (const side of SIDES) {
    find(`[data-hearing=${side}]`).toggleAttribute("hidden", hearing !== side);
  }
  for (const button of hearGroup.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.hear === hearing));
  }
}

players.addEventListener("state", showPlayback);
players.addEventListener("started", () => {
  openVoting(true);
  prepareNext();
});
players.addEventListener("blocked", (event) => {
  const { detail } = /** @type {CustomEvent<{ sound: boolean }>} */ (event);
  if (detail.sound) {
    hearGroup.hidden = true;
    soundOn.hidden = false;
  } else {
    startButton.hidden = false;
  }
});
players.addEventListener("broken", async () => {
  if (state !== "watching" || !battle) return;
  const broken = battle;
  const gone = await isGone(broken);
  if (state !== "watching" || battle !== broken) return;
  if (gone) {
    announce("A clip of this pair no longer exists. Here is the next pair.");
    await next();
    return;
  }
  fail("A clip of this pair can't be played.", "Skip this pair", () => void skip());
});

// ---- hands ----

voteForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const { submitter } = event;
  if (submitter instanceof HTMLButtonElement) void vote(/** @type {Choice} */ (submitter.value));
});
skipForm.addEventListener("submit", (event) => {
  event.preventDefault();
  void skip();
});
nextButton.addEventListener("click", () => void next());
startButton.addEventListener("click", () => void players.play());
toggleButton.addEventListener("click", () => players.toggle());
find("[data-restart]").addEventListener("click", () => players.restart());
timing.addEventListener("input", () => players.seek(Number(timing.value)));
soundOn.addEventListener("click", () => chooseHearing("a"));
for (const button of hearGroup.querySelectorAll("button")) {
  button.addEventListener("click", () => chooseHearing(/** @type {Hearing} */ (button.dataset.hear)));
}
for (const side of SIDES) {
  const frame = /** @type {HTMLElement} */ (figureOf[side].querySelector(".frame"));
  frame.addEventListener("pointerenter", (event) => {
    // Only once sound is on: hovering must not start sound in a quiet room.
    if (event.pointerType === "mouse" && players.hearing !== "mute") hear(side);
  });
  /** @type {HTMLElement} */ (frame.querySelector("video")).addEventListener("click", () => {
    if (battle?.audio) chooseHearing(side);
    else players.toggle();
  });
  holdCountdownOver(nameplate[side]);
}
holdCountdownOver(after);
if (defects) holdCountdownOver(defects);

// A control clicked with the pointer gives the keyboard back to the shortcuts.
find("[data-transport]").addEventListener("pointerup", () => {
  setTimeout(() => {
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && focused.closest("[data-transport]")) focused.blur();
  });
});

promptImage.addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  /** @type {HTMLImageElement} */ (lightbox.querySelector("img")).src = promptImage.href;
  lightbox.showModal();
});
lightbox.addEventListener("click", (event) => {
  if (event.target === lightbox) lightbox.close();
});

const autoAdvanceBox = /** @type {HTMLInputElement} */ (find("[data-auto-advance]"));
autoAdvanceBox.checked = autoAdvance.value;
autoAdvanceBox.addEventListener("change", () => {
  autoAdvance.set(autoAdvanceBox.checked);
  if (!autoAdvanceBox.checked) stopCountdown();
});
const shortcutsBox = /** @type {HTMLInputElement} */ (find("[data-shortcuts-on]"));
shortcutsBox.checked = shortcuts.value;
shortcutsBox.addEventListener("change", () => shortcuts.set(shortcutsBox.checked));

/** Whether the focused element needs this key for itself. @param {KeyboardEvent} event */
function keyIsTaken({ target, key }) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.closest("textarea, select, dialog")) return true;
  if (target instanceof HTMLInputElement) {
    if (target.type === "checkbox") return key === " ";
    if (target.type === "range") return key.startsWith("Arrow");
    return true;
  }
  return (key === " " || key === "Enter") && target.closest("a, button, summary") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (!shortcuts.value || lightbox.open || state === "empty" || keyIsTaken(event)) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in CHOICE_OF_KEY) void vote(CHOICE_OF_KEY[key]);
  else if (key in HEARING_OF_KEY) chooseHearing(HEARING_OF_KEY[key]);
  else if (key === " ") players.toggle();
  else if (key === "r") players.restart();
  else if (key === "s") void skip();
  else if ((key === "n" || key === "Enter") && state === "revealed") void next();
  else if ((key === "n" || key === "Enter") && state === "troubled") troubleAction.click();
  else return;
  event.preventDefault();
});

setInterval(() => {
  if (players.playing && document.visibilityState === "visible") void keep();
}, KEEP_MS);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && Date.now() - keptAt > KEEP_MS) void keep();
});

/** @type {Empty} */
const empty = JSON.parse(find("#empty-data").textContent ?? "null");
if (battle) begin();
else if (!empty.reason) lookAgain(0); // a pair is wanted, and nobody asked for it yet
else if (empty.again) showEmpty(empty);
followPosition();
