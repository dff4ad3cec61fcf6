// Keeps the page of live calls as the service sends it: all of it once, then changes.

import { size, span, write } from "./text.js";
import { watch } from "./watch.js";

const table = document.getElementById("calls");
const body = table.tBodies[0];
const template = document.getElementById("row");
const totals = {};
const calls = new Map();
const rows = new Map();
// By how much the service's clock is ahead of ours, in seconds.
let ahead = 0;

const words = (name) => name.replaceAll("_", " ");
const ms = (seconds) => `${Math.round(seconds * 1000)} ms`;

function field(row, name) {
  return row.querySelector(`[data-field="${name}"]`);
}

function writeLevels(cell, levels) {
  const known = cell.querySelectorAll(".level");
  if (known.length !== levels.length) {
    cell.replaceChildren(...levels.map(makeLevel));
    return;
  }
  levels.forEach(([, peak, rms], place) => {
    known[place].querySelector("meter").value = rms;
    write(known[place].querySelector(".peak"), `${peak} dB`);
  });
}

function makeLevel([channel, peak, rms]) {
  const level = document.createElement("span");
  const name = document.createElement("span");
  const meter = document.createElement("meter");
  const loud = document.createElement("span");
  level.className = "level";
  name.className = "channel";
  name.textContent = channel;
  meter.min = -60;
  meter.max = 0;
  meter.value = rms;
  meter.setAttribute("aria-label", `Level of ${channel}, in dB`);
  loud.className = "peak";
  loud.textContent = `${peak} dB`;
  level.append(name, meter, loud);
  return level;
}

function writeRow(session) {
  const call = calls.get(session);
  let row = rows.get(session);
  if (!row) {
    row = template.content.querySelector("tr").cloneNode(true);
    row.dataset.session = session;
    rows.set(session, row);
  }
  for (const name of ["name", "from", "to", "language", "conversation"]) {
    write(field(row, name), call[name]);
  }
  write(field(row, "held"), words(call.held));
  write(field(row, "gaps"), call.gaps ? `${call.gaps} (${call.gapSeconds} s)` : "none");
  writeLevels(field(row, "levels"), call.levels);
}

function writeTimes() {
  const now = Date.now() / 1000 + ahead;
  for (const [session, row] of rows) {
    const call = calls.get(session);
    write(field(row, "age"), span(now - call.began));
    const pinged = call.pinged === null ? "none yet" : `${Math.max(0, Math.round(now - call.pinged))} s ago`;
    write(field(row, "pinged"), pinged);
  }
}

function sortRows() {
  const order = [...calls.keys()].sort((one, other) => calls.get(other).began - calls.get(one).began);
  order.forEach((session, place) => {
    const row = rows.get(session);
    if (body.rows[place] !== row) {
      body.insertBefore(row, body.rows[place] ?? null);
    }
  });
}

function writeReasons(id, counts) {
  const list = document.getElementById(id);
  const pairs = Object.entries(counts);
  if (!pairs.length) {
    pairs.push(["none", 0]);
  }
  list.replaceChildren(
    ...pairs.flatMap(([reason, count]) => {
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = words(reason);
      value.textContent = count;
      return [term, value];
    }),
  );
}

function writeTotals(changed) {
  const shown = {
    live: totals.live,
    rate: totals.rate === null ? "\u2013" : size(totals.rate),
    lag: ms(totals.lag),
    worstLag: ms(totals.worstLag),
    handshakes: totals.handshakes,
    draining: totals.draining ? "draining" : "running",
    refusal: totals.refusal ?? "",
    others: totals.live - totals.shown,
  };
  for (const [name, text] of Object.entries(shown)) {
    write(document.querySelector(`[data-total="${name}"]`), String(text));
  }
  document.getElementById("refusal").hidden = !totals.refusal;
  document.getElementById("more").hidden = totals.live <= totals.shown;
  for (const name of ["refused", "turnedAway"]) {
    if (name in changed) {
      writeReasons(name, totals[name]);
    }
  }
  if ("now" in changed) {
    ahead = totals.now - Date.now() / 1000;
  }
}

function take(change) {
  Object.assign(totals, change.totals);
  for (const [session, fields] of Object.entries(change.calls ?? {})) {
    if (fields === null) {
      calls.delete(session);
      rows.get(session)?.remove();
      rows.delete(session);
    } else {
      calls.set(session, { ...calls.get(session), ...fields });
      writeRow(session);
    }
  }
  writeTotals(change.totals ?? {});
  sortRows();
  writeTimes();
  table.hidden = !calls.size;
  document.getElementById("none").hidden = calls.size > 0;
}

watch("/live/events", {
  whole(state) {
    calls.clear();
    rows.clear();
    body.replaceChildren();
    take(state);
  },
  change: take,
});
