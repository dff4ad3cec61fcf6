// Plays the files of a recording, and has them fetched from another address where the
// one that a browser was sent to holds no more.
//
// A browser asks an address that has expired again and again, for half a minute and
// more, before it says that anything is wrong. So age is known here, and what needs
// audio that is not there yet has a new address looked up first.

// Faults that come faster than that are not cured by another address.
const AGAIN_AFTER = 5000;
// What is asked for has to begin before its address expires.
const SAFE_SHARE = 0.9;

/** An audio element that has one of several files in it. */
export class Player extends EventTarget {
  constructor(audio, { files, addressLife }, note) {
    super();
    this.audio = audio;
    this.files = files;
    this.note = note;
    this.life = addressLife === null ? Infinity : 1000 * SAFE_SHARE * addressLife;
    // The element has begun before the script, and never before the page.
    this.loadedAt = performance.timeOrigin;
    this.place = 0;
    this.wanted = null;
    this.renewals = 0;
    this.renewedAt = -Infinity;
    audio.addEventListener("error", () => this.#renew());
    for (const name of ["seeking", "waiting", "stalled"]) {
      audio.addEventListener(name, () => this.#renewIfOld());
    }
    audio.addEventListener("loadedmetadata", () => this.#goOn());
    for (const name of ["timeupdate", "seeking", "seeked", "play"]) {
      audio.addEventListener(name, () => this.dispatchEvent(new Event("moved")));
    }
    audio.addEventListener("play", () => this.#follow());
  }

  get time() {
    return this.wanted ? this.wanted.time : this.audio.currentTime;
  }

  /** Goes to a point of a file, in seconds. */
  seek(time, place = this.place) {
    if (place !== this.place) {
      this.#load(place, time, !this.audio.paused);
    } else if (this.wanted) {
      this.wanted.time = time;
    } else {
      this.audio.currentTime = time;
    }
    this.dispatchEvent(new Event("moved"));
  }

  play() {
    if (this.wanted) {
      this.wanted.playing = true;
    }
    // Not an error of ours: somebody may stop it before it begins.
    this.audio.play().catch(() => {});
  }

  #load(place, time, playing) {
    this.place = place;
    this.wanted = { time, playing };
    // Another name, or it would be taken from where the last one was.
    const again = this.renewals ? `?again=${this.renewals}` : "";
    // The clock goes on while a machine sleeps, and so does the address's.
    this.loadedAt = Date.now();
    this.audio.src = this.files[place].audio + again;
    this.audio.load();
  }

  #goOn() {
    const { wanted } = this;
    this.wanted = null;
    this.note.textContent = "";
    if (wanted) {
      this.audio.currentTime = wanted.time;
      if (wanted.playing) {
        this.play();
      }
    }
  }

  #renewIfOld() {
    const { audio } = this;
    const isOld = Date.now() - this.loadedAt > this.life;
    const isKnown = Array.from({ length: audio.buffered.length }).some(
      (_, i) => audio.buffered.start(i) <= this.time && this.time < audio.buffered.end(i),
    );
    if (isOld && !isKnown && !this.wanted && performance.now() - this.renewedAt > AGAIN_AFTER) {
      this.#renew();
    }
  }

  #renew() {
    const now = performance.now();
    if (now - this.renewedAt < AGAIN_AFTER) {
      this.note.textContent = "The audio cannot be fetched. Load the page again.";
      return;
    }
    this.renewedAt = now;
    this.renewals += 1;
    this.#load(this.place, this.time, this.wanted ? this.wanted.playing : !this.audio.paused);
  }

  #follow() {
    if (!this.audio.paused) {
      this.dispatchEvent(new Event("moved"));
      requestAnimationFrame(() => this.#follow());
    }
  }

  /** Lets one channel be heard alone, or both on both sides (`null`). */
  hear(channel) {
    if (!this.gains) {
      const context = new AudioContext();
      const source = context.createMediaElementSource(this.audio);
      const splitter = context.createChannelSplitter(2);
      source.connect(splitter);
      this.gains = [0, 1].map((side) => {
        const gain = context.createGain();
        splitter.connect(gain, side);
        gain.connect(context.destination);
        return gain;
      });
      context.resume();
    }
    this.gains.forEach((gain, side) => {
      gain.gain.value = channel === null || channel === side ? 1 : 0;
    });
  }
}
