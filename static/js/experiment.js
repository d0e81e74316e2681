// The parts of the page that change are fetched again every few seconds: of an experiment for as long
// as the page is open, of a plan until one is marked data-ready. A part in use, one that holds the
// focus, a playing clip or selected words, is left alone until it is not.
const OPENER = "details[id] > summary"; // gets its focus back when its part is fetched again
const page = document.querySelector("[data-refresh]");
const EVERY = Number(page.dataset.refreshEvery ?? 5_000); // milliseconds
const address = new URL(page.dataset.refresh, location.href);
address.searchParams.set("fragment", "");
const stale = document.querySelector("[data-stale]");

/** @param {Element} part */
function inUse(part) {
  const selection = getSelection();
  const selected = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  const playing = [...part.querySelectorAll("video")].some((video) => video.currentTime > 0);
  const writing = part.querySelector(".exclude[open]") !== null;
  const held = part.contains(document.activeElement) && !document.activeElement.matches(OPENER);
  return selected || playing || writing || held;
}

/** What a reader has opened, closed or scrolled to the side stays so. @param {Element} old @param {Element} fresh */
function putInPlace(old, fresh) {
  const opened = [...old.querySelectorAll("details[id]")];
  const focused = old.contains(document.activeElement) && document.activeElement.parentElement.id;
  const aside = [...old.querySelectorAll(".table-scroll")].map((each) => each.scrollLeft);
  old.replaceWith(document.adoptNode(fresh));
  for (const details of opened) {
    const same = fresh.querySelector(`#${details.id}`);
    if (!same) continue;
    if (same.innerHTML === details.innerHTML) same.replaceWith(details); // its pictures are loaded
    else same.open = details.open;
  }
  if (focused) fresh.querySelector(`#${focused} > summary`)?.focus({ preventScroll: true });
  for (const [index, each] of fresh.querySelectorAll(".table-scroll").entries()) {
    each.scrollLeft = aside[index] ?? 0;
  }
}

/** What is in the window stays there, whatever grows or shrinks above it. @param {() => void} change */
function keepPlace(change) {
  const places = [...page.querySelectorAll("h2[id], details[id], tr[id]")].filter((place) => place.checkVisibility());
  const top = (place) => place.getBoundingClientRect().top;
  const seen = places.find((place) => top(place) >= 0 && top(place) < innerHeight)
    ?? places.findLast((place) => top(place) < 0);
  const before = seen && top(seen);
  change();
  const now = seen && document.getElementById(seen.id);
  if (now && scrollY > 0) scrollBy({ top: top(now) - before, behavior: "instant" });
}

/** @param {string} html */
function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const parts = [...fresh.querySelectorAll("[data-live]")];
  if (parts.some((part) => !document.getElementById(part.id))) {
    // The first numbers have come. Until then there was little to read.
    if (!inUse(page)) page.replaceChildren(...fresh.body.childNodes);
    return;
  }
  for (const part of parts) {
    const old = document.getElementById(part.id);
    if (!inUse(old) && old.innerHTML !== part.innerHTML) putInPlace(old, part);
  }
}

async function refresh() {
  if (document.hidden || page.querySelector("[data-ready]")) return;
  try {
    const response = await fetch(address, { signal: AbortSignal.timeout(10_000) });
    if (response.redirected) {
      location.reload(); // the session has ended: this leads to the login and back
      return;
    }
    if (!response.ok) throw new Error(`the site answered ${response.status}`);
    const html = await response.text();
    keepPlace(() => show(html));
    stale.hidden = true;
  } catch (error) {
    stale.textContent = `These numbers could not be updated (${error.message}). The page tries again in ${EVERY / 1000} seconds.`;
    stale.hidden = false;
  }
}

async function keepFresh() {
  await refresh();
  if (page.querySelector("[data-ready]")) return;
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
