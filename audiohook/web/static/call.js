// Puts the page of a recording together: waveform, player and transcript.

import { Player } from "./player.js";
import { Transcript } from "./transcript.js";
import { Waveform, readPeaks } from "./waveform.js";

const facts = JSON.parse(document.getElementById("call").dataset.player);
const audio = document.getElementById("audio");
const turns = document.getElementById("turns");

const STEPS = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -60, PageUp: 60 };

/** Says a time of the call in words, for somebody who does not see it. */
function inWords(seconds) {
  const whole = Math.floor(seconds);
  const parts = [
    [Math.floor(whole / 3600), "hours"],
    [Math.floor(whole / 60) % 60, "minutes"],
    [whole % 60, "seconds"],
  ];
  return parts
    .filter(([count, unit]) => count || unit === "seconds")
    .map(([count, unit]) => `${count} ${count === 1 ? unit.slice(0, -1) : unit}`)
    .join(" ");
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) {
    throw new Error(`${address}: ${answer.status}`);
  }
  return answer;
}

async function lanesOf({ peaks }) {
  if (!peaks) {
    return [];
  }
  try {
    return readPeaks(await (await fetched(peaks)).arrayBuffer());
  } catch {
    return [];
  }
}

async function drawWave(box) {
  const lanes = (await Promise.all(facts.files.map(lanesOf))).flat();
  document.getElementById("no-wave").hidden = lanes.length > 0;
  box.classList.toggle("empty", lanes.length === 0);
  new Waveform(document.getElementById("wave"), facts).show(lanes);
  box.dataset.lanes = lanes.length;
}

function makePlayer() {
  const player = new Player(audio, facts, document.getElementById("player-note"));
  const seek = document.getElementById("seek");
  const head = document.getElementById("playhead");
  const box = document.getElementById("wave-box");
  box.hidden = false;
  drawWave(box);
  const move = () => {
    seek.value = player.time;
    seek.setAttribute("aria-valuetext", `${inWords(player.time)} of ${inWords(facts.duration)}`);
    head.style.left = `${(100 * player.time) / Math.max(facts.duration, 0.001)}%`;
  };
  player.addEventListener("moved", move);
  move();
  seek.addEventListener("input", () => player.seek(Number(seek.value)));
  seek.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step) {
      event.preventDefault();
      player.seek(Math.min(Math.max(player.time + step, 0), facts.duration));
    } else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      if (audio.paused) {
        player.play();
      } else {
        audio.pause();
      }
    }
  });
  const file = document.getElementById("file");
  if (file) {
    file.addEventListener("change", () => player.seek(player.time, Number(file.value)));
    player.addEventListener("moved", () => {
      file.value = player.place;
    });
  }
  // Sound from another origin is not given to scripts.
  if (facts.addressLife === null && facts.files.length === 1 && facts.files[0].sides.length === 2) {
    document.getElementById("hear-box").hidden = false;
    document.getElementById("hear").addEventListener("change", (event) => {
      const { value } = event.target;
      player.hear(value === "both" ? null : Number(value));
    });
  }
  return player;
}

async function readTurns({ turns: address, file }, place) {
  const found = (await (await fetched(address)).json()).turns;
  // A file of one side has one channel, which is that side's here.
  const alone = facts.scripts.length > 1;
  return found.map((turn) => ({ ...turn, file, lane: alone ? place + 1 : turn.channel }));
}

async function showTranscript(player) {
  const transcript = new Transcript(turns, document.getElementById("follow"), (ms, file) => {
    if (player && file !== null) {
      player.seek(ms / 1000, file);
      player.play();
    }
  });
  try {
    const all = (await Promise.all(facts.scripts.map(readTurns))).flat();
    if (facts.scripts.length > 1) {
      all.sort((a, b) => a.start - b.start);
    }
    await transcript.show(all);
    if (!all.length) {
      turns.textContent = "Nothing was said.";
    }
  } catch {
    turns.textContent = "The transcript cannot be fetched. Load the page again.";
    return;
  }
  turns.dataset.words = transcript.words.length;
  player?.addEventListener("moved", () => transcript.light(player.time, player.place));
}

const player = audio ? makePlayer() : null;
if (turns) {
  showTranscript(player);
}
