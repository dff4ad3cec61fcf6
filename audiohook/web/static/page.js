// What all pages have: times in the reader's own zone.

const format = new Intl.DateTimeFormat(undefined, {
  dateStyle: "medium",
  timeStyle: "medium",
});

/** Writes every time below an element as the reader's clock shows it. */
export function localise(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    if (!Number.isNaN(at.getTime())) {
      each.title = each.dateTime;
      each.textContent = format.format(at);
    }
  }
}

localise(document);
