// What was said: turns of words, each of which can be heard, with the spoken one lit.

// Ten hours are 100,000 words. So many at a time are drawn in one go.
const WORDS_AT_ONCE = 5000;
// How long after somebody has scrolled it is not scrolled for him.
const HANDS_OFF = 4000;

function clock(ms) {
  const whole = Math.floor(ms / 1000);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = two(whole % 60);
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

// Not the next picture: a page in the background has none.
const aMoment = () => new Promise((resolve) => setTimeout(resolve));

/** Finds the last of some rising numbers that is not greater than another; -1 if none. */
export function lastAtMost(numbers, most) {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= most) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

/** The words of all speakers, in one element. */
export class Transcript {
  constructor(root, follow, hear) {
    this.root = root;
    this.follow = follow;
    this.hear = hear;
    this.words = [];
    this.tracks = [];
    this.lit = new Set();
    this.scrolledAt = -Infinity;
    root.addEventListener("click", (event) => this.#onClick(event));
    root.addEventListener("keydown", (event) => this.#onKey(event));
    for (const name of ["wheel", "touchmove", "pointerdown"]) {
      root.addEventListener(
        name,
        () => {
          this.scrolledAt = performance.now();
        },
        { passive: true },
      );
    }
  }

  /** Draws turns, each with the place of its file in the player, by their start. */
  async show(turns) {
    const tracks = new Map();
    let [batch, drawn] = [document.createDocumentFragment(), 0];
    this.root.replaceChildren();
    for (const turn of turns) {
      batch.append(this.#draw(turn, tracks));
      drawn += turn.words.length / 3;
      if (drawn >= WORDS_AT_ONCE) {
        this.root.append(batch);
        [batch, drawn] = [document.createDocumentFragment(), 0];
        await aMoment();
      }
    }
    this.root.append(batch);
    for (const track of tracks.values()) {
      track.sort((a, b) => a.start - b.start);
      this.tracks.push({ words: track, starts: track.map((word) => word.start) });
    }
    if (this.words.length) {
      this.#point(this.words[0]);
    }
  }

  #draw(turn, tracks) {
    const element = document.createElement("div");
    element.className = "turn";
    element.dataset.channel = turn.lane;
    const who = document.createElement("p");
    who.className = "who";
    const at = document.createElement("button");
    at.type = "button";
    at.className = "quiet";
    at.textContent = clock(turn.start);
    at.setAttribute("aria-label", `Hear from ${clock(turn.start)} on`);
    const speaker = document.createElement("bdi");
    speaker.className = "speaker";
    speaker.textContent = turn.speaker;
    who.append(at, speaker);
    const said = document.createElement("p");
    said.className = "said";
    said.dir = "auto";
    const key = `${turn.file}/${turn.channel}`;
    const track = tracks.get(key) ?? [];
    tracks.set(key, track);
    for (let i = 0; i < turn.words.length; i += 3) {
      const span = document.createElement("span");
      span.className = "word";
      span.textContent = turn.words[i];
      const [start, end] = [turn.words[i + 1], turn.words[i + 2]];
      const word = { span, start, end, file: turn.file, place: this.words.length };
      span.dataset.place = word.place;
      this.words.push(word);
      track.push(word);
      said.append(span);
    }
    at.dataset.at = turn.start;
    at.dataset.file = turn.file ?? "";
    element.append(who, said);
    return element;
  }

  #onClick(event) {
    const time = event.target.closest("button[data-at]");
    if (time) {
      this.hear(Number(time.dataset.at), time.dataset.file === "" ? null : Number(time.dataset.file));
      return;
    }
    const span = event.target.closest(".word");
    if (span) {
      this.#choose(this.words[span.dataset.place]);
    }
  }

  #onKey(event) {
    const span = event.target.closest(".word");
    if (!span) {
      return;
    }
    const place = Number(span.dataset.place);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#choose(this.words[place]);
      return;
    }
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    const next = this.words[place + (steps[event.key] ?? 0)];
    if (event.key in steps && next) {
      event.preventDefault();
      this.#point(next);
      next.span.focus();
    }
  }

  #choose(word) {
    this.#point(word);
    // Or the keys would begin elsewhere than where the mouse has ended.
    word.span.focus({ preventScroll: true });
    this.hear(word.start, word.file);
  }

  // Of all words one can be reached by the tab key, or there would be 100,000 stops.
  #point(word) {
    if (this.pointed) {
      this.pointed.span.removeAttribute("tabindex");
      this.pointed.span.removeAttribute("role");
    }
    this.pointed = word;
    word.span.tabIndex = 0;
    word.span.setAttribute("role", "button");
  }

  /** Lights what is spoken at a time, in seconds, of the file that is played. */
  light(seconds, file) {
    const ms = seconds * 1000 + 0.5;
    const now = new Set();
    for (const { words, starts } of this.tracks) {
      const word = words[lastAtMost(starts, ms)];
      // Each file of one side is a recording of the same time.
      if (word && ms <= Math.max(word.end, word.start + 1)) {
        now.add(word);
      }
    }
    for (const word of this.lit) {
      if (!now.has(word)) {
        word.span.classList.remove("lit");
      }
    }
    for (const word of now) {
      if (!this.lit.has(word)) {
        word.span.classList.add("lit");
        this.#bring(word, file);
      }
    }
    this.lit = now;
  }

  #bring(word, file) {
    const isHeard = word.file === null || word.file === file;
    if (!this.follow.checked || !isHeard || performance.now() - this.scrolledAt < HANDS_OFF) {
      return;
    }
    const [box, room] = [word.span.getBoundingClientRect(), this.root.getBoundingClientRect()];
    if (box.top < room.top || box.bottom > room.bottom) {
      this.root.scrollTop += box.top - room.top - room.height / 3;
    }
  }
}
