"""Speech becomes song: syllables set to the tones of a phrase, and sung by WORLD.

For what makes speech sound sung, see T. Saitou and others, "Speech-to-singing synthesis" (2007).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .bodies import Timbre
from .melody import Tone
from .vocoder import HOP, Frames, Syllable, synthesise, taken


def sing(
    voice: Frames,
    words: Sequence[Syllable],
    phrase: Sequence[Tone],
    timbre: Timbre,
    rng: np.random.Generator,
    breath: bool = False,
    spoken: float = 0.0,
) -> tuple[float, np.ndarray]:
    """Sing a phrase.

    Parameters
    ----------
    voice : Frames
        Speech.
    words : sequence of Syllable
        In the order in which they are sung; they are repeated if there are too few.
    phrase : sequence of Tone
    timbre : Timbre
    rng : Generator
        Of what no singer does twice alike.
    breath : bool
        Whether to breathe in before.
    spoken : float
        Share of the speaker's own intonation, 1 for speech in rhythm.

    Returns
    -------
    tuple of float and ndarray [shape=(1, nb_timesteps)]
        Second at which the sound begins, and the sound.
    """
    times, places, holds = _alignment(words, phrase)
    lead_in = float(rng.uniform(0.35, 0.6)) if breath else 0.02
    start = times[0] - lead_in
    count = int((times[-1] - start) / HOP) + 1
    time = start + HOP * np.arange(count)
    taken_at = np.interp(time, times, places)
    frames_ = taken(voice, taken_at)
    own = frames_.f0 > 0
    held = np.zeros(count, bool)
    for begin, end in holds:
        held |= (time >= begin) & (time < end)
    inside = time >= times[0]
    voiced = ndimage.binary_opening((own | held) & inside, np.ones(3)) & inside
    pitch = _intonation(time, phrase, timbre, rng)
    if spoken > 0:
        own_pitch = _filled(frames_.f0)
        moved = own_pitch - np.median(own_pitch)
        pitch = (1.0 - spoken) * pitch + spoken * (phrase[0].pitch + moved)
    f0 = np.where(voiced, 440.0 * 2.0 ** ((pitch - 69.0) / 12.0), 0.0)
    gain = _dynamics(time, frames_, voiced, phrase, timbre, rng)
    gain[~inside] = -90.0
    if breath:
        frames_, gain = _with_breath(voice, words[0], frames_, gain, lead_in, rng)
    end = min(int(0.05 / HOP), count)
    gain[-end:] += np.linspace(0.0, -40.0, end)
    return start, synthesise(frames_, f0, gain, timbre)


def _alignment(
    words: Sequence[Syllable], phrase: Sequence[Tone]
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Seconds and the frames that sound at them, and where vowels are held.

    Consonants keep their length as far as the tones leave room; vowels begin with the tones.
    """
    groups: list[list[Tone]] = []
    for tone in phrase:
        if tone.tied and groups:
            groups[-1].append(tone)
        else:
            groups.append([tone])
    starts = [group[0].start for group in groups]
    stops = [group[-1].start + group[-1].duration for group in groups]
    times: list[float] = []
    places: list[float] = []
    holds = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        word = words[index % len(words)]
        after = words[(index + 1) % len(words)]
        onset = HOP * (word.vowel - word.begin)
        coda = HOP * (word.end - word.close)
        onset = min(onset, 0.45 * (start - starts[index - 1]) if index else 0.25)
        # Where this syllable must be over.
        if index + 1 < len(groups) and starts[index + 1] - stop < 0.12:
            follows = HOP * (after.vowel - after.begin)
            over = starts[index + 1] - min(follows, 0.45 * (starts[index + 1] - start))
        else:
            over = stop
        coda = min(coda, 0.35 * max(over - start, 0.02))
        times += [start - onset, start, over - coda, over - 1e-3]
        places += [word.begin, word.vowel, word.close, word.end]
        holds.append((start, over - coda))
    ordered = np.maximum.accumulate(np.array(times) + 1e-6 * np.arange(len(times)))
    return ordered, np.array(places, float), holds


