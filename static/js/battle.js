/**
 * Talks to the site about battles: asks for the next one, holds its clips ready, sends the answer.
 *
 * @typedef {"a" | "tie" | "both_bad" | "b"} Choice
 * @typedef {{ video: string, poster: string }} Clip
 * @typedef {{
 *   id: string, category: string, category_label: string, prompt: string, language: string,
 *   image: string | null, audio: boolean, muted: boolean, a: Clip, b: Clip,
 *   vote_url: string, skip_url: string, width: number, height: number,
 * }} Battle
 * @typedef {{ name: string, lab: string, url: string }} Entrant
 * @typedef {{ given: number, quota: number }} Panel
 * @typedef {{
 *   choice: Choice, my_votes: number, a?: Entrant, b?: Entrant, panel?: Panel,
 *   defects_url?: string, take_back_url?: string,
 * }} Reveal names are there if the pair was the arena's
 * @typedef {{ side: "a" | "b", kind: string, label: string, second: number | null }} Defect
 * @typedef {{ title: string, reason: string, again: boolean }} Empty why there is no pair, and whether to ask again
 * @typedef {{ battle: Battle } | { battle: null } & Empty} Next
 */

/** The site answered, and its answer is no. The message is a sentence for the voter. */
export class Refused extends Error {}

/** No answer came, or the site is away for a moment: the same request may be sent again. */
export class Unreachable extends Error {}

/**
 * @param {string} url
 * @param {string} token
 * @param {string[][]} [fields] names and values
 * @returns {Promise<any>}
 */
async function post(url, token, fields = []) {
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { Accept: "application/json", "X-CSRFToken": token },
      body: new URLSearchParams(fields),
      credentials: "same-origin",
    });
  } catch {
    throw new Unreachable("The site can't be reached. Check your connection and try again.");
  }
  if (response.ok) return response.json();
  const sentence = await sentenceOf(response);
  if (response.status >= 500) {
    throw new Unreachable(
      sentence ?? `Something went wrong on our side (error ${response.status}). Try again in a moment.`,
    );
  }
  throw new Refused(
    sentence ?? `The site refused the request (error ${response.status}). Reload the page.`,
  );
}

/** @param {Response} response @returns {Promise<string | undefined>} */
async function sentenceOf(response) {
  try {
    const { error } = await response.json();
    return typeof error === "string" ? error : undefined;
  } catch {
    return undefined; // an answer that is not JSON carries no sentence
  }
}

/** @param {Battle} battle @param {Choice} choice @param {string} token @returns {Promise<Reveal>} */
export function castVote(battle, choice, token) {
  return post(battle.vote_url, token, [["choice", choice]]);
}

/** @param {Battle} battle @param {string} token @returns {Promise<{ skipped: boolean }>} */
export function skipBattle(battle, token) {
  return post(battle.skip_url, token);
}

/**
 * Say that these battles are still wanted. Answers with those of them that can still be voted on.
 *
 * @param {string} url
 * @param {string[]} held
 * @param {string} token
 * @returns {Promise<string[]>}
 */
export async function keepBattles(url, held, token) {
  return (await post(url, token, held.map((id) => ["have", id]))).open;
}

/**
 * @param {string} url
 * @param {{ side: string, kind: string, second: number }} defect
 * @param {string} token
 * @returns {Promise<{ defects: Defect[] }>}
 */
export function markDefect(url, { side, kind, second }, token) {
  return post(url, token, [["side", side], ["kind", kind], ["second", second.toFixed(2)]]);
}

/**
 * @param {string} url
 * @param {{ side: string, kind: string }} defect
 * @param {string} token
 * @returns {Promise<{ defects: Defect[] }>}
 */
export function takeBackDefect(url, { side, kind }, token) {
  return post(url, token, [["side", side], ["kind", kind]]);
}

/** A clip of a battle that was drawn is no longer there. */
class Gone extends Error {}

/**
 * Whether the site says so of one of the battle's clips; it shows no pair with that clip any more.
 *
 * @param {Battle} battle @returns {Promise<boolean>}
 */
export async function isGone({ a, b }) {
  const addresses = [a.video, b.video].filter((address) => !address.startsWith("blob:"));
  const asked = addresses.map((address) => fetch(address, { method: "HEAD" }));
  const answers = await Promise.allSettled(asked);
  return answers.some((answer) => answer.status === "fulfilled" && answer.value.status === 404);
}

/** @param {string} url @returns {Promise<string>} */
async function download(url) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin" });
  } catch {
    throw new Unreachable("The next clips could not be loaded. Check your connection and try again.");
  }
  if (response.status === 404) throw new Gone("A clip of the next pair no longer exists.");
  if (!response.ok) {
    throw new Unreachable(`A clip of the next pair could not be loaded (error ${response.status}).`);
  }
  return URL.createObjectURL(await response.blob());
}

/**
 * The next battle with both clips wholly in memory, so that it can start at once.
 *
 * @param {string} url
 * @param {string} token
 * @param {string[]} held ids of the battles the page shows already
 * @param {string} [gone] id of one that was given, and lacked a clip
 * @returns {Promise<Next>}
 */
export async function fetchNext(url, token, held, gone) {
  /** @type {Next} */
  const next = await post(url, token, held.map((id) => ["have", id]));
  const { battle } = next;
  if (!battle) return next;
  let a, b;
  try {
    [a, b] = await Promise.all([download(battle.a.video), download(battle.b.video)]);
  } catch (error) {
    if (!(error instanceof Gone)) throw error;
    if (battle.id === gone) throw new Unreachable(`${error.message} Please try again in a minute.`);
    return fetchNext(url, token, held, battle.id); // the site has taken it back
  }
  for (const picture of [battle.a.poster, battle.b.poster, battle.image]) {
    if (picture) new Image().src = picture; // into the browser's cache; nobody waits for it
  }
  return {
    ...next,
    battle: {
      ...battle,
      a: { ...battle.a, video: a },
      b: { ...battle.b, video: b },
    },
  };
}

/** Give the memory of a finished battle back. @param {Battle} battle */
export function release(battle) {
  for (const { video } of [battle.a, battle.b]) {
    if (video.startsWith("blob:")) URL.revokeObjectURL(video);
  }
}
