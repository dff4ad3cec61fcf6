// What is written the same way here as by the service, see `audiohook.web.text`.

/** Writes how long something lasts: 0:07, 12:34 or 1:02:03. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  const rest = two(whole % 60);
  return hours ? `${hours}:${two(minutes % 60)}:${rest}` : `${minutes}:${rest}`;
}

/** Writes a number of bytes. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let place = 0;
  while (bytes >= 1024 && place < units.length - 1) {
    bytes /= 1024;
    place += 1;
  }
  return place ? `${bytes.toFixed(1)} ${units[place]}` : `${bytes} B`;
}

/** Puts text into an element, whatever is in it, unless it is there. */
export function write(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
