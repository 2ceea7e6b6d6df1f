// What is drawn on canvases: waveforms and spectrograms.

function fitted(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  canvas.width = width;
  canvas.height = height;
  return { pen: canvas.getContext("2d"), width, height, scale };
}

// peaks: { low, high } from -128 to 127; `covered` is the share of the columns that the song fills.
export function drawWave(canvas, peaks, covered, greatest) {
  const { pen, width, height, scale } = fitted(canvas);
  pen.fillStyle = getComputedStyle(canvas).color;
  const step = Math.max(2, Math.round(2 * scale));
  const nbColumns = peaks.low.length / covered;
  const middle = height / 2;
  const room = (middle - scale) / Math.max(greatest, 1);
  for (let x = 0; x < width; x += step + Math.round(scale)) {
    const first = Math.floor((x / width) * nbColumns);
    const last = Math.max(first + 1, Math.floor(((x + step) / width) * nbColumns));
    let low = 0;
    let high = 0;
    for (let column = first; column < Math.min(last, peaks.low.length); column += 1) {
      low = Math.min(low, peaks.low[column]);
      high = Math.max(high, peaks.high[column]);
    }
    const top = middle - high * room;
    const size = Math.max((high - low) * room, scale);
    pen.beginPath();
    pen.roundRect(x, top, step, size, step / 2);
    pen.fill();
  }
}

// From dark blue over violet and orange to light yellow, evenly lighter.
const COLOURS = [
  [8, 10, 30], [40, 20, 84], [92, 24, 110], [148, 38, 104], [203, 63, 77],
  [240, 108, 46], [252, 170, 42], [252, 238, 160],
];

function palette() {
  return Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (COLOURS.length - 1);
    const below = Math.min(Math.floor(place), COLOURS.length - 2);
    return COLOURS[below].map((from, i) => from + (place - below) * (COLOURS[below + 1][i] - from));
  });
}

export function drawSpectrogram(canvas, picture) {
  const levels = Uint8Array.from(atob(picture.levels), (letter) => letter.charCodeAt(0));
  const { nb_bands: nbBands, nb_columns: nbColumns } = picture;
  const image = new ImageData(nbColumns, nbBands);
  const colours = palette();
  for (let band = 0; band < nbBands; band += 1) {
    for (let column = 0; column < nbColumns; column += 1) {
      const at = 4 * ((nbBands - 1 - band) * nbColumns + column);
      image.data.set(colours[levels[band * nbColumns + column]], at);
      image.data[at + 3] = 255;
    }
  }
  canvas.width = nbColumns;
  canvas.height = nbBands;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
