// Making elements, and writing numbers for people.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value != null) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  const hours = Math.floor(whole / 3600);
  if (hours) {
    return [hours, ...parts.map((part) => String(part).padStart(2, "0"))].join(":");
  }
  return `${parts[0]}:${String(parts[1]).padStart(2, "0")}`;
}

export function duration(seconds) {
  if (seconds < 1.5) {
    return "1 second";
  }
  if (seconds < 90) {
    return `${Math.round(seconds)} seconds`;
  }
  return `${Math.round(seconds / 60)} minutes`;
}

export function megabytes(bytes) {
  const size = bytes / 1e6;
  if (size >= 1000) {
    return `${(size / 1e3).toFixed(1)} GB`;
  }
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} MB`;
}

export const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

let spoken = "";

// Let a screen reader say something, once.
export function announce(text) {
  if (text !== spoken) {
    spoken = text;
    document.getElementById("live").textContent = text;
  }
}

export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.hidden = !text;
}
