// Plays all lanes of a song from one clock, in pieces of some seconds.
//
// Samples of 16 bits are fetched as ranges of the files of the lanes, so that the memory does not
// grow with the length of the song. The context has the rate of the song, and every piece begins
// at a whole frame of its clock: pieces join without a seam, and no lane can drift from another.

export const CHUNK_SECONDS = 5;
const AHEAD_SECONDS = 3;
const KEPT_CHUNKS = 6;
const LEAD_SECONDS = 0.08;
const PUMP_MS = 200;
const FADE_SECONDS = 0.008;

export class Player extends EventTarget {
  // context: an AudioContext, or one that renders, at the rate of the song.
  // load(lane, firstFrame, nbFrames): a promise of the samples as an ArrayBuffer.
  constructor(context, sound, load) {
    super();
    this.context = context;
    this.sound = sound;
    this.load = load;
    this.master = context.createGain();
    this.master.connect(context.destination);
    this.gains = new Map(sound.lanes.map((lane) => [lane, context.createGain()]));
    this.gains.forEach((node) => node.connect(this.master));
    this.loop = null; // or { from, to } in frames
    this.playing = false;
    this.frame = 0; // where it stands while it does not play
    this.pieces = []; // what is scheduled: { when, frame, count, sources }, in frames
    this.chunks = new Map(); // promises of the buffers of each lane
    this.run = 0; // of the last start: what belongs to an earlier one is dropped
  }

  get rate() {
    return this.sound.rate;
  }

  // Frame that is heard now.
  position() {
    if (!this.playing || !this.pieces.length) {
      return this.frame;
    }
    const latency = this.context.outputLatency || 0;
    const now = (this.context.currentTime - latency) * this.rate;
    let heard = this.pieces[0];
    for (const piece of this.pieces) {
      if (piece.when <= now) {
        heard = piece;
      }
    }
    const since = Math.min(Math.max(now - heard.when, 0), heard.count);
    return Math.min(heard.frame + since, this.sound.nb_timesteps);
  }

  setLevel(lane, level) {
    const node = this.gains.get(lane);
    if (this.playing) {
      node.gain.setTargetAtTime(level, this.context.currentTime, FADE_SECONDS);
    } else {
      node.gain.cancelScheduledValues(0);
      node.gain.value = level;
    }
  }

  async play() {
    if (this.playing) {
      return;
    }
    if (this.frame >= this.sound.nb_timesteps) {
      this.frame = 0;
    }
    this.playing = true;
    this.run += 1;
    this.next = { when: null, frame: Math.round(this.frame) };
    this.timer = setInterval(() => this.pump(), PUMP_MS);
    this.dispatchEvent(new Event("change"));
    await this.pump();
  }

  pause() {
    this.frame = this.position();
    this.#silence();
    this.dispatchEvent(new Event("change"));
  }

  seek(frame) {
    const playing = this.playing;
    this.#silence();
    this.frame = Math.min(Math.max(Math.round(frame), 0), this.sound.nb_timesteps);
    this.dispatchEvent(new Event("change"));
    return playing ? this.play() : Promise.resolve();
  }

  setLoop(loop) {
    this.loop = loop;
    return this.seek(this.position());
  }

  close() {
    this.#silence();
    this.chunks.clear();
    this.master.disconnect();
  }

  #silence() {
    clearInterval(this.timer);
    this.playing = false;
    this.run += 1;
    this.pieces.forEach((piece) => this.#drop(piece));
    this.pieces = [];
    this.pumping = null;
  }

