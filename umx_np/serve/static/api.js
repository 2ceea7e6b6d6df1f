// The HTTP interface of the server; the page uses nothing else.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function failure(status, body) {
  let message = `The server answered ${status}.`;
  try {
    message = JSON.parse(body).error.message;
  } catch {
    // Not one of its own answers; the status has to do.
  }
  return new ApiError(status, message);
}

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (!answer.ok) {
    throw await failure(answer.status, await answer.text());
  }
  return answer;
}

export const getJson = async (path) => (await ask(path)).json();

export const remove = (id) => ask(`api/jobs/${id}`, { method: "DELETE" });

export const example = async (choice) =>
  (await ask(`api/jobs/example?${new URLSearchParams(choice)}`, { method: "POST" })).json();

// A request that says how much of a file is sent, which `fetch` does not.
export function upload(file, choice, onProgress) {
  const query = new URLSearchParams({ name: file.name, ...choice });
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => onProgress(event.loaded / (event.total || 1));
    request.onload = async () => {
      if (request.status === 201) {
        resolve(JSON.parse(request.responseText));
      } else {
        reject(await failure(request.status, request.responseText));
      }
    };
    request.onerror = () => reject(new ApiError(0, "The upload broke off. Send the song again."));
    request.onabort = () => resolve(null);
  });
  request.open("POST", `api/jobs?${query}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.send(file);
  return { done, cancel: () => request.abort() };
}

// Samples [firstFrame, firstFrame + nbFrames) of a lane, as they are in its file.
export async function samples(job, lane, firstFrame, nbFrames, signal) {
  const size = 2 * job.sound.nb_channels;
  const first = job.sound.first_byte + firstFrame * size;
  const headers = { Range: `bytes=${first}-${first + nbFrames * size - 1}` };
  const answer = await ask(laneAddress(job, lane), { headers, signal });
  const bytes = await answer.arrayBuffer();
  if (answer.status !== 206 || bytes.byteLength !== nbFrames * size) {
    throw new ApiError(answer.status, "A part of the song did not come as it was asked for.");
  }
  return bytes;
}

export const laneAddress = (job, lane, format = "wav") =>
  `api/jobs/${job.id}/lanes/${encodeURIComponent(lane)}?format=${format}`;

export const zipAddress = (job, format) => `api/jobs/${job.id}/zip?format=${format}`;

export const stemFileAddress = (job) => `api/jobs/${job.id}/stem-file`;

export const mixAddress = (job, format, gains) =>
  `api/jobs/${job.id}/mix?${new URLSearchParams({
    format,
    gains: Object.entries(gains).map(([lane, gain]) => `${lane}:${gain.toFixed(3)}`).join(","),
  })}`;
