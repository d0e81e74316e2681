/**
 * Two players that behave as one: they start in the same instant, stay together, pause, seek and
 * loop together, and at most one of them is heard.
 *
 * @typedef {"a" | "b"} Side
 * @typedef {Side | "mute"} Hearing
 */

/**
 * Beyond this many seconds apart the follower is brought back by playing faster or slower; one
 * frame at 24 frames per second lasts 0.042 s.
 */
const DRIFT_TO_CORRECT = 0.04;
/** Below this the correction ends; smaller than the threshold so that it does not flutter. */
const DRIFT_CORRECTED = 0.015;
/** Beyond this a change of speed would take too long, so the follower jumps. */
const DRIFT_TO_SEEK = 0.3;
/** Small enough that nobody sees the correction: 40 ms are made up in 0.4 s. */
const CORRECTION = 0.1;
const CHECK_EVERY_MS = 100;

/** @type {Record<Side, Side>} */
const OTHER = { a: "b", b: "a" };

export class Players extends EventTarget {
  /** @type {Record<Side, HTMLVideoElement>} */
  #video;
  /** What the voter wants; the clips may still be held back while one of them buffers. */
  #wanted = false;
  #started = false;
  #blocked = false;
  /** @type {Hearing} */
  #hearing = "mute";
  /** Grows with every new pair, so that a late answer about an old pair is dropped. */
  #pair = 0;

