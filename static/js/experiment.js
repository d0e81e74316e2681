// The parts of the page that change are fetched anew every five seconds. A part in use, one that
// holds the focus, a playing clip or selected words, is left alone until it is not.
const EVERY = 5_000;
const page = document.querySelector("[data-experiment]");
const stale = document.querySelector("[data-stale]");

/** @param {Element} part */
function inUse(part) {
  const selection = getSelection();
  const selected = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  const playing = [...part.querySelectorAll("video")].some((video) => video.currentTime > 0);
  const writing = [...part.querySelectorAll(".exclude[open]")].length > 0;
  return selected || playing || writing || part.contains(document.activeElement);
}

/** What a reader has opened or closed stays so. @param {Element} old @param {Element} fresh */
function keepOpened(old, fresh) {
  for (const details of old.querySelectorAll("details[id]")) {
    const same = fresh.querySelector(`#${details.id}`);
    if (same) same.open = details.open;
  }
  const places = [...old.querySelectorAll(".table-scroll")].map((each) => each.scrollLeft);
  return () =>
    [...fresh.querySelectorAll(".table-scroll")].forEach((each, index) => {
      each.scrollLeft = places[index] ?? 0;
    });
}

/** @param {string} html */
function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of fresh.querySelectorAll("[data-live]")) {
    const old = document.getElementById(part.id);
    if (!old) return location.reload(); // the first numbers have come
    if (inUse(old) || old.innerHTML === part.innerHTML) continue;
    const scroll = keepOpened(old, part);
    old.replaceWith(document.adoptNode(part));
    scroll();
  }
}

async function refresh() {
  if (document.hidden) return;
  try {
    const response = await fetch(`${page.dataset.experiment}?fragment`, { signal: AbortSignal.timeout(2 * EVERY) });
    if (response.redirected) {
      location.reload(); // the session has ended: this leads to the login and back
      return;
    }
    if (!response.ok) throw new Error(`the site answered ${response.status}`);
    show(await response.text());
    stale.hidden = true;
  } catch (error) {
    stale.textContent = `These numbers could not be read anew (${error.message}); the next try follows in 5 seconds.`;
    stale.hidden = false;
  }
}

async function keepFresh() {
  await refresh();
  setTimeout(keepFresh, EVERY);
}

page.addEventListener("click", (event) => {
  const button = event.target.closest("[data-play-both]");
  if (!button) return;
  const videos = [...button.closest("[data-pair]").querySelectorAll("video")];
  for (const video of videos) video.currentTime = 0;
  for (const video of videos) {
    video.muted = video !== videos[0]; // one sound at a time
    video.play();
  }
});

setTimeout(keepFresh, EVERY);
document.addEventListener("visibilitychange", refresh);