def _intonation(
    time: np.ndarray, phrase: Sequence[Tone], timbre: Timbre, rng: np.random.Generator
) -> np.ndarray:
    """MIDI pitch over time: glides, overshoot, late vibrato, drift and jitter."""
    count = len(time)
    starts = np.array([tone.start for tone in phrase])
    pitches = np.array([tone.pitch for tone in phrase], float)
    corrected = timbre.glide < 0.03
    index = np.clip(np.searchsorted(starts - 0.5 * timbre.glide, time, "right") - 1, 0, None)
    if not corrected:
        pitches = pitches + rng.normal(0.0, 0.1, len(pitches))
    pitch = pitches[index]
    scoops = np.zeros(count)
    swings = np.zeros(count)
    for place, tone in enumerate(phrase):
        since = time - tone.start
        if not tone.tied and (place == 0 or rng.random() < 0.3):
            depth, slow = rng.uniform(0.3, 2.2), rng.uniform(0.03, 0.11)
            scoops -= depth * np.exp(-np.maximum(since + 0.06, 0) / slow) * (since > -0.2)
        if tone.duration > 0.32 and timbre.vibrato > 0 and rng.random() < 0.85:
            begin = min(timbre.onset * rng.uniform(0.6, 1.6), 0.45 * tone.duration)
            rate = timbre.rate * rng.uniform(0.93, 1.07)
            deep = timbre.vibrato / 100.0 * rng.uniform(0.6, 1.4)
            rising = np.clip((since - begin) / 0.3, 0.0, 1.0)
            ending = np.clip((tone.duration - since) / 0.08, 0.0, 1.0)
            speed = 2.0 * np.pi * rate * (1.0 + 0.05 * since)
            swings += deep * rising * ending * np.sin(speed * (since - begin))
    if rng.random() < 0.25:
        # Let fall at the end.
        late = np.maximum(time - (phrase[-1].start + phrase[-1].duration - 0.15), 0.0)
        scoops -= rng.uniform(4.0, 20.0) * late
    width = timbre.glide / HOP / 2.5
    # Two smoothings of unlike width overshoot a little.
    smooth = ndimage.gaussian_filter1d(pitch, width)
    smooth += 0.12 * (smooth - ndimage.gaussian_filter1d(smooth, 2.2 * width))
    drift = ndimage.gaussian_filter1d(rng.standard_normal(count), 30.0) * 0.10 * np.sqrt(60.0)
    jitter = ndimage.gaussian_filter1d(rng.standard_normal(count), 1.5) * 0.05
    if corrected:
        return np.asarray(smooth + 0.5 * swings + 0.2 * drift + jitter)
    return np.asarray(smooth + scoops + swings + 1.8 * drift + jitter)


def _dynamics(
    time: np.ndarray,
    voice: Frames,
    voiced: np.ndarray,
    phrase: Sequence[Tone],
    timbre: Timbre,
    rng: np.random.Generator,
) -> np.ndarray:
    """Gain in dB: speech's ups and downs evened out, tones shaped."""
    loud = np.percentile(voice.level[voiced], 80) if voiced.any() else voice.level.max()
    level = ndimage.gaussian_filter1d(voice.level, 4.0)
    evened = np.clip(timbre.evenness * (loud - level), -6.0, 9.0)
    gain = np.where(voiced, evened, np.clip(0.3 * (loud - 12.0 - level), -6.0, 3.0))
    gain = ndimage.gaussian_filter1d(gain, 2.0)
    begin, end = phrase[0].start, phrase[-1].start + phrase[-1].duration
    arch = np.clip((time - begin) / max(end - begin, 0.1), 0.0, 1.0)
    gain += rng.uniform(0.0, 2.5) * np.sin(np.pi * arch) + rng.uniform(-2.0, 1.0) * arch
    for tone in phrase:
        since = (time - tone.start) / max(tone.duration, 0.05)
        within = (since >= 0.0) & (since < 1.0)
        gain[within] += rng.normal(0.0, 0.7) - rng.uniform(0.0, 3.0) * since[within] ** 2
    sway = ndimage.gaussian_filter1d(rng.standard_normal(len(time)), 8.0) * 3.0
    release = np.clip((time - (end - rng.uniform(0.06, 0.2))) / 0.2, 0.0, 1.0)
    # Pauses of the speaker, and what hisses in them.
    floor = np.percentile(voice.level, 98) - 45.0
    quiet = np.clip(floor - voice.level, 0.0, 30.0)
    return np.asarray(ndimage.gaussian_filter1d(gain + 0.5 * sway - 10.0 * release, 1.5) - quiet)