  /**
   * Events: `started` (both have begun), `state` (playing or position changed),
   * `blocked` (the browser wants a click first; detail.sound tells whether only sound was refused),
   * `broken` (a clip can't be played).
   *
   * @param {HTMLVideoElement} a
   * @param {HTMLVideoElement} b
   */
  constructor(a, b) {
    super();
    this.#video = { a, b };
    for (const side of /** @type {Side[]} */ (["a", "b"])) {
      const video = this.#video[side];
      video.controls = false;
      video.loop = false; // two clips that loop on their own drift apart
      video.addEventListener("ended", () => this.#loopWhenBothEnded());
      video.addEventListener("waiting", () => this.#holdBoth(side));
      video.addEventListener("canplay", () => this.#resumeBoth());
      video.addEventListener("error", () => {
        if (video.getAttribute("src")) this.#tell("broken");
      });
    }
    setInterval(() => this.#keepTogether(), CHECK_EVERY_MS);
  }

  get playing() {
    return this.#wanted;
  }

  get started() {
    return this.#started;
  }

  get hearing() {
    return this.#hearing;
  }

  /** Seconds both clips cover; 0 until both are known. */
  get length() {
    const { a, b } = this.#video;
    const shorter = Math.min(a.duration, b.duration);
    return Number.isFinite(shorter) ? shorter : 0;
  }

  get position() {
    return Math.min(this.#video.a.currentTime, this.length);
  }

  /**
   * Show another pair; it stays still until play().
   *
   * @param {{ a: { video: string, poster: string }, b: { video: string, poster: string },
   *           width: number, height: number }} battle
   */
  load(battle) {
    this.#pair += 1;
    this.#wanted = false;
    this.#started = false;
    for (const side of /** @type {Side[]} */ (["a", "b"])) {
      const video = this.#video[side];
      video.pause();
      video.playbackRate = 1;
      video.width = battle.width;
      video.height = battle.height;
      video.poster = battle[side].poster;
      video.src = battle[side].video;
      video.load();
    }
    this.#tell("state");
  }

  /** Play both, once both can play. */
  async play() {
    const pair = this.#pair;
    this.#wanted = true;
    this.#tell("state");
    await Promise.all([this.#canPlay("a"), this.#canPlay("b")]);
    if (pair !== this.#pair || !this.#wanted) return;
    const { a, b } = this.#video;
    if (!this.#started) a.currentTime = b.currentTime = 0;
    await this.#playBoth();
    if (pair !== this.#pair || this.#blocked || this.#started || !this.#wanted) return;
    this.#started = true;
    this.#tell("started");
  }

  pause() {
    this.#wanted = false;
    const { a, b } = this.#video;
    a.pause();
    b.pause();
    // Two pictures that stand still are compared closely: show the same moment.
    if (this.#started && !a.ended && !b.ended) b.currentTime = a.currentTime;
    this.#tell("state");
  }

  toggle() {
    if (this.#wanted && !this.#blocked) this.pause();
    else void this.play();
  }

  restart() {
    this.seek(0);
    void this.play();
  }

  /** @param {number} seconds */
  seek(seconds) {
    const to = Math.max(0, Math.min(seconds, this.length));
    this.#video.a.currentTime = this.#video.b.currentTime = to;
    if (this.#wanted && this.#started) void this.#playBoth(); // a clip that had ended stands still
    this.#tell("state");
  }

  /**
   * Choose the one side that is heard, or none.
   *
   * @param {Hearing} hearing
   */
  hear(hearing) {
    this.#hearing = hearing;
    this.#video.a.muted = hearing !== "a";
    this.#video.b.muted = hearing !== "b";
    this.#video.a.playbackRate = this.#video.b.playbackRate = 1;
    this.#tell("state");
  }

  /** @param {Side} side @returns {Promise<void>} */
  #canPlay(side) {
    const video = this.#video[side];
    if (video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA) return Promise.resolve();
    return new Promise((resolve) => {
      video.addEventListener("canplay", () => resolve(), { once: true });
    });
  }

  async #playBoth() {
    const { a, b } = this.#video;
    try {
      await Promise.all([a.play(), b.play()]);
      this.#blocked = false;
    } catch (error) {
      // AbortError only says that a pause or another pair came first.
      if (!(error instanceof DOMException) || error.name !== "NotAllowedError") return;
      a.pause();
      b.pause();
      if (this.#hearing !== "mute") {
        this.hear("mute");
        this.#tell("blocked", { sound: true });
        await this.#playBoth();
        return;
      }
      this.#blocked = true;
      this.#wanted = false;
      this.#tell("blocked", { sound: false });
    }
    this.#tell("state");
  }

  /** @param {Side} side */
  #holdBoth(side) {
    if (!this.#wanted || !this.#started || this.#video[side].seeking) return;
    this.#video[OTHER[side]].pause();
  }

  #resumeBoth() {
    if (!this.#wanted || !this.#started) return;
    const { a, b } = this.#video;
    if (a.ended || b.ended) return;
    const ready = HTMLMediaElement.HAVE_FUTURE_DATA;
    const paused = a.paused || b.paused;
    if (paused && a.readyState >= ready && b.readyState >= ready) void this.#playBoth();
  }

  #loopWhenBothEnded() {
    const { a, b } = this.#video;
    if (!this.#wanted || !a.ended || !b.ended) return;
    a.currentTime = b.currentTime = 0;
    void this.#playBoth();
  }

  #keepTogether() {
    const { a, b } = this.#video;
    if (!this.#wanted || !this.#started) return;
    if (a.paused || b.paused || a.seeking || b.seeking) return;
    // The silent side follows, so that a correction is never heard.
    const lead = this.#hearing === "b" ? b : a;
    const follower = lead === a ? b : a;
    const ahead = follower.currentTime - lead.currentTime;
    if (Math.abs(ahead) > DRIFT_TO_SEEK) {
      follower.currentTime = lead.currentTime;
      follower.playbackRate = 1;
    } else if (Math.abs(ahead) > DRIFT_TO_CORRECT) {
      follower.playbackRate = ahead > 0 ? 1 - CORRECTION : 1 + CORRECTION;
    } else if (Math.abs(ahead) < DRIFT_CORRECTED) {
      follower.playbackRate = 1;
    }
  }

  /** @param {string} name @param {object} [detail] */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
