// Keeps the page of live calls as the service sends it: all of it once, then changes.

const STALE_AFTER = 5000;
const AGAIN_AFTER = 10000;

const table = document.getElementById("calls");
const body = table.tBodies[0];
const template = document.getElementById("row");
const totals = {};
const calls = new Map();
const rows = new Map();
// By how much the service's clock is ahead of ours, in seconds.
let ahead = 0;
let heardAt = Date.now();

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  const rest = two(whole % 60);
  return hours ? `${hours}:${two(minutes % 60)}:${rest}` : `${minutes}:${rest}`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let place = 0;
  while (bytes >= 1024 && place < units.length - 1) {
    bytes /= 1024;
    place += 1;
  }
  return place ? `${bytes.toFixed(1)} ${units[place]}` : `${bytes} B`;
}

const words = (name) => name.replaceAll("_", " ");
const ms = (seconds) => `${Math.round(seconds * 1000)} ms`;

// Text alone, whatever is in it.
function write(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

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
  heardAt = Date.now();
  document.getElementById("stale").hidden = true;
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

function listen() {
  const source = new EventSource("/live/events");
  source.addEventListener("whole", (event) => {
    calls.clear();
    rows.clear();
    body.replaceChildren();
    take(JSON.parse(event.data));
  });
  source.addEventListener("change", (event) => take(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) {
      return; // It comes again by itself.
    }
    // Refused: there are too many viewers, or we are not let in any more.
    fetch("/live/events", { method: "HEAD", redirect: "manual" })
      .then((answer) => {
        if (answer.type === "opaqueredirect" || answer.status === 403) {
          location.reload();
        }
      })
      .catch(() => {})
      .finally(() => setTimeout(listen, AGAIN_AFTER));
  });
}

setInterval(() => {
  document.getElementById("stale").hidden = Date.now() - heardAt < STALE_AFTER;
}, 1000);
listen();