  #drop(piece) {
    for (const source of piece.sources) {
      source.stop();
      source.disconnect();
    }
  }

  // Schedule what is heard until some seconds from now.
  pump(until = this.context.currentTime + AHEAD_SECONDS) {
    const run = this.run;
    if (this.pumping?.run !== run) {
      const done = this.#fill(until, run).finally(() => {
        if (this.pumping?.run === run) {
          this.pumping = null;
        }
      });
      this.pumping = { run, done };
    }
    return this.pumping.done;
  }

  async #fill(until, run) {
    try {
      while (this.playing && run === this.run) {
        const { when, frame } = this.next;
        if (frame >= this.#end(frame)) {
          this.#finishWhenHeard();
          return;
        }
        if (when !== null && when / this.rate >= until) {
          return;
        }
        const index = Math.floor(frame / this.#chunkFrames());
        const buffers = await this.#chunk(index);
        if (run !== this.run) {
          return;
        }
        this.#schedule(buffers, index);
        this.#chunk(index + 1).catch(() => {}); // on its way; asked for again if that fails
        this.#forget();
      }
    } catch (error) {
      if (run === this.run) {
        this.pause();
        this.dispatchEvent(new CustomEvent("error", { detail: error }));
      }
    }
  }

  #schedule(buffers, index) {
    const first = index * this.#chunkFrames();
    const frame = this.next.frame;
    const count = Math.min(this.#end(frame), first + this.#chunkFrames()) - frame;
    const now = this.context.currentTime;
    // The first piece, or one that comes too late; all lanes wait for it together.
    const soonest = Math.ceil((now + (this.next.when === null ? LEAD_SECONDS : 0.01)) * this.rate);
    const when = Math.max(this.next.when ?? soonest, soonest);
    const sources = this.sound.lanes.map((lane) => {
      const source = new AudioBufferSourceNode(this.context, { buffer: buffers.get(lane) });
      source.connect(this.gains.get(lane));
      source.start(when / this.rate, (frame - first) / this.rate, count / this.rate);
      return source;
    });
    this.pieces.push({ when, frame, count, sources });
    const looped = this.loop && frame + count === this.loop.to;
    this.next = { when: when + count, frame: looped ? this.loop.from : frame + count };
  }

  // Where what begins at a frame ends: at the end of the loop, or of the song.
  #end(frame) {
    const end = this.sound.nb_timesteps;
    return this.loop && frame < this.loop.to ? Math.min(this.loop.to, end) : end;
  }

  #finishWhenHeard() {
    if (this.context.currentTime * this.rate >= this.next.when) {
      this.#silence();
      this.frame = 0;
      this.dispatchEvent(new Event("change"));
    }
  }

  #chunkFrames() {
    return Math.round(CHUNK_SECONDS * this.rate);
  }

  #chunk(index) {
    const size = this.#chunkFrames();
    const first = index * size;
    const count = Math.min(size, this.sound.nb_timesteps - first);
    if (count <= 0) {
      return Promise.resolve(new Map());
    }
    let chunk = this.chunks.get(index);
    if (!chunk) {
      chunk = Promise.all(
        this.sound.lanes.map(async (lane) => [
          lane,
          this.#buffer(await this.load(lane, first, count), count),
        ]),
      ).then((entries) => new Map(entries));
      chunk.catch(() => this.chunks.delete(index));
    }
    this.chunks.delete(index);
    this.chunks.set(index, chunk); // the last used is the last in order
    return chunk;
  }

  #buffer(bytes, count) {
    const { nb_channels: nbChannels } = this.sound;
    const samples = new Int16Array(bytes);
    const buffer = new AudioBuffer({
      length: count,
      numberOfChannels: nbChannels,
      sampleRate: this.rate,
    });
    for (let channel = 0; channel < nbChannels; channel += 1) {
      const target = buffer.getChannelData(channel);
      for (let frame = 0, at = channel; frame < count; frame += 1, at += nbChannels) {
        target[frame] = samples[at] / 32768;
      }
    }
    return buffer;
  }

  // Let go of what was heard, and of chunks that were used longest ago.
  #forget() {
    const now = this.context.currentTime * this.rate;
    while (this.pieces.length > 1 && this.pieces[1].when < now - this.rate) {
      this.#drop(this.pieces.shift());
    }
    while (this.chunks.size > KEPT_CHUNKS) {
      this.chunks.delete(this.chunks.keys().next().value);
    }
  }
}
