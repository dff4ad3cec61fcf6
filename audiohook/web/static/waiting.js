// Keeps the page of what waits as the service sends it, and counts down to each try.

import { localise } from "./page.js";
import { span, write } from "./text.js";
import { watch } from "./watch.js";

// By how much the service's clock is ahead of ours, in seconds.
let ahead = 0;

function countDown() {
  const now = Date.now() / 1000 + ahead;
  for (const each of document.querySelectorAll("[data-due]")) {
    const left = Number(each.dataset.due) - now;
    write(each, left < 1 ? "now" : `in ${span(left)}`);
  }
}

function take({ now, ...parts }) {
  if (now !== undefined) {
    ahead = now - Date.now() / 1000;
  }
  for (const [name, html] of Object.entries(parts)) {
    const part = document.querySelector(`[data-part="${name}"]`);
    // Our own template has made it, and escaped what calls say.
    part.innerHTML = html;
    localise(part);
  }
  countDown();
}

setInterval(countDown, 1000);
watch("/waiting/events", { whole: take, change: take });