def _with_breath(
    voice: Frames,
    word: Syllable,
    sung: Frames,
    gain: np.ndarray,
    seconds: float,
    rng: np.random.Generator,
) -> tuple[Frames, np.ndarray]:
    """Noise through the shape of the first vowel, rising and cut off."""
    count = max(int((seconds - 0.08) / HOP), 2)
    middle = (word.vowel + word.close) // 2
    envelope = sung.envelope.copy()
    envelope[:count] = voice.envelope[middle]
    # Less of the formants, more of the air.
    envelope[:count, 1:] *= 0.55
    shape = np.linspace(0.0, 1.0, count)
    gain = gain.copy()
    curve = 14.0 * np.sqrt(np.sin(np.pi * shape**0.8) + 1e-4) - 14.0
    gain[:count] = rng.uniform(-34.0, -24.0) + curve
    return Frames(sung.f0, sung.level, sung.aperiodicity, envelope), gain


def _filled(f0: np.ndarray) -> np.ndarray:
    """MIDI pitch of an f0, straight lines through voiceless parts."""
    found = np.flatnonzero(f0 > 0)
    if not len(found):
        return np.full(len(f0), 57.0)
    pitch = 69.0 + 12.0 * np.log2(f0[found] / 440.0)
    return np.asarray(np.interp(np.arange(len(f0)), found, pitch))


def retuned(
    voice: Frames,
    semitones: float,
    stretch: float,
    timbre: Timbre,
    scale: Sequence[int] = (),
    strength: float = 0.8,
) -> np.ndarray:
    """The same performance by another singer, at another pitch and pace.

    Parameters
    ----------
    semitones : float
        By how much it is shifted.
    stretch : float
        Factor of its length.
    scale : sequence of int
        Pitch classes towards which it is corrected; none leaves it as it is.
    strength : float
        Share of the error that is taken away.

    Returns
    -------
    ndarray [shape=(1, nb_timesteps)], float32
    """
    places = np.arange(int(len(voice.f0) * stretch)) / stretch
    moved = taken(voice, places)
    pitch = _filled(moved.f0) + semitones
    if len(scale):
        slow = ndimage.median_filter(pitch, 31)
        wanted = np.array([p for p in range(20, 110) if p % 12 in set(scale)], float)
        target = wanted[np.argmin(np.abs(slow[:, None] - wanted), axis=1)]
        error = target - slow
        if timbre.glide >= 0.01:
            error = ndimage.gaussian_filter1d(error, timbre.glide / HOP / 2.0)
        pitch = pitch + strength * error
    f0 = np.where(moved.f0 > 0, 440.0 * 2.0 ** ((pitch - 69.0) / 12.0), 0.0)
    floor = np.percentile(moved.level, 98) - 45.0
    gain = -np.clip(floor - moved.level, 0.0, 30.0)
    return synthesise(moved, f0, gain, timbre)


def vowel(
    voice: Frames,
    word: Syllable,
    pitch: float,
    seconds: float,
    timbre: Timbre,
    rng: np.random.Generator,
) -> np.ndarray:
    """One held vowel, as choirs sing it, shape ``(1, nb_timesteps)``."""
    count = max(int(seconds / HOP), 12)
    turn = 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count - 1, 1))
    middle, half = 0.5 * (word.vowel + word.close), 0.25 * (word.close - word.vowel)
    held = taken(voice, middle + half * (2.0 * turn - 1.0))
    tone = Tone(0.0, seconds, pitch)
    line = _intonation(HOP * np.arange(count), [tone], timbre, rng)
    f0 = 440.0 * 2.0 ** ((line - 69.0) / 12.0)
    attack = min(rng.uniform(0.05, 0.3), 0.3 * seconds)
    time = HOP * np.arange(count)
    rising = np.clip(time / attack, 1e-4, 1.0)
    falling = np.clip((time[-1] - time) / min(0.3, 0.3 * seconds), 1e-4, 1.0)
    level = np.median(held.level)
    gain = 20.0 * np.log10(np.sin(0.5 * np.pi * rising) * np.sin(0.5 * np.pi * falling))
    gain = np.maximum(gain, -70.0) + 0.8 * (level - held.level)
    return synthesise(held, f0, gain, timbre)
