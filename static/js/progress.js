// The numbers of the page are fetched again every ten seconds; the page around them stays.
const EVERY = 10_000;
const numbers = document.querySelector("[data-progress]");
const stale = document.querySelector("[data-progress-stale]");

const beingCopied = () => {
  const selection = getSelection();
  return !selection.isCollapsed && numbers.contains(selection.anchorNode);
};

function show(html) {
  const focused = numbers.contains(document.activeElement)
    ? document.activeElement.getAttribute("href")
    : null;
  numbers.innerHTML = html;
  if (focused === null) return;
  const same = [...numbers.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused);
  same?.focus({ preventScroll: true });
}

async function refresh() {
  if (document.hidden || beingCopied()) return;
  try {
    const response = await fetch("?fragment", { signal: AbortSignal.timeout(EVERY) });
    if (response.redirected) {
      location.reload(); // the session has ended: this leads to the login and back
      return;
    }
    if (!response.ok) throw new Error(`the site answered ${response.status}`);
    show(await response.text());
    stale.hidden = true;
  } catch (error) {
    stale.textContent = `These numbers could not be updated (${error.message}). The page tries again in 10 seconds.`;
    stale.hidden = false;
  }
}

async function keepFresh() {
  await refresh();
  setTimeout(keepFresh, EVERY);
}

setTimeout(keepFresh, EVERY);
document.addEventListener("visibilitychange", refresh);
