// Listens to what the service sends of a page: all of it once, then what changes.

const STALE_AFTER = 5000;
const AGAIN_AFTER = 10000;

/**
 * Listens until the page is left, and says so on it when nothing comes any more.
 * Calls `whole` with all there is to see, and `change` with what is new.
 */
export function watch(address, { whole, change }) {
  const stale = document.getElementById("stale");
  let heardAt = Date.now();

  const heard = (take) => (event) => {
    heardAt = Date.now();
    stale.hidden = true;
    take(JSON.parse(event.data));
  };

  function listen() {
    const source = new EventSource(address);
    source.addEventListener("whole", heard(whole));
    source.addEventListener("change", heard(change));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) {
        return; // It comes again by itself.
      }
      // Refused: there are too many viewers, or we are not let in any more.
      fetch(address, { method: "HEAD", redirect: "manual" })
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
    stale.hidden = Date.now() - heardAt < STALE_AFTER;
  }, 1000);
  listen();
}
